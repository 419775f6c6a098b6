"""Sums over all weights but two."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def leave_two_out(log_weights: Float[Array, " K"]) -> tuple[Float[Array, "K K"], Float[Array, "K K"]]:
    """`sum_{m not in {i, j}} w_m` at [i, j], and `sum_{m != i} w_m` on the diagonal, as `exp(shift) * total`.

    Accurate however small the remainder is next to the weights that leave: the sum is taken relative to the largest
    weight that stays, which is one of the three largest of all. Weights above it have left; of those below, at most two
    are subtracted from a sum that holds them and the largest itself, so that nothing cancels.

    Returns:
      `(shift, total)`; where nothing remains, `-inf` and 0.

    >>> shift, total = leave_two_out(jnp.log(jnp.array([1.0, 2.0, 4.0])))
    >>> (jnp.exp(shift) * total).round().tolist()
    [[6.0, 4.0, 2.0], [4.0, 5.0, 1.0], [2.0, 1.0, 3.0]]
    """
    K = log_weights.shape[0]
    largest, places = jax.lax.top_k(log_weights, min(3, K))
    index = jnp.arange(K, dtype=places.dtype)
    row, column = index[:, None], index[None, :]
    shift, total = jnp.full((K, K), -jnp.inf, log_weights.dtype), jnp.zeros((K, K), log_weights.dtype)
    for rank in reversed(range(min(3, K))):
        above = jnp.any(index[:, None] == places[None, :rank], axis=1)
        terms = jnp.where(above | (log_weights == -jnp.inf), 0.0, jnp.exp(log_weights - largest[rank]))
        gone = terms[:, None] + jnp.where(row == column, 0.0, terms[None, :])
        stays = (row != places[rank]) & (column != places[rank])
        shift = jnp.where(stays, largest[rank], shift)
        total = jnp.where(stays, jnp.sum(terms) - gone, total)
    return shift, total
