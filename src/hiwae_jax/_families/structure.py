"""The pytree that one z is for the user. Inside, all of its numbers are one vector."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hiwae_jax._types import Latent, Leaf


@dataclasses.dataclass(frozen=True)
class Structure:
    """The structure of one z, of one z_0 or of their noise: a pytree of arrays that is a vector [D] inside.

    It is static: it has no arrays, can be hashed, and is known when a program is traced.

    Attributes:
      treedef: the structure of the pytree.
      shapes: of its leaves. The vector has the entries of one leaf after another.
      dtype: of the vector, and of every leaf that is made of it.
    """

    treedef: PyTreeDef
    shapes: tuple[tuple[int, ...], ...]
    dtype: np.dtype[np.generic]

    @classmethod
    def of(cls, tree: Latent, *, leading: int = 0) -> "Structure":
        """The structure of a pytree of arrays, or of abstract ones, that have some leading axes more.

        Leaves of several dtypes are promoted to the widest, at least float32. A number of Python's has no say in that.
        """
        leaves, treedef = jax.tree.flatten(tree)
        given = [leaf for leaf in leaves if not getattr(leaf, "weak_type", not hasattr(leaf, "dtype"))]
        dtype = np.result_type(np.float32, *(jnp.result_type(leaf) for leaf in given or leaves if _is_wide(leaf)))
        return cls(treedef, tuple(jnp.shape(leaf)[leading:] for leaf in leaves), dtype)

    @classmethod
    def of_vector(cls, size: int, dtype: DTypeLike) -> "Structure":
        """The structure of a vector."""
        return cls.of(abstract_array((size,), dtype))

    @property
    def abstract_vector(self) -> jax.ShapeDtypeStruct:
        """Its shape [D] and dtype."""
        return abstract_array((self.size,), self.dtype)

    @property
    def size(self) -> int:
        """D, the number of entries."""
        return sum(map(math.prod, self.shapes))

    @property
    def is_vector(self) -> bool:
        """Whether the user has a vector too, so that nothing is to be done."""
        return self.treedef == jax.tree.structure(0) and len(self.shapes[0]) == 1

    @property
    def tree_of_shapes(self) -> Latent:
        """The shapes, in the user's structure."""
        return jax.tree.unflatten(self.treedef, self.shapes)

    def flat(self, tree: Latent) -> Float[Array, "... D"]:
        """The vector of a pytree. Leading axes, the same ones for all leaves, stay."""
        if self.is_vector:
            vector: Array = tree
            return vector
        leaves = jax.tree.leaves(tree)
        leading = jnp.ndim(leaves[0]) - len(self.shapes[0])
        rows = [leaf.reshape(*leaf.shape[:leading], -1).astype(self.dtype) for leaf in leaves]
        return jnp.concatenate(rows, axis=-1)

    def restored(self, vector: Float[Array, "... D"]) -> Latent:
        """The pytree of a vector. Leading axes stay."""
        if self.is_vector:
            return vector
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        parts = jnp.split(vector, ends, axis=-1)
        leaves = [part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return jax.tree.unflatten(self.treedef, leaves)


jax.tree_util.register_static(Structure)


def same_structure(one: Latent, other: Latent) -> bool:
    """Whether two pytrees have one structure, of which the shapes of the leaves are no part."""
    return bool(jax.tree.structure(one) == jax.tree.structure(other))  # type: ignore[operator]


def abstract_array(shape: tuple[int, ...], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
    """A shape and a dtype in place of an array."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def _is_wide(leaf: Leaf) -> bool:
    return jnp.result_type(leaf).itemsize > np.dtype(np.float32).itemsize
