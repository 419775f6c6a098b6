"""The shape of the tail of the importance weights: does their variance exist, and can their mean be believed?"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hiwae_jax._log_weights.bounds import check_log_weights

SMALLEST_TAIL = 5  # with fewer values there is nothing to fit

# Log-weights closer together than this many units of rounding are equal. A log-weight is a sum of larger terms, and has
# the rounding of several of them.
ROUNDING_UNITS = 64.0
# Weights may come in steps, so that too few of the tail are above the cutoff for a fit. Then they count as equal if the
# largest log-weight is above the cutoff by no more than this many nats.
SMALL_STEP = 1e-2


def pareto_khat(log_weights: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Shape k of the generalised Pareto distribution fitted to the largest weights.

    Moments of the weights of order 1/k and above do not exist: below 0.5 the variance of an importance sampling
    estimate is finite; up to about 0.7 it can be relied on at practical sample sizes; above 1 even the mean does not
    exist. The tail is the largest `min(K / 5, 3 sqrt(K))` weights.

    Args:
      log_weights: log-weights up to a common constant; any shape. `-inf` is a weight of zero.
      axis: the axis of the K samples, at least 25 of them.

    Returns:
      The log-weights' shape without `axis`, in at least float32. `-inf` where the weights of the tail are equal up to
      rounding: no heavy tail can be seen. `inf` where a few samples carry everything: a quarter of the tail does not
      exceed the weights outside it, or every weight is zero. NaN where a log-weight is NaN or `inf`.

    *Gradients*: none; the log-weights are stopped.

    The result is valid for independent samples. With fewer than 25 samples use `effective_sample_size`. A small value
    is no guarantee: the fit knows nothing of a part of the posterior that no sample has found.

    Reference: Vehtari, Simpson, Gelman, Yao and Gabry (2024), "Pareto smoothed importance sampling"; the
    fit is that of Zhang and Stephens (2009), pulled towards 0.5 with the strength of 10 observations.

    >>> uniform = (jnp.arange(1000.0) + 0.5) / 1000
    >>> bool(abs(pareto_khat(-0.6 * jnp.log(uniform)) - 0.6) < 0.05)  # weights with P(w > t) = t^(-1 / 0.6)
    True
    """
    log_weights = check_log_weights(log_weights, axis=axis)
    length = tail_length(log_weights.shape[axis])
    if length < SMALLEST_TAIL:
        raise ValueError(
            f"log_weights: expected at least 25 samples along axis {axis}, got shape {log_weights.shape}; a tail "
            "cannot be fitted to fewer, see effective_sample_size"
        )
    last = jnp.moveaxis(jax.lax.stop_gradient(log_weights), axis, -1)
    largest, _ = jax.lax.top_k(last, length + 1)
    shape = tail_shape(jnp.flip(largest, axis=-1))
    return jnp.where(jnp.any(jnp.isnan(last) | (last == jnp.inf), axis=-1), jnp.nan, shape)


def tail_length(num_samples: int) -> int:
    """The number of weights that count as the tail: the integer part of `min(K / 5, 3 sqrt(K))`."""
    return min(num_samples // 5, math.isqrt(9 * num_samples))


def tail_shape(log_weights: Float[Array, "... n"]) -> Float[Array, "..."]:
    """The shape fitted to the excess of `log_weights[..., 1:]`, ascending, over the cutoff `log_weights[..., 0]`.

    NaN where one of them is NaN or `inf`.
    """
    shape: Array = jnp.vectorize(_tail_shape, signature="(n)->()")(log_weights)
    return shape


@jax.jit
def _tail_shape(log_weights: Float[Array, " n"]) -> Float[Array, ""]:
    """The shape for one row: the cutoff, then the tail in ascending order."""
    cutoff, tail = log_weights[0], log_weights[1:]
    log_excess = _log_excess(tail, cutoff)
    log_quartile = log_excess[int(len(tail) / 4 + 0.5) - 1]
    too_few_above = log_quartile == -jnp.inf
    is_equal = _is_equal(tail, cutoff, too_few_above)
    # A tail that cannot be fitted is replaced by one that can.
    has_no_fit = is_equal | too_few_above
    log_excess_to_fit = jnp.where(has_no_fit, jnp.linspace(-1.0, 0.0, len(tail), dtype=tail.dtype), log_excess)
    fitted = _fitted_shape(log_excess_to_fit, jnp.where(has_no_fit, -0.5, log_quartile))
    is_unusable = jnp.any(jnp.isnan(log_weights) | (log_weights == jnp.inf))
    return jnp.where(is_unusable, jnp.nan, jnp.where(is_equal, -jnp.inf, jnp.where(too_few_above, jnp.inf, fitted)))


def _log_excess(tail: Float[Array, " n"], cutoff: Float[Array, ""]) -> Float[Array, " n"]:
    """`log(w - cutoff weight)` of each weight w of the tail.

    It is computed from logarithms alone: in a bad tail most weights underflow beside the largest.
    """
    gap = jnp.where(tail == -jnp.inf, 0.0, cutoff - tail)
    return tail + jnp.log(-jnp.expm1(gap))


def _is_equal(tail: Float[Array, " n"], cutoff: Float[Array, ""], too_few_above: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether the weights of the tail count as equal: up to rounding, or because they come in small steps."""
    rounding = ROUNDING_UNITS * float(np.finfo(tail.dtype).eps) * jnp.maximum(jnp.abs(tail[-1]), 1.0)
    is_within_rounding = tail[-1] - tail[0] <= rounding
    is_small_step = too_few_above & (tail[-1] - cutoff <= SMALL_STEP)
    return (is_within_rounding | is_small_step) & (tail[-1] > -jnp.inf)


def _fitted_shape(log_excess: Float[Array, " n"], log_quartile: Float[Array, ""]) -> Float[Array, ""]:
    """The shape of Zhang and Stephens: a posterior mean over a grid of values of their parameter b.

    The grid is `-b = grid / quartile - 1 / largest`. Everything is computed in units of the quartile, from
    `offset = -b * quartile` and from the ratio of each excess to the quartile.
    """
    dtype, length = log_excess.dtype, len(log_excess)
    num_points = 30 + math.isqrt(length)
    point = jnp.arange(1, num_points + 1, dtype=dtype)
    grid = (jnp.sqrt(num_points / (point - 0.5)) - 1.0) / 3.0
    offset = grid - jnp.exp(log_quartile - log_excess[-1])
    nonzero_offset = jnp.where(offset == 0.0, 1e-7, offset)  # b = 0 is a removable singularity
    shape_at = functools.partial(_shape_at, log_excess - log_quartile)
    # One point at a time: this needs the memory of one tail and not of a tail for each point.
    shapes = jax.lax.map(shape_at, nonzero_offset)
    posterior = jax.nn.softmax(length * (jnp.log(nonzero_offset / shapes) - shapes))
    return (length * shape_at(jnp.sum(posterior * nonzero_offset)) + 5.0) / (length + 10.0)


def _shape_at(log_ratio: Float[Array, " n"], offset: Float[Array, ""]) -> Float[Array, ""]:
    """`mean(log(1 + offset * ratio))`, the most likely shape for this offset."""
    # Where the exponential would overflow, the 1 does not count, and the offset is certain to be positive.
    small = jnp.log1p(offset * jnp.exp(jnp.minimum(log_ratio, 40.0)))
    return jnp.mean(jnp.where(log_ratio > 40.0, jnp.log(jnp.abs(offset)) + log_ratio, small))
