"""Parameters that all members share, of which there is one copy."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


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

    value: Any


def is_shared(node: Any) -> bool:
    """Whether a node of a pytree is marked."""
    return isinstance(node, Shared)


def unwrapped(tree: Any) -> Any:
    """The tree without the marks."""
    return jax.tree.map(lambda node: node.value if is_shared(node) else node, tree, is_leaf=is_shared)


def split_shared(tree: Any) -> tuple[Any, list[Shared]]:
    """The tree with its shared parts emptied, and these parts."""
    shared = [node for node in jax.tree.leaves(tree, is_leaf=is_shared) if is_shared(node)]
    return jax.tree.map(lambda node: Shared(None) if is_shared(node) else node, tree, is_leaf=is_shared), shared


def with_shared(rest: Any, shared: list[Shared]) -> Any:
    """The tree with its shared parts filled in again."""
    parts = iter(shared)
    return jax.tree.map(lambda node: next(parts) if is_shared(node) else node, rest, is_leaf=is_shared)


def marked_like(tree: Any, marked: Any) -> Any:
    """A tree without marks, with the marks of another one that has the same leaves."""
    if not split_shared(marked)[1]:
        return tree
    leaves = iter(jax.tree.leaves(tree))
    fill = lambda node: jax.tree.map(lambda _: next(leaves), node)
    return jax.tree.map(fill, marked, is_leaf=is_shared)


def num_rows(tree: Any) -> int:
    """The number of rows of everything that is not shared."""
    return len(jax.tree.leaves(split_shared(tree)[0])[0])


def over_members(function: Callable[..., Any], *rows: Any) -> Any:
    """`function(*row j)` for every j, where each row is one member's parameters, without the marks, or a number."""
    rest, shared = split_shared(rows)
    return jax.vmap(lambda rest: function(*unwrapped(with_shared(rest, shared))))(rest)
