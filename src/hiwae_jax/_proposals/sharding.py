"""Placement of the samples of one example on devices: split over an axis of a mesh, or chosen by the compiler."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from hiwae_jax._checks import is_array
from hiwae_jax._families.shared import split_shared, with_shared
from hiwae_jax._types import Params, Tree, Unchecked

Result = TypeVar("Result")


class Placement(NamedTuple):
    """Where a proposal puts its arrays. If `sharding` is None, the compiler decides.

    Attributes:
      sharding: the sharding of arrays with a leading axis of samples.
    """

    sharding: NamedSharding | None

    def rows(self, tree: Tree) -> Tree:
        """Split arrays that have a row for each sample over the devices."""
        if self.sharding is None:
            return tree
        tree, shared = split_shared(tree)
        axes = self.sharding.spec[0]
        devices = math.prod(self.sharding.mesh.shape[name] for name in ([axes] if isinstance(axes, str) else axes))
        for leaf in jax.tree.leaves(tree):
            if leaf.shape[0] % devices:
                raise ValueError(
                    f"sharding: {leaf.shape[0]} samples cannot be split evenly over the {devices} devices of mesh axis "
                    f"{axes!r}"
                )
        rows: Tree = jax.lax.with_sharding_constraint(tree, self.sharding)  # type: ignore[no-untyped-call]
        return with_shared(rows, self.whole(shared))

    def whole(self, tree: Tree) -> Tree:
        """Put whole arrays on every device of the axis.

        Without this constraint, the compiler would derive a placement from that of the rows, and could split these
        arrays along dimensions where that takes communication.
        """
        if self.sharding is None:
            return tree
        everywhere = NamedSharding(self.sharding.mesh, PartitionSpec())  # type: ignore[no-untyped-call]
        whole: Tree = jax.lax.with_sharding_constraint(tree, everywhere)  # type: ignore[no-untyped-call]
        return whole


def placement_of(sharding: Unchecked) -> Placement:
    """Return the placement for a proposal's argument `sharding`, or raise if the argument is wrong."""
    if sharding is None:
        return Placement(None)
    wanted = "expected NamedSharding(mesh, P(axis)) with the mesh axis of the samples"
    if not isinstance(sharding, NamedSharding):
        raise TypeError(f"sharding: {wanted}, got {type(sharding).__name__}")
    if len(sharding.spec) != 1 or not sharding.spec[0]:
        raise ValueError(f"sharding: {wanted}, got {sharding.spec}")
    if any(kind != AxisType.Auto for kind in sharding.mesh.axis_types):
        raise ValueError(
            f"sharding: expected a mesh of Auto axes, got {sharding.mesh.axis_types}; make one with "
            "jax.make_mesh(..., axis_types=(AxisType.Auto,) * n)"
        )
    return Placement(sharding)


def on_auto_axes(value_and_grad: Callable[..., Result]) -> Callable[..., Result]:
    """Return the same function of `(params, *arguments)`, which also accepts arguments on a mesh of Explicit axes.

    On Explicit axes, JAX asks for the sharding of every array that is reshaped or mixed with constants. Within the
    function these axes are Auto, so the compiler chooses these shardings. The value is whole on every device, and a
    gradient lies as its parameter does.
    """

    @functools.wraps(value_and_grad)
    def call(params: Params, *arguments: object) -> Result:
        shardings = [jax.typeof(leaf).sharding for leaf in jax.tree.leaves((params, arguments)) if is_array(leaf)]
        mesh = next((sharding.mesh for sharding in shardings if sharding.mesh.explicit_axes), None)
        if mesh is None:
            return value_and_grad(params, *arguments)
        whole = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
        as_params = jax.tree.map(lambda leaf: NamedSharding(mesh, jax.typeof(leaf).sharding.spec), params)
        on_auto = jax.sharding.auto_axes(value_and_grad, axes=mesh.explicit_axes, out_sharding=(whole, as_params))
        result: Result = on_auto(params, *arguments)
        return result

    return call
