"""Trees of arrays: their length, and dividing and joining them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hiwae_jax import _checks
from hiwae_jax._types import Params, PerExample, Tree


def length(batch: PerExample) -> int:
    """The number of examples of a batch."""
    leaves = jax.tree.leaves(batch)
    for leaf in leaves:
        if not _checks.is_array(leaf):
            raise TypeError(f"batch: expected arrays, got a leaf of type {type(leaf).__name__}")
    shapes = [jnp.shape(leaf) for leaf in leaves]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) != 1 or lengths <= {None, 0}:
        raise ValueError(
            f"batch: expected arrays with one leading axis of examples, at least one of them, got shapes {shapes}"
        )
    return int(shapes[0][0])


def partition(tree: Tree, is_chosen: list[bool]) -> tuple[Tree, Tree]:
    """The leaves chosen, and the others, each in the structure of the tree with None elsewhere."""
    leaves, structure = jax.tree.flatten(tree)
    pairs = [(leaf, None) if chosen else (None, leaf) for leaf, chosen in zip(leaves, is_chosen, strict=True)]
    first, second = zip(*pairs, strict=True) if pairs else ((), ())
    return jax.tree.unflatten(structure, first), jax.tree.unflatten(structure, second)


def split_by_derivative(tree: Tree) -> tuple[Tree, Tree]:
    """The leaves that have derivatives, and the others."""
    return partition(tree, [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(tree)])


def join(first: Tree | None, second: Tree | None) -> Tree | None:
    """The tree that `partition` divided."""
    if first is None or second is None:
        return second if first is None else first
    whole: Tree = jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)
    return whole


def add(gradient: Params, more: Params) -> Params:
    """The sum of two gradients: a leaf of the first that is None counts as zero, other leaves may be wider."""
    add = lambda a, b: b if a is None else a + b.astype(a.dtype)
    return jax.tree.map(add, gradient, more, is_leaf=lambda leaf: leaf is None)


def wide(gradient: Array) -> Array:
    """A gradient in at least float32: a sum of many parts in bfloat16 would lose what each part adds."""
    return _checks.at_least_float32(gradient) if jnp.issubdtype(gradient.dtype, jnp.floating) else gradient
