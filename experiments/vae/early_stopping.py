"""Early stopping: the best parameters are kept, and a seed that finds no better ones runs out of patience."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Best(NamedTuple):
    """The best parameters so far.

    Attributes:
      params: the parameters with the best validation bound.
      bound: that bound.
      stale: bounds that were seen since.
    """

    params: Any
    bound: Float[Array, ""]
    stale: Int[Array, ""]


def update(best: Best, params: Any, validation_bound: Float[Array, ""], *, patience: int) -> Best:
    """Keep `params` if their bound is above the best one.

    A seed that is out of patience runs on beside the others, but its parameters are no longer kept.
    """
    better = (validation_bound > best.bound) & (best.stale < patience)
    return Best(
        params=jax.tree.map(lambda new, old: jnp.where(better, new, old), params, best.params),
        bound=jnp.where(better, validation_bound, best.bound),
        stale=jnp.where(better, 0, best.stale + 1),
    )


def is_over(stale: Int[Array, " seeds"], *, patience: int) -> bool:
    """Whether every seed is out of patience."""
    return bool(np.all(stale >= patience))
