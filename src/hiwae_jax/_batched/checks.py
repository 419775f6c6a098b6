"""What is refused by `batched_value_and_grad`: wrong arguments, wrong calls, wrong results of the objective."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._make_bound import Bound
from hiwae_jax._types import Params, PerExample, Unchecked


def check_arguments(objective: object, draw: object, dispatch: object, has_aux: object, spmd_axis_name: object) -> None:
    """Raise if an argument of `batched_value_and_grad` is not what it should be."""
    # What the functions take is not checked: shared arguments of any number may follow the key.
    for name, function in (("objective", objective), ("draw", draw)):
        if not callable(function) and not (name == "draw" and function is None):
            got = type(function).__name__
            raise TypeError(f"{name}: expected a function (params, x, key) of one example, got {got}")
    if spmd_axis_name is not None and not isinstance(spmd_axis_name, (str, tuple)):
        raise TypeError(f"spmd_axis_name: expected the name of a mesh axis, got {spmd_axis_name!r:.80}")
    if isinstance(draw, Bound):
        raise TypeError("draw: expected bound.draw, got the bound itself")
    for name, flag in (("dispatch", dispatch), ("has_aux", has_aux)):
        _checks.boolean(name, flag)


def check_call(params: Params, batch: PerExample, key: object, shared: tuple[object, ...], *, dispatch: bool) -> None:
    """Raise if the parameters or the key of a call are not what they should be, or it cannot be traced."""
    for leaf in jax.tree.leaves(params):
        if not _checks.is_array(leaf):
            raise TypeError(
                f"params: expected arrays, got a leaf of type {type(leaf).__name__}; hand over the arrays alone "
                "and put the rest back within objective, as eqx.partition and eqx.combine do"
            )
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"params: expected floating-point arrays, got a leaf of type {jnp.result_type(leaf)}; keep keys, "
                "counts and the like out of params, as nnx.split(model, nnx.Param, ...) does"
            )
    if dispatch and any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, batch, key, shared))):
        raise TypeError(
            "dispatch: True calls compiled chunks from Python and cannot be traced; call it outside of jit, or use "
            "dispatch=False"
        )
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim != 0:
        raise ValueError(
            f"key: expected one typed key, which is split into one for each example, got shape {jnp.shape(key)}"
        )


def value_and_aux(result: Unchecked, *, has_aux: bool) -> tuple[Float[Array, " M"], PerExample]:
    """The values of some examples and their `aux`, from what the objective returned; or what is wrong with it."""
    if has_aux and not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"objective: with has_aux=True expected a function with a pair (scalar, aux), got {type(result).__name__}"
        )
    values, aux = result if has_aux else (result, None)
    if not isinstance(values, jax.Array):
        remedy = "" if has_aux else "; for further results use has_aux=True"
        raise TypeError(f"objective: expected a scalar for one example, got a {type(values).__name__}{remedy}")
    if values.ndim != 1:
        raise ValueError(
            f"objective: expected a function with a scalar value for one example, got shape {values.shape[1:]}"
        )
    return values, aux
