"""Bounds on log p(x) as functions of arrays of log-weights."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks


def normalized_weights(log_weights: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Self-normalised importance weights `w_j / sum_m w_m`.

    Args:
      log_weights: log-weights; `-inf` is a weight of zero.
      axis: the axis of the K samples.

    Returns:
      An array of the shape of `log_weights` that sums to one along `axis`, or is all zero where every weight is zero.

    *Gradients*: ordinary; zero where every weight is zero.
    """
    largest = jax.lax.stop_gradient(jnp.max(log_weights, axis=axis, keepdims=True))
    # Where every weight is zero, -inf - -inf would be NaN: shift by zero there.
    weights = jnp.exp(log_weights - jnp.where(largest == -jnp.inf, 0.0, largest))
    total = jnp.sum(weights, axis=axis, keepdims=True)
    return weights / jnp.where(total == 0.0, 1.0, total)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def log_sum_exp(log_weights: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """`log sum_j exp(log_weights_j)`, whose gradient is `normalized_weights` even where every weight is zero."""
    return jax.nn.logsumexp(log_weights, axis=axis)


@log_sum_exp.defjvp
def _log_sum_exp_jvp(axis, primals, tangents):  # type: ignore[no-untyped-def]  # types of a JVP rule say nothing
    (log_weights,), (tangent,) = primals, tangents
    weights = normalized_weights(log_weights, axis=axis)
    return log_sum_exp(log_weights, axis), weighted_tangent(weights, tangent, axis=axis)


def weighted_tangent(
    weights: Float[Array, "..."], tangent: Float[Array, "..."], *, axis: int = -1
) -> Float[Array, "..."]:
    """`sum_j weights_j tangent_j`. Samples of weight zero are left out, even if their tangent is not finite."""
    return jnp.sum(jnp.where(weights == 0.0, 0.0, weights * tangent), axis=axis)


def _exponents(log_weights: Float[Array, "..."], power: float, axis: int) -> tuple[jax.Array, jax.Array]:
    """The log-weight that dominates the power mean, and `power * (log w_j - dominant)`, at most 0."""
    extreme = jnp.max if power > 0.0 else jnp.min
    dominant = extreme(log_weights, axis=axis, keepdims=True)
    # Equal log-weights get zero explicitly: -inf - -inf and an infinite power times 0 would be NaN.
    return dominant, jnp.where(log_weights == dominant, 0.0, power * (log_weights - dominant))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def log_power_mean(log_weights: Float[Array, "..."], power: float, axis: int) -> Float[Array, "..."]:
    """`1/power log 1/K sum_j w_j^power`, accurate to rounding however close the power is to zero."""
    dominant, exponents = _exponents(log_weights, power, axis)
    # Close to power = 0 the mean is close to 1, and the division would blow up the rounding of its logarithm.
    below_one = jnp.mean(jnp.expm1(exponents), axis=axis)
    log_mean = jnp.where(below_one > -0.5, jnp.log1p(below_one), jnp.log(jnp.mean(jnp.exp(exponents), axis=axis)))
    return jnp.squeeze(dominant, axis) + log_mean / power


@log_power_mean.defjvp
def _log_power_mean_jvp(power, axis, primals, tangents):  # type: ignore[no-untyped-def]  # types of a JVP rule say nothing
    (log_weights,), (tangent,) = primals, tangents
    dominant, exponents = _exponents(log_weights, power, axis)
    weights = jnp.where(dominant == -jnp.inf, 0.0, normalized_weights(exponents, axis=axis))
    return log_power_mean(log_weights, power, axis), weighted_tangent(weights, tangent, axis=axis)


def log_mean_exp(log_weights: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """`log 1/K sum_j exp(log_weights_j)`, accurate also where all log-weights are nearly equal."""
    return log_power_mean(log_weights, 1.0, axis)


def elbo(log_weights: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Evidence lower bound: the mean of the log-weights, `1/K sum_j log w_j`.

    Args:
      log_weights: `log p(x, z_j) - log q(z_j | x)`, without a mixing weight; any shape.
      axis: the axis of the K samples.

    Returns:
      The log-weights' shape without `axis`, in nats.

    *Gradients*: ordinary; each log-weight receives 1/K.

    Reference: Kingma and Welling (2014), equation 2.

    >>> float(elbo(jnp.array([0.0, -2.0])))
    -1.0
    """
    return jnp.mean(check_log_weights(log_weights, axis=axis), axis=axis)


def iwlb(log_weights: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Importance-weighted lower bound: log-mean-exp of the log-weights, `log 1/K sum_j w_j`.

    At K = 1 it equals `elbo`. Log-weights from `make_log_weights` already contain their mixing weight. For those the
    bound is their log-sum-exp, and `iwlb` would subtract log K a second time.

    Args:
      log_weights: `log p(x, z_j) - log q(z_j | x)`, without a mixing weight; any shape. `-inf` is a weight of zero.
      axis: the axis of the K samples.

    Returns:
      The log-weights' shape without `axis`, in nats; `-inf` where every weight is zero.

    *Gradients*: each log-weight receives its self-normalised weight; all receive zero where every weight is zero.

    Reference: Burda, Grosse and Salakhutdinov (2016), equation 8.

    >>> float(iwlb(jnp.log(jnp.array([1.0, 3.0])))) == float(jnp.log(2.0))
    True
    """
    log_weights = check_log_weights(log_weights, axis=axis)
    num_samples = log_weights.shape[axis]
    return log_sum_exp(log_weights, axis) - jnp.log(jnp.asarray(num_samples, log_weights.dtype))


def check_log_weights(log_weights: Float[Array, "..."], *, axis: int) -> Float[Array, "..."]:
    """Return `log_weights` in at least float32, or raise if it is no floating-point array with samples along `axis`.

    Sums over many samples would overflow in float16, and would not be accurate in bfloat16.
    """
    log_weights = _checks.float_array(
        "log_weights", log_weights, remark="; pass the logarithms of the importance weights"
    )
    place = _checks.integer(axis)
    if place is None:
        raise TypeError(f"axis: expected one integer, the axis that runs over the samples, got {axis!r:.80}")
    if log_weights.ndim == 0:
        raise ValueError("log_weights: expected an array with an axis of samples, got a scalar")
    if not -log_weights.ndim <= place < log_weights.ndim:
        raise ValueError(
            f"axis: log_weights has shape {log_weights.shape}, which has no axis {axis}; "
            "name the axis that runs over the samples"
        )
    if log_weights.shape[axis] == 0:
        raise ValueError(
            f"log_weights: shape {log_weights.shape} has no samples along axis {axis}; at least one is needed"
        )
    return log_weights
