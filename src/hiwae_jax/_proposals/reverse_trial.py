"""What a reverse model does with places and with the other samples, found out by trying it on random numbers.

The numbers of z are tried within 0.9 of zero, from 2.5 to 5 and from 25 to 50, those of all else within 0.9. What this
cannot see:

- a reverse model that misbehaves only elsewhere: further out, between these ranges, where the numbers of z have certain
  signs, or near certain points; about K points are tried in each range;
- one that does so at certain parameters or contexts alone, which the random ones are not;
- a difference below 1e-3 of a row's own size, and between places, further out than 0.9, below a tenth of it: there a
  device may round the large numbers of a network differently at different places;
- what depends on the number of samples, which is tried as it is;
- any of it where the model cannot be evaluated on such numbers at all.
"""

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hiwae_jax import _checks
from hiwae_jax._families.family import Parameters
from hiwae_jax._proposals.proposal import ReverseKind
from hiwae_jax._types import Params

# First near zero, where a logarithm of 1 + z is valid; then further out, where a rectifier no longer hides anything.
_RANGES = (0.9, 5.0, 50.0)


class _Kind(NamedTuple):
    """Of an array."""

    shape: tuple[int, ...]
    dtype: Any


def _samples_to_try(z: np.ndarray, other: np.ndarray) -> np.ndarray:
    """K samples in seven ways: all at one point, all opposite, as they are, and with some of them replaced."""
    place = np.arange(len(z))[:, None]
    odd, first, last = place % 2 == 1, place == 0, place == len(z) - 1
    others = [np.where(stays, z, other) for stays in (first, last, ~odd, odd)]
    at_one_point = np.broadcast_to(z[:1], z.shape)
    return np.stack([at_one_point, -at_one_point, z, *others])


# Pairs of places in what comes of `_samples_to_try`: first the way, then the sample.
_EVEN, _ODD = slice(0, None, 2), slice(1, None, 2)
_SAME_SAMPLE = [((2, 0), (3, 0)), ((2, -1), (4, -1)), ((2, _EVEN), (5, _EVEN)), ((2, _ODD), (6, _ODD))]
_SAME_POINT = [((way, slice(None)), (way, slice(0, 1))) for way in (0, 1)]


def _equal(leaves: list[np.ndarray], pairs: Sequence[tuple[Any, Any]], tolerances: Sequence[float]) -> bool | None:
    """Whether no leaf has other numbers in the one place than in the other; None if not all are finite nearby.

    Args:
      leaves: what the reverse model gave, with leading axes of ranges, ways and samples.
      pairs: places that should be equal.
      tolerances: one for each range.
    """
    for number, tolerance in enumerate(tolerances):
        chosen = [(leaf[number][one], leaf[number][other]) for leaf in leaves for one, other in pairs]
        # Far out a model may overflow, which says nothing.
        with np.errstate(invalid="ignore", over="ignore"):
            if any(bool(np.any(np.abs(one - other) > tolerance * (1.0 + np.abs(one)))) for one, other in chosen):
                return False
    return True if all(bool(np.all(np.isfinite(leaf[0]))) for leaf in leaves) else None


def make_reverse_trial(reverse_rows: Callable[..., Parameters]) -> Callable[[Params, Any, Any], ReverseKind]:
    """Make a function that tells whether the reverse model's rows know their places, and whether they know each other.

    The parameters of the moment may hide it (an embedding that starts at zero), so the reverse model is tried on other
    ones, at trace time and outside the traced program, once for each set of shapes. Where it cannot be evaluated so,
    because it closes over values of an outer transformation, refuses such numbers or overflows, nothing is told.
    """
    unknown = ReverseKind(None, None)

    @functools.lru_cache(maxsize=64)
    def kind_of(structure: Any, kinds: tuple[Any, ...], of_z: _Kind, _: tuple[type, ...]) -> ReverseKind:
        random = np.random.default_rng(0)

        def some(kind: _Kind) -> np.ndarray:
            if jnp.issubdtype(kind.dtype, jnp.floating):
                return random.uniform(-_RANGES[0], _RANGES[0], kind.shape).astype(kind.dtype)
            # Small numbers, not all the same: they may be places in an embedding.
            return (np.arange(math.prod(kind.shape)) % 7).reshape(kind.shape).astype(kind.dtype)

        def far_from_zero(reach: float) -> np.ndarray:
            sizes, signs = random.uniform(0.5 * reach, reach, of_z.shape), random.choice([-1.0, 1.0], of_z.shape)
            far: np.ndarray = (sizes * signs).astype(of_z.dtype)
            return far

        def rows_at(arrays: list[Any], tried: Any) -> Any:
            given = iter(arrays)
            params, h = structure.unflatten(next(given) if isinstance(kind, _Kind) else kind for kind in kinds)
            # One after another, which takes a sixth of the time to compile.
            return jax.lax.map(lambda z: reverse_rows(params, h, z), tried)

        near = _samples_to_try(some(of_z), some(of_z))
        # Other samples that are far away or not: what a threshold hides between them makes a difference.
        further = [_samples_to_try(far_from_zero(reach), some(of_z)) for reach in _RANGES[1:]]
        tried = np.concatenate([near, *further])
        arrays = [kind for kind in kinds if isinstance(kind, _Kind)]
        try:
            with jax.debug_nans(False), jax.debug_infs(False), jax.transfer_guard("allow"):
                shapes = [jax.ShapeDtypeStruct(*kind) for kind in arrays]  # type: ignore[no-untyped-call]
                program = jax.jit(rows_at).trace(shapes, tried)
                read = {id(operand) for equation in program.jaxpr.eqns for operand in equation.invars}
                # Of parameters that are not read there may be many.
                numbers = [
                    some(kind) if id(variable) in read else np.broadcast_to(np.zeros((), kind.dtype), kind.shape)
                    for kind, variable in zip(arrays, program.jaxpr.jaxpr.invars, strict=False)
                ]
                # It runs once: what a compiler optimizes takes longer than it gains.
                compiled = program.lower().compile({"xla_backend_optimization_level": 0})
                leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(compiled(numbers, tried))]
        except Exception:  # noqa: BLE001  # whatever a model may raise at such numbers; the bound evaluates it again
            return unknown

        by_range = [leaf.reshape(len(_RANGES), -1, *leaf.shape[1:]) for leaf in leaves]
        return ReverseKind(
            row_by_row=_equal(by_range, _SAME_SAMPLE, [1e-3, 1e-3, 1e-3]),
            alike=_equal(by_range, _SAME_POINT, [1e-3, 0.1, 0.1]),
        )

    def kind(params: Params, h: Any, z: Any) -> ReverseKind:
        leaves, structure = jax.tree.flatten((params, h))
        # Integers of Python may be sizes or places, and stay what they are.
        kinds = [
            _Kind(jnp.shape(leaf), jnp.result_type(leaf))
            if _checks.is_array(leaf) and type(leaf) not in (bool, int)
            else leaf
            for leaf in leaves
        ]
        if any(isinstance(kind, _Kind) and jnp.issubdtype(kind.dtype, jax.dtypes.extended) for kind in kinds):
            return unknown
        if not all(isinstance(kind, Hashable) for kind in kinds):
            return unknown
        return kind_of(structure, tuple(kinds), _Kind(z.shape, z.dtype), tuple(map(type, kinds)))

    return kind
