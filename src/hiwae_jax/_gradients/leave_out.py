"""Sums over all weights but two."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Index = Int[Array, ""] | int


def leave_two_out(log_weights: Float[Array, " K"]) -> Callable[[Index], tuple[Float[Array, " K"], Float[Array, " K"]]]:
    """`sum_{m not in {i, j}} w_m` at [i], and `sum_{m != j} w_m` at [j], as `exp(shift) * total`, for a given j.

    The sum is accurate however small it is beside the weights that are left out. It is computed relative to the largest
    weight that stays, which is one of the three largest of all. All weights above that one are left out anyway. Of
    those below it, at most two are subtracted from a sum that contains them and the largest itself, so nothing cancels.

    Returns:
      `row(j) -> (shift, total)`. Where nothing remains they are `-inf` and 0.

    >>> import jax
    >>> shift, total = jax.vmap(leave_two_out(jnp.log(jnp.array([1.0, 2.0, 4.0]))))(jnp.arange(3))
    >>> (jnp.exp(shift) * total).round().tolist()
    [[6.0, 4.0, 2.0], [4.0, 5.0, 1.0], [2.0, 1.0, 3.0]]
    """
    K = log_weights.shape[0]
    ranks = min(3, K)
    index = jnp.arange(K)
    # Maxima are found one after another, because a sort would gather weights that lie on several devices.
    largest, places, left = [], [], [log_weights == -jnp.inf]
    for _ in range(ranks):
        staying = jnp.where(left[-1], -jnp.inf, log_weights)
        largest.append(jnp.max(staying))
        places.append(jnp.argmax(staying))
        left.append(left[-1] | (index == places[-1]))
    counted = jnp.where(jnp.stack(left[:-1]), 0.0, jnp.exp(log_weights[None, :] - jnp.stack(largest)[:, None]))
    sums = jnp.sum(counted, axis=1)

    def row(j: Index) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
        j = jnp.asarray(j, index.dtype)
        shift, total = jnp.full((K,), -jnp.inf, log_weights.dtype), jnp.zeros((K,), log_weights.dtype)
        for rank in reversed(range(ranks)):
            gone = counted[rank, j] + jnp.where(index == j, 0.0, counted[rank])
            stays = (j != places[rank]) & (index != places[rank])
            shift = jnp.where(stays, largest[rank], shift)
            total = jnp.where(stays, sums[rank] - gone, total)
        return shift, total

    return row
