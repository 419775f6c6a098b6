"""How many examples a chunk has, from the bytes that its backward pass keeps."""

from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from hiwae_jax._batched.chunks import Given
from hiwae_jax._programs import bytes_of, kept_for_backward
from hiwae_jax._types import Params, PerExample, Scalar

Result = TypeVar("Result")

# How many bytes the backward pass may keep at once. On a CPU small arrays are the fast ones: they stay in the cache,
# and the allocator hands them out again. Large ones are returned to the system and cleared anew at every step. On other
# devices the arrays only have to fit.
KEPT_ON_CPU = 6 * 2**20
KEPT_ELSEWHERE = 4 * 2**30


class Needs(NamedTuple):
    """What is known of an objective without evaluating it.

    Attributes:
      at_once: how many examples to evaluate at once.
      is_read: for each array of the parameters, whether the objective reads it.
    """

    at_once: int
    is_read: list[bool]


def once_for_each_shape(function: Callable[..., Result]) -> Callable[..., Result]:
    """The same function of trees of arrays, which remembers its result for each set of shapes and dtypes.

    A call from Python needs the result at every step of training.
    """
    found: dict[Hashable, Result] = {}

    def remembered(*arguments: object) -> Result:
        leaves, structure = jax.tree.flatten(arguments)
        shapes = structure, *((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        if shapes not in found:
            found[shapes] = function(*arguments)
        return found[shapes]

    return remembered


def examples_at_once(
    part_of_mean: Callable[[Params, PerExample, Given], Scalar], params: Params, moving: PerExample, given: Given
) -> Needs:
    """How many examples keep no more than they should for the backward pass, and which parameters they read."""
    kept, is_used = kept_for_backward(part_of_mean, (params, moving), (given,))
    leaves = jax.tree.leaves(params)
    is_read = is_used[: len(leaves)]
    budget = KEPT_ELSEWHERE
    if jax.default_backend() == "cpu":
        # Each chunk adds a gradient of the size of the parameters to the sum: it should have more to do than that.
        added = sum(bytes_of(leaf) for leaf, read in zip(leaves, is_read, strict=True) if read)
        budget = max(KEPT_ON_CPU, 3 * added // 2)
    return Needs(max(1, budget * given.num_examples // max(1, kept)), is_read)
