"""Parameters that all members share, of which there is one copy; functions evaluated for each member or sample."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax

from hiwae_jax._types import Parameters, Tree

Result = TypeVar("Result")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shared:
    """Marks a part of the members' parameters that is the same for all of them, such as the weights of a flow.

    What `conditionals` of `hj.hierarchical` returns has a row for each member, except in a `hj.Shared`. The functions
    of the family receive the value itself, without the mark. No copy is made for each member, and the gradient is the
    sum over all members, as it would be with copies, under every rule. (A family that closed over such weights would
    lose a part of their gradient under the rules that turn scores into paths.)

    Attributes:
      value: a pytree of floating-point arrays without an axis of members.

    >>> import hiwae_jax as hj
    >>> def conditionals(params, x, z0):  # three members, and one flow
    ...     return params["loc"] + z0, params["scale"], hj.Shared(params["flow"])
    """

    value: Parameters


def is_shared(node: object) -> bool:
    """Whether a node of a pytree is marked."""
    return isinstance(node, Shared)


def unwrapped(tree: Parameters) -> Parameters:
    """The tree without the marks."""
    return jax.tree.map(lambda node: node.value if is_shared(node) else node, tree, is_leaf=is_shared)


def split_shared(tree: Tree) -> tuple[Tree, list[Shared]]:
    """The tree with its shared parts emptied, and these parts."""
    shared = [node for node in jax.tree.leaves(tree, is_leaf=is_shared) if is_shared(node)]
    return jax.tree.map(lambda node: Shared(None) if is_shared(node) else node, tree, is_leaf=is_shared), shared


def with_shared(rest: Tree, shared: list[Shared]) -> Tree:
    """The tree with its shared parts filled in again."""
    parts = iter(shared)
    filled: Tree = jax.tree.map(lambda node: next(parts) if is_shared(node) else node, rest, is_leaf=is_shared)
    return filled


def marked_like(tree: Parameters, marked: Parameters) -> Parameters:
    """A tree without marks, with the marks of another one that has the same leaves."""
    if not split_shared(marked)[1]:
        return tree
    leaves = iter(jax.tree.leaves(tree))
    fill = lambda node: jax.tree.map(lambda _: next(leaves), node)
    return jax.tree.map(fill, marked, is_leaf=is_shared)


def num_rows(tree: Parameters) -> int:
    """The number of rows of everything that is not shared."""
    return len(jax.tree.leaves(split_shared(tree)[0])[0])


def over_members(function: Callable[..., Result], *rows: Parameters) -> Result:
    """`function(*row j)` for every j, where each row is one member's parameters, without the marks, or a number."""
    rest, shared = split_shared(rows)
    return jax.vmap(lambda rest: function(*unwrapped(with_shared(rest, shared))))(rest)


def over_samples(function: Callable[[Tree], Result], samples: Tree, chunk_size: int | None) -> Result:
    """Evaluate the function at every sample, `chunk_size` at once; differentiation evaluates each chunk again.

    Every sample sees the same `Shared`.
    """
    rest, shared = split_shared(samples)

    def of_rest(rest: Tree) -> Result:
        return function(with_shared(rest, shared))

    if chunk_size is None or chunk_size >= len(jax.tree.leaves(rest)[0]):
        return jax.vmap(of_rest)(rest)
    in_chunks: Result = jax.lax.map(jax.checkpoint(of_rest), rest, batch_size=chunk_size)
    return in_chunks
