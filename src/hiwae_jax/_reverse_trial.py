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
    def kind_of(structure: Any, kinds: tuple[Any, ...], _: tuple[type, ...]) -> ReverseKind:
        def some(place: int, kind: _Kind, seed: Any) -> Any:
            """Random numbers, made within the program, which leaves out what it does not read."""
            if not jnp.issubdtype(kind.dtype, jnp.floating):
                # Small numbers, not all the same: they may be places in an embedding.
                return (jnp.arange(math.prod(kind.shape)) % 7).reshape(kind.shape).astype(kind.dtype)
            key = jax.random.wrap_key_data(seed + np.uint32(place), impl="unsafe_rbg")
            return jax.random.uniform(key, kind.shape, jnp.float32, -0.9, 0.9).astype(kind.dtype)

        def rows_at(seed: Any) -> Any:
            leaves = [some(n, kind, seed) if isinstance(kind, _Kind) else kind for n, kind in enumerate(kinds)]
            params, h, z = structure.unflatten(leaves)
            other = some(len(kinds), kinds[-1], seed)
            odd = (jnp.arange(len(z)) % 2 == 1)[:, None]
            tried = [
                jnp.repeat(z[:1], len(z), axis=0),
                z,
                other.at[0].set(z[0]),
                other.at[-1].set(z[-1]),
                jnp.where(odd, other, z),
                jnp.where(odd, z, other),
            ]
            # One after another, which takes a sixth of the time to compile.
            return jax.lax.map(lambda z: reverse_rows(params, h, z), jnp.stack(tried))

        try:
            with (
                jax.ensure_compile_time_eval(),
                jax.debug_nans(False),
                jax.debug_infs(False),
                jax.transfer_guard("allow"),
            ):
                # It runs once: what a compiler optimizes takes longer than it gains.
                tried = jax.jit(rows_at, compiler_options={"xla_backend_optimization_level": 0})
                leaves = jax.tree.leaves(tried(np.arange(4, dtype=np.uint32)))
                if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
                    return unknown
                leaves = [np.asarray(leaf) for leaf in leaves]
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
        leaves, structure = jax.tree.flatten((params, h, z))
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
        return kind_of(structure, tuple(kinds), tuple(map(type, kinds)))

    return kind
