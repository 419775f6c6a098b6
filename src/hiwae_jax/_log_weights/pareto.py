"""The shape of the tail of the importance weights: does their variance exist, and can their mean be believed?"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._log_weights.bounds import check_log_weights

SMALLEST_TAIL = 5  # with fewer values there is nothing to fit

# Log-weights closer together than this many units of rounding are equal: a log-weight is a sum of larger terms, and
# has the rounding of several of them.
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

    Valid for independent samples. With fewer than 25 use `effective_sample_size`. A small value is no guarantee: the
    fit knows nothing of a part of the posterior that no sample has found.

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
    cutoff, tail = log_weights[0], log_weights[1:]
    dtype, length = tail.dtype, tail.shape[0]
    # Logarithms all through: in a tail bad enough to matter, most weights underflow beside the largest.
    gap = jnp.where(tail == -jnp.inf, 0.0, cutoff - tail)
    log_excess = tail + jnp.log(-jnp.expm1(gap))
    log_quartile = log_excess[int(length / 4 + 0.5) - 1]
    has_no_fit = log_quartile == -jnp.inf
    rounding = ROUNDING_UNITS * float(np.finfo(dtype).eps) * jnp.maximum(jnp.abs(tail[-1]), 1.0)
    is_equal = (tail[-1] - tail[0] <= rounding) | (has_no_fit & (tail[-1] - cutoff <= SMALL_STEP))
    is_equal &= tail[-1] > -jnp.inf
    log_excess = jnp.where(is_equal | has_no_fit, jnp.linspace(-1.0, 0.0, length, dtype=dtype), log_excess)
    log_quartile = jnp.where(is_equal | has_no_fit, -0.5, log_quartile)

    # The profile likelihood is taken at -b = grid / quartile - 1 / largest. In units of the quartile the whole
    # computation is in terms of offset = -b * quartile and of the excesses relative to the quartile.
    num_points = 30 + math.isqrt(length)
    point = jnp.arange(1, num_points + 1, dtype=dtype)
    grid = (jnp.sqrt(num_points / (point - 0.5)) - 1.0) / 3.0
    offset = grid - jnp.exp(log_quartile - log_excess[-1])
    offset = jnp.where(offset == 0.0, 1e-7, offset)  # b = 0 is a removable singularity
    ratio = log_excess - log_quartile

    def shape_at(offset: Float[Array, ""]) -> Float[Array, ""]:
        # Where the exponential would overflow the one of log1p is nothing, and the offset is certain to be positive.
        small = jnp.log1p(offset * jnp.exp(jnp.minimum(ratio, 40.0)))
        return jnp.mean(jnp.where(ratio > 40.0, jnp.log(jnp.abs(offset)) + ratio, small))

    shapes = jax.lax.map(shape_at, offset)  # one by one: memory of a tail, not of a tail for each point
    posterior = jax.nn.softmax(length * (jnp.log(offset / shapes) - shapes))
    shape = (length * shape_at(jnp.sum(posterior * offset)) + 5.0) / (length + 10.0)
    is_unusable = jnp.any(jnp.isnan(log_weights) | (log_weights == jnp.inf))
    return jnp.where(is_unusable, jnp.nan, jnp.where(is_equal, -jnp.inf, jnp.where(has_no_fit, jnp.inf, shape)))
