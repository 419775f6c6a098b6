"""Systematic resampling: one uniform number draws M of K items by their weights."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def systematic_indices(
    uniform: Float[Array, ""], weights: Float[Array, " K"], *, num_samples: int
) -> Int[Array, " num_samples"]:
    """Draw indices with `E[count_j] = num_samples * weights_j / sum(weights)` and counts within one of it.

    Args:
      uniform: a number in [0, 1), uniformly distributed.
      weights: [K], at least 0. Where all are zero, or not a number, the last index is returned.
      num_samples: M.

    Returns:
      [M] indices in ascending order. An item of weight zero is never drawn while there are others.

    Reference: Kitagawa (1996).

    >>> systematic_indices(jnp.float32(0.5), jnp.array([0.25, 0.0, 0.75]), num_samples=4).tolist()
    [0, 2, 2, 2]
    """
    cumulative = jnp.cumsum(weights)
    points = (uniform + jnp.arange(num_samples, dtype=weights.dtype)) / num_samples * cumulative[-1]
    # Rounding may carry the last point to the total itself, behind which there may be items of weight zero.
    points = jnp.minimum(points, jnp.nextafter(cumulative[-1], jnp.zeros_like(cumulative[-1])))
    indices: jax.Array = jnp.minimum(jnp.searchsorted(cumulative, points, side="right"), weights.shape[0] - 1)
    return indices
