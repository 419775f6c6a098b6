"""What a reverse model does with places and with the other samples, found out by trying it on random numbers."""

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hiwae_jax import _checks
from hiwae_jax._families import Parameters
from hiwae_jax._proposal import Params, ReverseKind


class _Kind(NamedTuple):
    """Of an array."""

    shape: tuple[int, ...]
    dtype: Any


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
                return random.uniform(-0.9, 0.9, kind.shape).astype(kind.dtype)
            # Small numbers, not all the same: they may be places in an embedding.
            return (np.arange(math.prod(kind.shape)) % 7).reshape(kind.shape).astype(kind.dtype)

        def rows_at(arrays: list[Any], tried: Any) -> Any:
            given = iter(arrays)
            params, h = structure.unflatten(next(given) if isinstance(kind, _Kind) else kind for kind in kinds)
            # One after another, which takes a sixth of the time to compile.
            return jax.lax.map(lambda z: reverse_rows(params, h, z), tried)

        z, other = some(of_z), some(of_z)
        place = np.arange(len(z))[:, None]
        odd, first, last = place % 2 == 1, place == 0, place == len(z) - 1
        others = [np.where(stays, z, other) for stays in (first, last, ~odd, odd)]
        tried = np.stack([np.repeat(z[:1], len(z), axis=0), z, *others])
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

        def equal(*pairs: tuple[Any, Any]) -> bool | None:
            """Whether no leaf has other numbers in the one place than in the other."""
            chosen = [(leaf[one], leaf[other]) for leaf in leaves for one, other in pairs]
            with np.errstate(invalid="ignore", over="ignore"):
                if any(bool(np.any(np.abs(one - other) > 1e-3 * (1.0 + np.abs(one)))) for one, other in chosen):
                    return False
            return True if all(bool(np.all(np.isfinite(leaf))) for leaf in leaves) else None

        even, odd = slice(0, None, 2), slice(1, None, 2)
        untouched = ((1, 0), (2, 0)), ((1, -1), (3, -1)), ((1, even), (4, even)), ((1, odd), (5, odd))
        return ReverseKind(row_by_row=equal(*untouched), alike=equal(((0,), (0, slice(0, 1)))))

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
