"""Diagnostics of a proposal, from its log-weights and gradients."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._log_weights.bounds import check_log_weights, normalized_weights

Gradients = TypeVar("Gradients")


def effective_sample_size(log_weights: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Effective sample size of self-normalised importance sampling, `(sum_j w_j)^2 / sum_j w_j^2`.

    Args:
      log_weights: log-weights up to a common constant; any shape.
      axis: the axis of the K samples.

    Returns:
      The log-weights' shape without `axis`, between 1 and K; 0 where every weight is zero.

    Reference: Kong (1992), "A note on importance sampling using standardized weights".

    >>> float(effective_sample_size(jnp.zeros(4)))
    4.0
    """
    weights = normalized_weights(check_log_weights(log_weights, axis=axis), axis=axis)
    squares = jnp.sum(weights**2, axis=axis)
    return jnp.where(squares == 0.0, 0.0, 1.0 / jnp.where(squares == 0.0, 1.0, squares))


def log_weight_variance(log_weights: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Unbiased sample variance of the log-weights, `1/(K-1) sum_j (log w_j - mean)^2`.

    To second order, half of it is the gap between the ELBO and log p(x).

    Args:
      log_weights: log-weights up to a common constant; any shape.
      axis: the axis of the K samples, at least two. Or the axis of repeated draws, for the variance of each log-weight.

    Returns:
      The log-weights' shape without `axis`, in squared nats; `inf` where any weight is zero.

    *Gradients*: ordinary; zero where the variance is infinite.

    Reference: Huang et al. (2019), section 6.1, figure 3.

    >>> float(log_weight_variance(jnp.array([0.0, 2.0])))
    2.0
    """
    log_weights = check_log_weights(log_weights, axis=axis)
    if log_weights.shape[axis] < 2:
        raise ValueError(
            f"log_weights: expected at least 2 samples along axis {axis} for a variance, got shape {log_weights.shape}"
        )
    is_nan = jnp.any(jnp.isnan(log_weights), axis=axis, keepdims=True)
    is_zero = jnp.any(log_weights == -jnp.inf, axis=axis, keepdims=True) & ~is_nan
    # Subtract the largest: far from zero, deviations from a float32 mean would be too coarse.
    largest = jax.lax.stop_gradient(jnp.max(log_weights, axis=axis, keepdims=True))
    variance = jnp.var(jnp.where(is_zero, 0.0, log_weights - largest), axis=axis, ddof=1)
    return jnp.where(jnp.squeeze(is_zero, axis=axis), jnp.inf, variance)


def coefficient_of_variation(log_weights: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Standard deviation of the weights in units of their mean, `sqrt(1/K sum_j w_j^2 - mean^2) / mean`.

    The effective sample size is `K / (1 + cv^2)`.

    Args:
      log_weights: log-weights up to a common constant; any shape. `-inf` is a weight of zero.
      axis: the axis of the K samples.

    Returns:
      The log-weights' shape without `axis`, between 0 (all weights equal) and sqrt(K - 1) (only one above zero). It is
      `inf` where every weight is zero.

    *Gradients*: ordinary; zero where all weights are equal, since the coefficient has a kink there.

    Reference: Kong (1992), "A note on importance sampling using standardized weights".

    >>> round(float(coefficient_of_variation(jnp.log(jnp.array([1.0, 3.0])))), 3)
    0.5
    """
    log_weights = check_log_weights(log_weights, axis=axis)
    # The weights times K have mean one. Subtracting it first avoids a difference of squares, which would cancel.
    weights = normalized_weights(log_weights, axis=axis) * log_weights.shape[axis]
    squares = jnp.mean((weights - 1.0) ** 2, axis=axis)
    deviation = jnp.where(squares == 0.0, 0.0, jnp.sqrt(jnp.where(squares == 0.0, 1.0, squares)))
    return jnp.where(jnp.all(log_weights == -jnp.inf, axis=axis), jnp.inf, deviation)


def weight_correlation(log_weights: Float[Array, "N K"]) -> Float[Array, "K K"]:
    """Pearson correlation of the weights `w_j` with each other, over N draws of K weights.

    If the weights of different members are negatively correlated, their mean varies less than that of independent
    samples.

    Args:
      log_weights: [N, K], with N at least 2. Each column may have a constant of its own added. `-inf` is a weight of
        zero.

    Returns:
      [K, K], symmetric, with entries between -1 and 1, and 1 on the diagonal. A weight that is the same in all draws
      has no correlation, so its row and column are NaN, including the diagonal.

    *Gradients*: ordinary; entries that are NaN contribute zero.

    Reference: Huang et al. (2019), section 6.1, figure 4.

    >>> log_weights = jnp.log(jnp.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]))
    >>> bool(jnp.allclose(weight_correlation(log_weights), jnp.array([[1.0, -1.0], [-1.0, 1.0]])))
    True
    """
    log_weights = _checks.float_array("log_weights", log_weights)
    if log_weights.ndim != 2 or log_weights.shape[0] < 2:
        raise ValueError(
            f"log_weights: expected shape [N, K] of N >= 2 draws, got shape {log_weights.shape}; "
            "stack the log-weights of several keys"
        )
    log_weights = check_log_weights(log_weights, axis=0)
    # Correlations do not depend on the scale of a column. Each is normalised by itself, so that nothing overflows.
    weights = normalized_weights(log_weights, axis=0)
    centred = weights - jnp.mean(weights, axis=0, keepdims=True)
    is_constant = jnp.all(log_weights == log_weights[:1], axis=0)
    squares = jnp.sum(centred**2, axis=0)
    standardized = centred / jnp.sqrt(jnp.where(is_constant, 1.0, squares))[None, :]
    correlation = jnp.clip(jnp.matmul(standardized.T, standardized, precision="highest"), -1.0, 1.0)
    return jnp.where(is_constant[:, None] | is_constant[None, :], jnp.nan, correlation)


def gradient_signal_to_noise(gradients: Gradients) -> Gradients:
    """Signal-to-noise ratio of a gradient estimator, `|mean| / standard deviation` of every entry.

    Args:
      gradients: N >= 2 independent estimates, an array [N, ...] or a pytree of such arrays. `jax.vmap` of a gradient
        over keys returns them.

    Returns:
      The same structure without the leading axis. Where all estimates are equal the ratio is `inf`, or 0 if they are
      all zero: an entry that nothing depends on carries no signal.

    Reference: Rainforth et al. (2018), "Tighter variational bounds are not necessarily better".

    >>> ratios = gradient_signal_to_noise({"loc": jnp.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])})
    >>> [round(float(ratio), 3) for ratio in ratios["loc"]]
    [2.0, 0.0]
    """
    leaves = jax.tree.leaves(gradients)
    for leaf in leaves:
        if not _checks.is_array(leaf):
            raise TypeError(f"gradients: expected arrays, got a leaf of type {type(leaf).__name__}")
    shapes = [jnp.shape(leaf) for leaf in leaves]
    if not leaves or any(not shape or shape[0] != shapes[0][0] or shape[0] < 2 for shape in shapes):
        raise ValueError(
            f"gradients: expected leaves with one leading axis of N >= 2 estimates, got {shapes}; "
            "use jax.vmap of the gradient over keys"
        )

    for leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"gradients: expected floating-point arrays, got dtype {jnp.result_type(leaf)}")

    def ratio(estimates: Float[Array, "N ..."]) -> Float[Array, "..."]:
        estimates = _checks.at_least_float32(jnp.asarray(estimates))
        # Relative to the largest, whose square may overflow or vanish.
        largest = jnp.max(jnp.abs(estimates), axis=0, keepdims=True)
        estimates = estimates / jnp.where(largest == 0.0, 1.0, largest)
        signal, noise = jnp.abs(jnp.mean(estimates, axis=0)), jnp.std(estimates, axis=0, ddof=1)
        is_quiet = jnp.all(estimates == estimates[:1], axis=0)  # their mean may be off by rounding
        return jnp.where(is_quiet, jnp.where(signal == 0.0, 0.0, jnp.inf), signal / jnp.where(is_quiet, 1.0, noise))

    ratios: Gradients = jax.tree.map(ratio, gradients)
    return ratios
