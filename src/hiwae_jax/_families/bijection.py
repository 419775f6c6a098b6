"""Invertible maps with their log|det|, for `flow_chain` and for families on bounded supports."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families.family import log_volume
from hiwae_jax._families.standardize import standardized
from hiwae_jax._types import Conditional, ConditionalOnLatent, Context, Params, Scalar, Unchecked

Mapped = tuple[Float[Array, " D"], Scalar]


@runtime_checkable
class MapPoint(Protocol):
    """Where a bijection, or its inverse, takes a point, and its log|det| there."""

    def __call__(self, params: Params, x: Context, z: Float[Array, " D"], /) -> tuple[Float[Array, " E"], Scalar]: ...


class Bijection(NamedTuple):
    """An invertible, differentiable map of R^D with its log|det|, the change of volume.

    Attributes:
      forward: `(params, x, z [D]) -> (y [D], log|det dy/dz|)`.
      inverse: `(params, x, y [D]) -> (z [D], log|det dz/dy|)`.
      limits: `dtype -> (low, high)`, or None where y may be anywhere in R^D. Within these limits for the entries of z,
        numbers of this dtype can tell y from the edge of its support. `transformed` keeps its samples within them.
    """

    forward: MapPoint
    inverse: MapPoint
    limits: Callable[[DTypeLike], tuple[ArrayLike, ArrayLike]] | None = None


def _shift_and_scale(pair: Unchecked, z: Float[Array, " D"]) -> tuple[Array | float, Array | float]:
    """Return the pair that a map's conditional gave, or raise. A single array of two rows would unpack like a pair."""
    expected = f"a pair of arrays (shift, scale) of the shape of z, {z.shape}"
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(map(_checks.is_array, pair)):
        raise TypeError(f"conditional: expected {expected}, got {type(pair).__name__}")
    for leaf in pair:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"conditional: expected {expected}, got dtype {jnp.result_type(leaf)}")
        if jnp.shape(leaf) not in (z.shape, (1,), ()):
            raise ValueError(f"conditional: expected {expected}, got shape {jnp.shape(leaf)}")
    return pair[0], pair[1]


def affine_map(conditional: Conditional) -> Bijection:
    """The map `y = shift + scale * z`, with the shift and scale of an example.

    Args:
      conditional: `(params, x) -> (shift [D], scale [D])`. No scale may be zero.
    """
    _checks.function("conditional", conditional, "(params, x)", result="(shift [D], scale [D])")

    def forward(params: Params, x: Context, z: Float[Array, " D"]) -> Mapped:
        shift, scale = _shift_and_scale(conditional(params, x), z)
        return shift + scale * z, log_volume(jnp.abs(scale), z)

    def inverse(params: Params, x: Context, y: Float[Array, " D"]) -> Mapped:
        shift, scale = _shift_and_scale(conditional(params, x), y)
        return standardized(y, shift, scale), -log_volume(jnp.abs(scale), y)

    return Bijection(forward, inverse)


def coupling_map(conditional: ConditionalOnLatent, *, kept: Sequence[bool]) -> Bijection:
    """An affine coupling layer: some dimensions stay as they are, and a network of them shifts and scales the others.

    Args:
      conditional: `(params, x, z [D]) -> (shift [D], scale [D])`. It receives zeros in place of the dimensions that are
        not kept. No scale may be zero.
      kept: D booleans that say which dimensions stay as they are.

    Reference: Dinh, Sohl-Dickstein and Bengio (2017).
    """
    _checks.function("conditional", conditional, "(params, x, z)", result="(shift [D], scale [D])")
    mask = np.asarray(kept)
    if mask.dtype != np.bool_ or mask.ndim != 1 or mask.all() or not mask.any():
        raise ValueError(f"kept: expected booleans for D dimensions, some true and some false, got {kept!r:.80}")

    def network(params: Params, x: Context, z: Float[Array, " D"]) -> tuple[Array, Array]:
        shift, scale = _shift_and_scale(conditional(params, x, jnp.where(mask, z, 0.0)), z)
        return jnp.where(mask, 0.0, shift), jnp.where(mask, 1.0, scale)

    def forward(params: Params, x: Context, z: Float[Array, " D"]) -> Mapped:
        shift, scale = network(params, x, z)
        return shift + scale * z, log_volume(jnp.abs(scale), z)

    def inverse(params: Params, x: Context, y: Float[Array, " D"]) -> Mapped:
        shift, scale = network(params, x, y)
        return standardized(y, shift, scale), -log_volume(jnp.abs(scale), y)

    return Bijection(forward, inverse)
