"""A mean with control variates whose coefficients come from an independent half of the draws (cross-fitting).

Each draw gives a value v and variates c [K] of known mean one. For fixed coefficients b, the mean of `v - b . (c - 1)`
is that of v. The coefficients of least variance are `Cov(c, c)^-1 Cov(c, v)`. Coefficients from the same draws would
depend on c, and the mean would be off. So those of each half are applied to the other half. The standard error then
contains what wrong coefficients cost, because they meet draws that they were not fitted to.

Only sums are kept, so that memory does not grow with the number of draws.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

DRAWS_FOR_EACH = 4  # the fewest draws for each variate; their noise then adds at most about as much again as stays


class Moments(NamedTuple):
    """Sums over the draws of each half: even draws and odd draws.

    Attributes:
      sums: the sum of `u u^T`, `u = (1, v, c_1 - 1, ..., c_K - 1)`. The variates are close to their mean, so nothing
        cancels when means are subtracted.
    """

    sums: Float[Array, "2 N N"]


class Corrected(NamedTuple):
    """What the control variates change.

    Attributes:
      correction: what is added to the mean of v.
      variance: the variance of the corrected mean.
    """

    correction: Float[Array, ""]
    variance: Float[Array, ""]


def no_moments(num_variates: int, dtype: DTypeLike) -> Moments:
    """The sums before the first draw."""
    return Moments(jnp.zeros((2, num_variates + 2, num_variates + 2), dtype))


def add_draws(
    moments: Moments,
    values: Float[Array, " C"],
    variates: Float[Array, "C K"],
    *,
    draws: Int[Array, " C"],
    num_draws: int,
    rescale: Float[Array, ""],
) -> Moments:
    """The sums with some more draws.

    Args:
      moments: the sums so far.
      values: v of each draw.
      variates: c of each draw.
      draws: the numbers of the draws, which say to which half they belong.
      num_draws: R; draws beyond it are left out.
      rescale: the factor that brings the former values to the unit of the new ones.
    """
    is_drawn = draws < num_draws
    rows = jnp.concatenate([jnp.ones_like(values)[:, None], values[:, None], variates - 1.0], axis=1)
    rows = jnp.where(is_drawn[:, None], rows, 0.0)
    of_half = jnp.where((draws % 2)[None, :] == jnp.arange(2)[:, None], 1.0, 0.0).astype(rows.dtype)
    # Accelerators would round the factors to fewer bits, and the sums of a million draws to those of a thousand.
    new = jnp.einsum("hc,ca,cb->hab", of_half, rows, rows, precision=jax.lax.Precision.HIGHEST)
    unit = jnp.ones(rows.shape[1], rows.dtype).at[1].set(rescale)
    return Moments(moments.sums * jnp.outer(unit, unit)[None] + new)


def corrected(moments: Moments, num_draws: int) -> Corrected:
    """The mean of v, with the coefficients of each half applied to the other."""
    counts = (num_draws + 1) // 2, num_draws // 2
    means = [sums[0, 1:] / count for sums, count in zip(moments.sums, counts, strict=True)]
    seconds = [sums[1:, 1:] / count for sums, count in zip(moments.sums, counts, strict=True)]
    covariances = [second - jnp.outer(mean, mean) for second, mean in zip(seconds, means, strict=True)]
    correction, variance = jnp.zeros((), moments.sums.dtype), jnp.zeros((), moments.sums.dtype)
    for half, count in enumerate(counts):
        of_other = covariances[1 - half]
        coefficients = least_squares(of_other[1:, 1:], of_other[1:, 0])
        combination = jnp.concatenate([jnp.ones(1, coefficients.dtype), -coefficients])
        correction -= count * (coefficients @ means[half][1:])
        variance += count**2 / (count - 1.0) * (combination @ covariances[half] @ combination)
    return Corrected(correction / num_draws, variance / num_draws**2)


def least_squares(matrix: Float[Array, "K K"], right: Float[Array, " K"]) -> Float[Array, " K"]:
    """A solution b of `matrix b = right` for a covariance matrix, with zero for each variate that the others before it
    determine.

    The shares of all members sum to K, and equal members have equal shares, so the matrix is always singular. Gauss and
    Jordan's elimination leaves out a variate of which others leave less variance than rounding tells.

    >>> [round(float(b), 4) for b in least_squares(jnp.array([[2.0, -2.0], [-2.0, 2.0]]), jnp.array([1.0, -1.0]))]
    [0.5, 0.0]
    """
    floors = float(np.finfo(matrix.dtype).eps) ** 0.5 * jnp.diagonal(matrix)

    def eliminate(place: Int[Array, ""], table: Float[Array, "K N"]) -> Float[Array, "K N"]:
        pivot = table[place, place]
        is_kept = ~(pivot <= floors[place])  # NaN is kept, and seen in the result
        row = jnp.where(is_kept, table[place] / jnp.where(is_kept, pivot, 1.0), 0.0)
        cleared = table - jnp.outer(table[:, place], row)
        return cleared.at[place].set(row)

    table = jnp.concatenate([matrix, right[:, None]], axis=1)
    solution: jax.Array = jax.lax.fori_loop(0, len(right), eliminate, table)[:, -1]
    return solution
