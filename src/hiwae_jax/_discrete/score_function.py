"""Gradients by scores, for samples that cannot be reparameterized: one value, and a learning signal for each sample.

Let `L` be the bound and `wbar_j` the self-normalised weights. The mean bound over independent samples has the gradient

    E[ sum_j wbar_j d log w_j + sum_j signal_j d log q(z_j) ],    signal_j = L - (anything that does not depend on z_j).

The first sum includes `-wbar_j d log q(z_j)`; samples themselves carry no gradient.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax._log_weights.bounds import check_log_weights, iwlb, log_sum_exp, normalized_weights, weighted_tangent
from hiwae_jax._log_weights.objectives import same_shape


def vimco(
    log_weights: Float[Array, "..."], log_proposal: Float[Array, "..."], *, axis: int = -1
) -> Float[Array, "..."]:
    """The importance-weighted bound `L = log 1/K sum_j w_j`, differentiated without a path through the samples.

    It is for proposals that cannot be reparameterized. The value is `iwlb(log_weights)`. The learning signal of sample
    j is `L - L_j`, where `L_j` is the bound with `w_j` replaced by the geometric mean of the other weights. Where all
    other weights are zero, `L_j` would be `-inf`, and 0 is taken instead.

    Args:
      log_weights: `log p(x, z_j) - log q(z_j | x)` of K >= 2 independent samples, not stopped, without a mixing weight;
        any shape. `-inf` is a weight of zero.
      log_proposal: `log q(z_j | x)`, of the same shape, the samples themselves stopped.
      axis: the axis of the K samples.

    Returns:
      The log-weights' shape without `axis`, in nats; `-inf` where every weight is zero.

    *Gradients*: log-weight j receives `wbar_j`, as from `iwlb`; `log_proposal` receives the signal, in which nothing is
    differentiated. Together they are an unbiased gradient of the mean bound: `L_j` does not depend on `z_j`, so it is a
    control variate of mean zero. All receive zero where every weight is zero. First derivatives only.

    Raises:
      ValueError: if the shapes differ or there is only one sample.

    Reference: Mnih and Rezende (2016), the VIMCO estimator with the geometric mean.

    >>> log_weights, log_proposal = jnp.log(jnp.array([1.0, 3.0])), jnp.log(jnp.array([0.5, 0.1]))
    >>> signals = jax.jit(jax.grad(vimco, argnums=1))(log_weights, log_proposal)
    >>> bool(jnp.allclose(signals, jnp.log(jnp.array([4.0 / 6.0, 4.0 / 2.0]))))
    True
    """
    log_weights = check_log_weights(log_weights, axis=axis)
    log_proposal = same_shape(log_proposal, log_weights)
    check_others("log_weights", log_weights.shape[axis])
    last = jnp.moveaxis(jax.lax.stop_gradient(log_weights), axis, -1)
    signals = jnp.vectorize(leave_one_out_signals, signature="(k)->(k)")(last)
    return iwlb_with_signals(log_weights, log_proposal, jnp.moveaxis(signals, -1, axis), axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def iwlb_with_signals(
    log_weights: Float[Array, "..."], log_proposal: Float[Array, "..."], signals: Float[Array, "..."], axis: int
) -> Float[Array, "..."]:
    """`iwlb(log_weights)`, to whose tangent `sum_j signals_j d log_proposal_j` is added."""
    return iwlb(log_weights, axis=axis)


@iwlb_with_signals.defjvp
def _iwlb_with_signals_jvp(axis, primals, tangents):  # type: ignore[no-untyped-def]  # types of a JVP rule say nothing
    log_weights, _, signals = primals
    paths = weighted_tangent(normalized_weights(log_weights, axis=axis), tangents[0], axis=axis)
    return iwlb_with_signals(*primals, axis), paths + weighted_tangent(signals, tangents[1], axis=axis)


def bound_signals(log_weights: Float[Array, " K"]) -> Float[Array, " K"]:
    """The bound as the signal of every sample; zero where it is `-inf`."""
    bound = iwlb(log_weights)
    return jnp.broadcast_to(jnp.where(bound == -jnp.inf, 0.0, bound), log_weights.shape)


def leave_one_out_signals(log_weights: Float[Array, " K"]) -> Float[Array, " K"]:
    """`L - L_j` for each sample j; row j of the matrices below has the weights that `L_j` is made of."""
    K = log_weights.shape[0]
    is_own, rows = jnp.eye(K, dtype=bool), log_weights[None, :]
    # The others are summed afresh for each sample: taking one weight out of the sum of all cancels if it dominates.
    log_geometric_mean = jnp.sum(jnp.where(is_own, 0.0, rows), axis=1, keepdims=True) / (K - 1)
    without = log_sum_exp(jnp.where(is_own, log_geometric_mean, rows), -1)
    signals = log_sum_exp(log_weights, -1) - without  # the log K of the two bounds cancels
    return jnp.where(without == -jnp.inf, bound_signals(log_weights), signals)


SIGNALS: dict[str, Callable[[Float[Array, " K"]], Float[Array, " K"]]] = {
    "score_function": bound_signals,
    "vimco": leave_one_out_signals,
    # The log-weights bring -wbar_j, so that wbar_j is left: the wake phase, which is not the gradient of the bound.
    "wake_phase": lambda log_weights: 2.0 * normalized_weights(log_weights),
}


def check_others(name: str, num_samples: int) -> None:
    """Raise if there is only one sample, which has no other to be compared with."""
    if num_samples < 2:
        raise ValueError(
            f"{name}: vimco compares each sample with the others and needs at least 2, got {num_samples}; "
            'draw more, or use make_discrete_bound with gradient="score_function"'
        )
