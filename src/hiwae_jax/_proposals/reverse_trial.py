"""What a reverse model does with members and with other samples, found out by trying it on random numbers.

A reverse model gives row j for sample z[j]. Two of its traits decide which bounds are valid: whether row j depends on
other samples, and whether two members that have the same sample get the same row. The trial finds them out. It draws
the numbers of z within 0.9 of zero, from 2.5 to 5 and from 25 to 50, and all other numbers within 0.9 of zero. It
cannot see:

- a reverse model that misbehaves only elsewhere: further out, between these ranges, where the numbers of z have certain
  signs, or near certain points; about K points are tried in each range;
- a reverse model that does so only at certain parameters or contexts, which the random ones are not;
- a difference below 1e-3 of a row's own size; between members, further out than 0.9, a difference below a tenth of it:
  there a device may round the large numbers of a network differently in different rows;
- what depends on the number of samples, which is tried as it is;
- any of it where the model cannot be evaluated on such numbers at all.
"""

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from hiwae_jax import _checks
from hiwae_jax._families.structure import Structure
from hiwae_jax._proposals.proposal import ReverseTraits
from hiwae_jax._types import ConditionalOnLatent, Context, Latent, Leaf, Parameters, Params

# First near zero, where a logarithm of 1 + z is valid; then further out, where a rectifier no longer hides anything.
_RANGES = (0.9, 5.0, 50.0)

_UNKNOWN = ReverseTraits(None, None)


def make_reverse_trial(reverse_rows: ConditionalOnLatent) -> Callable[[Params, Context, Latent], ReverseTraits]:
    """Make a function `(params, context, z) -> ReverseTraits` that finds out the traits of a reverse model.

    The parameters at hand may hide a trait, as an embedding that starts at zero does. So the reverse model is tried on
    other ones. This happens at trace time and outside of the traced program, once for each set of shapes. A trait is
    None where the model cannot be evaluated in this way, because it closes over values of an outer transformation,
    refuses such numbers or overflows.
    """

    @functools.lru_cache(maxsize=64)
    def traits_for(call: _Call) -> ReverseTraits:
        return _find_out(reverse_rows, call)

    def reverse_traits(params: Params, context: Context, z: Latent) -> ReverseTraits:
        call = _described(params, context, z)
        return _UNKNOWN if call is None else traits_for(call)

    return reverse_traits


class _ArrayType(NamedTuple):
    """The shape and the dtype of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


class _Call(NamedTuple):
    """All that a trial depends on: a call of the reverse model without the numbers in its arrays.

    Attributes:
      structure: that of `(params, context)`.
      leaves: for each leaf its array type, or the leaf itself if it is not tried on other numbers.
      z: the array type of the samples as vectors.
      z_structure: the structure of one of them for the user.
      types: those of the leaves; numbers of different types may be equal.
    """

    structure: PyTreeDef
    leaves: tuple[_ArrayType | Hashable, ...]
    z: _ArrayType
    z_structure: Structure
    types: tuple[type, ...]

    @property
    def array_types(self) -> list[_ArrayType]:
        """The types of the arrays among the leaves."""
        return [leaf for leaf in self.leaves if isinstance(leaf, _ArrayType)]

    def filled(self, arrays: Sequence[ArrayLike]) -> tuple[Params, Context]:
        """`(params, context)` with these arrays for leaves."""
        given = iter(arrays)
        params, context = self.structure.unflatten(
            next(given) if isinstance(leaf, _ArrayType) else leaf for leaf in self.leaves
        )
        return params, context


def _described(params: Params, context: Context, z: Latent) -> _Call | None:
    """The call without the numbers in its arrays; None where it holds something that cannot be tried."""
    leaves, structure = jax.tree.flatten((params, context))
    described = tuple(_described_leaf(leaf) for leaf in leaves)
    if any(isinstance(leaf, _ArrayType) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in described):
        return None
    if not all(isinstance(leaf, Hashable) for leaf in described):
        return None
    z_structure = Structure.of(z, leading=1)
    z_type = _ArrayType((len(jax.tree.leaves(z)[0]), z_structure.size), z_structure.dtype)
    return _Call(structure, described, z_type, z_structure, tuple(map(type, described)))


def _described_leaf(leaf: Leaf) -> "_ArrayType | Leaf":
    """The array type of a leaf; the leaf itself where it is no array."""
    # Integers of Python may be sizes or indices, and stay what they are.
    if _checks.is_array(leaf) and type(leaf) not in (bool, int):
        return _ArrayType(jnp.shape(leaf), jnp.result_type(leaf))
    return leaf


def _find_out(reverse_rows: ConditionalOnLatent, call: _Call) -> ReverseTraits:
    """The traits that the rows of one trial show."""
    random = np.random.default_rng(0)
    sets = _sets_to_try(call.z, random)
    try:
        rows = _rows_of_sets(reverse_rows, call, sets, random)
    except Exception:  # noqa: BLE001  # whatever a model may raise at such numbers; the bound evaluates it again
        return _UNKNOWN
    by_range = [leaf.reshape(len(_RANGES), -1, *leaf.shape[1:]) for leaf in rows]
    return ReverseTraits(
        row_by_row=_equal(by_range, _SAME_SAMPLE, [1e-3, 1e-3, 1e-3]),
        alike=_equal(by_range, _SAME_POINT, [1e-3, 0.1, 0.1]),
    )


def _rows_of_sets(
    reverse_rows: ConditionalOnLatent, call: _Call, sets: Float[np.ndarray, "N K D"], random: np.random.Generator
) -> list[np.ndarray]:
    """The leaves [N, K, ...] of the rows that the reverse model gives for N sets of samples, at random parameters."""

    def rows_of(arrays: Sequence[ArrayLike], sets: Float[Array, "N K D"]) -> Parameters:
        params, context = call.filled(arrays)
        # One after another, which takes a sixth of the time to compile.
        return jax.lax.map(lambda z: reverse_rows(params, context, call.z_structure.restored(z)), sets)

    with jax.debug_nans(False), jax.debug_infs(False), jax.transfer_guard("allow"):
        shapes = [jax.ShapeDtypeStruct(*array_type) for array_type in call.array_types]  # type: ignore[no-untyped-call]
        program = jax.jit(rows_of).trace(shapes, sets)
        read = {id(operand) for equation in program.jaxpr.eqns for operand in equation.invars}
        # Only what is read gets random numbers: there may be many other parameters.
        numbers = [
            _random_numbers(array_type, random)
            if id(variable) in read
            else np.broadcast_to(np.zeros((), array_type.dtype), array_type.shape)
            for array_type, variable in zip(call.array_types, program.jaxpr.jaxpr.invars, strict=False)
        ]
        # It runs once: what a compiler optimizes takes longer than it gains.
        compiled = program.lower().compile({"xla_backend_optimization_level": 0})
        return [np.asarray(leaf) for leaf in jax.tree.leaves(compiled(numbers, sets))]


def _random_numbers(array_type: _ArrayType, random: np.random.Generator) -> Shaped[np.ndarray, "..."]:
    """An array of this type: floats near zero, integers that are small."""
    shape, dtype = array_type
    if jnp.issubdtype(dtype, jnp.floating):
        return random.uniform(-_RANGES[0], _RANGES[0], shape).astype(dtype)
    # Small numbers, not all the same: they may be indices of an embedding.
    return (np.arange(math.prod(shape)) % 7).reshape(shape).astype(dtype)


def _far_from_zero(array_type: _ArrayType, reach: float, random: np.random.Generator) -> Float[np.ndarray, "K D"]:
    """Numbers of either sign, of a size between half of the reach and the reach."""
    sizes = random.uniform(0.5 * reach, reach, array_type.shape)
    signs = random.choice([-1.0, 1.0], array_type.shape)
    far: np.ndarray = (sizes * signs).astype(array_type.dtype)
    return far


def _sets_to_try(array_type: _ArrayType, random: np.random.Generator) -> Float[np.ndarray, "N K D"]:
    """The sets of samples that the reverse model is tried on: seven for each range."""
    near = _seven_sets(_random_numbers(array_type, random), _random_numbers(array_type, random))
    # Some of the far samples are replaced by near ones: what a threshold hides between far ones makes a difference.
    further = [
        _seven_sets(_far_from_zero(array_type, reach, random), _random_numbers(array_type, random))
        for reach in _RANGES[1:]
    ]
    return np.concatenate([near, *further])


def _seven_sets(z: Float[np.ndarray, "K D"], other: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "7 K D"]:
    """K samples in seven ways: all at one point, all at the opposite point, as they are, and with some replaced."""
    index = np.arange(len(z))[:, None]
    is_odd, is_first, is_last = index % 2 == 1, index == 0, index == len(z) - 1
    partly_replaced = [np.where(stays, z, other) for stays in (is_first, is_last, ~is_odd, is_odd)]
    at_one_point = np.broadcast_to(z[:1], z.shape)
    return np.stack([at_one_point, -at_one_point, z, *partly_replaced])


_Rows = tuple[int, int | slice]
"""Rows of one of the seven sets: the index of the set, and the indices of the samples."""

# Pairs of rows that a reverse model with the trait makes equal.
_ALL, _FIRST, _EVEN, _ODD = slice(None), slice(0, 1), slice(0, None, 2), slice(1, None, 2)
_SAME_SAMPLE: list[tuple[_Rows, _Rows]] = [
    ((2, 0), (3, 0)),
    ((2, -1), (4, -1)),
    ((2, _EVEN), (5, _EVEN)),
    ((2, _ODD), (6, _ODD)),
]
_SAME_POINT: list[tuple[_Rows, _Rows]] = [((0, _ALL), (0, _FIRST)), ((1, _ALL), (1, _FIRST))]


def _equal(leaves: list[np.ndarray], pairs: Sequence[tuple[_Rows, _Rows]], tolerances: Sequence[float]) -> bool | None:
    """Whether both rows of every pair are equal in every leaf; None if not all numbers near zero are finite.

    Args:
      leaves: what the reverse model gave, with leading axes of ranges, sets and samples.
      pairs: rows that should be equal.
      tolerances: one for each range, relative to the size of a row.
    """
    for index, tolerance in enumerate(tolerances):
        chosen = [(leaf[index][one], leaf[index][other]) for leaf in leaves for one, other in pairs]
        # Far out a model may overflow, which says nothing.
        with np.errstate(invalid="ignore", over="ignore"):
            if any(bool(np.any(np.abs(one - other) > tolerance * (1.0 + np.abs(one)))) for one, other in chosen):
                return False
    return True if all(bool(np.all(np.isfinite(leaf[0]))) for leaf in leaves) else None
