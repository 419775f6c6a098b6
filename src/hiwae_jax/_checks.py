"""Checks of arguments and results. Errors are raised at trace time, and name the argument and the remedy."""

import functools
import inspect
import math
import numbers
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hiwae_jax._types import Key, Leaf, Parameters, Unchecked

P = ParamSpec("P")
R = TypeVar("R")


def by_name(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a public function. If a call does not fit its signature, the error lists the arguments to give by name."""
    signature = inspect.signature(function)
    names = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            title = getattr(function, "__name__", "function")
            given_by_name = f"; give {', '.join(names)} by name" if names else ""
            raise TypeError(f"{title}: {error}{given_by_name}") from None
        return function(*args, **kwargs)

    return checked


def function(name: str, value: object, arguments: str, *, result: str = "") -> None:
    """Raise if what the caller gave is not a function, or one that takes other arguments.

    Args:
      name: the argument of the public function.
      value: what the caller gave.
      arguments: what the function will be called with, such as `(params, x, z)`.
      result: what the function must return, in words.
    """
    expected = f"a function {arguments}{f' -> {result}' if result else ''}"
    if not callable(value):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # of a builtin or an extension, which has none
        return
    try:
        signature.bind(*arguments.strip("()").split(", "))
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got one that takes {signature}") from None


def number(
    name: str, value: Unchecked, *, least: float = -math.inf, above: float = -math.inf, remark: str = ""
) -> float:
    """Return a static finite number that is at least `least` and more than `above`, or raise."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{name}: expected a number that is known when the bound is made, got a traced one")
    is_scalar = isinstance(value, numbers.Real) or (hasattr(value, "dtype") and jnp.shape(value) == ())
    if not is_scalar or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a number, got {value!r:.80}")
    result = float(value)
    if not (math.isfinite(result) and result >= least and result > above):
        bound = f" of at least {least:g}" if least > -math.inf else f" above {above:g}" if above > -math.inf else ""
        raise ValueError(f"{name}: expected a finite number{bound}, got {result}{remark}")
    return result


def integer(value: Unchecked) -> int | None:
    """The value as a static integer, or None if it is not one. A boolean is not one."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        return None
    try:
        return int(value.__index__())
    except TypeError:  # an array that is no scalar of integers, or a traced one
        return None


def float_array(name: str, value: Unchecked, *, remark: str = "") -> jax.Array:
    """Return an array of floats in at least float32, or raise."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):  # JAX does not know what to do with it
        got = type(value).__name__
        raise TypeError(f"{name}: expected a floating-point array, got {got}{remark}") from None
    if value is None or not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a floating-point array, got dtype {array.dtype}{remark}")
    return at_least_float32(array)


def at_least_float32(array: jax.Array) -> jax.Array:
    """Return `array` as float32, or unchanged if it is a wider float.

    >>> at_least_float32(jnp.ones(2, jnp.bfloat16)).dtype
    dtype('float32')
    """
    is_wide = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize >= 4
    return array if is_wide else array.astype(jnp.float32)


def is_array(leaf: Leaf) -> bool:
    """Whether a leaf of a pytree is an array or a number. The modules of some libraries have functions as leaves."""
    if hasattr(leaf, "dtype"):
        return getattr(leaf.dtype, "kind", "") not in ("U", "S", "O")  # text and objects are no arrays for JAX
    return isinstance(leaf, (bool, int, float, complex))


def distribution_parameters(
    name: str, parameters: Unchecked, *, ndim: int, expected: str, equal_shapes: bool, rows: int | None = None
) -> Parameters:
    """Return the arrays that the callable `name` returned, in at least float32, or raise.

    Args:
      name: the argument of the public function, for the error message.
      parameters: what the callable returned, a pytree of arrays.
      ndim: the number of axes that the first leaf must have.
      expected: the expected shapes, in words.
      equal_shapes: whether the parameters must be a pair `(loc, scale)` of equal shapes.
      rows: the number of leading rows of every leaf, if it is known.
    """
    leaves = jax.tree.leaves(parameters)
    _arrays(name, leaves, expected)
    got = ", ".join(str(jnp.shape(leaf)) for leaf in leaves) or "nothing"
    if not leaves or jnp.ndim(leaves[0]) != ndim:
        raise ValueError(
            f"{name}: expected arrays {expected} for one example, got {got}; vmap the bound over a batch; for a z of "
            "another shape return a pair (loc, scale) of its structure, or give hj.Family a noise_like (docs/guide.md)"
        )
    _floats(name, leaves, expected)
    if equal_shapes and len(leaves) == 2 and not isinstance(parameters, (tuple, list)):
        raise TypeError(f"{name}: expected a pair of arrays {expected}, got {type(parameters).__name__}")
    if equal_shapes and (len(leaves) != 2 or jnp.shape(leaves[0]) != jnp.shape(leaves[1])):
        raise ValueError(
            f"{name}: expected a pair of arrays of equal shape {expected}, got {got}; nothing is broadcast"
        )
    if ndim == 2:
        rows = jnp.shape(leaves[0])[0] if rows is None else rows
        if any(jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != rows for leaf in leaves):
            raise ValueError(f"{name}: expected {rows} rows, one for each sample, as {expected}; got {got}")
    return jax.tree.map(lambda leaf: at_least_float32(jnp.asarray(leaf)), parameters)


def float_arrays(name: str, tree: Unchecked, *, expected: str) -> Parameters:
    """Return a pytree of floating-point arrays of any shapes in at least float32, or raise."""
    leaves = jax.tree.leaves(tree)
    _arrays(name, leaves, expected)
    _floats(name, leaves, expected)
    return jax.tree.map(lambda leaf: at_least_float32(jnp.asarray(leaf)), tree)


def _arrays(name: str, leaves: list[Leaf], expected: str) -> None:
    for leaf in leaves:
        if not is_array(leaf):
            raise TypeError(
                f"{name}: expected arrays {expected}, got {type(leaf).__name__}; return the arrays that a distribution "
                "is made of, such as (loc, scale), and not the distribution"
            )


def _floats(name: str, leaves: list[Leaf], expected: str) -> None:
    for leaf in leaves:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{name}: expected floating-point arrays {expected}, got dtype {dtype}")


def scalar(name: str, value: Unchecked, *, z: jax.Array) -> jax.Array:
    """Return a log-density as a scalar of at least float32, or raise."""
    if not hasattr(value, "dtype") and not isinstance(value, float):
        raise TypeError(f"{name}: expected a scalar array, got {type(value).__name__}")
    if jnp.shape(value) != ():
        raise ValueError(
            f"{name}: expected a scalar (shape ()) for one z of shape {z.shape}, got shape {jnp.shape(value)}; "
            "sum the log-densities of pixels and latent dimensions"
        )
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise TypeError(f"{name}: expected a floating-point scalar, got dtype {jnp.result_type(value)}")
    return at_least_float32(jnp.asarray(value))


def boolean(name: str, value: Unchecked) -> bool:
    """Return True or False, or raise. In an `if`, a string such as "no" would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r:.80}")
    return bool(value)


def known_range(array: Array | np.ndarray) -> tuple[float, float] | None:
    """Least and largest entry of an array. None if it is empty, or if its values are not known, as under `jit`."""
    if isinstance(array, jax.core.Tracer) or array.size == 0:
        return None
    # NumPy, because under `jit` JAX would trace operations on known arrays too.
    values = np.asarray(array).astype(np.float64)
    return float(values.min()), float(values.max())


def scalar_number(name: str, value: Unchecked, *, least: float) -> jax.Array:
    """Return a number as a scalar array, or raise.

    The number may be traced. It is compared with `least` only if its value is known.
    """
    is_number = is_array(value) and jnp.issubdtype(getattr(value, "dtype", type(value)), np.number)
    if not is_number or isinstance(value, complex):
        raise TypeError(f"{name}: expected a number, got {value!r:.80}")
    if jnp.shape(value) != ():
        raise ValueError(f"{name}: expected a scalar, got shape {jnp.shape(value)}")
    if not isinstance(value, jax.core.Tracer) and not least <= float(value) < math.inf:
        raise ValueError(f"{name}: expected a finite number of at least {least:g}, got {float(value):g}")
    return jnp.asarray(value)


def positive_integer(name: str, value: Unchecked) -> int:
    """Return a static integer of at least one, or raise."""
    return integer_from(1, name, value)


def integer_from(least: int, name: str, value: Unchecked) -> int:
    """Return a static integer of at least this number, or raise."""
    count = integer(value)
    if count is None or count < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r:.80}")
    return count


def logits(name: str, value: Unchecked, *, num_samples: int) -> jax.Array:
    """Return the logits [K] of a weighting in at least float32, or raise."""
    if jnp.shape(value) != (num_samples,):
        raise ValueError(
            f"{name}: expected {num_samples} logits (shape ({num_samples},)), one for each member, at one z; "
            f"got shape {jnp.shape(value)}"
        )
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise TypeError(f"{name}: expected floating-point logits, got dtype {jnp.result_type(value)}")
    return at_least_float32(jnp.asarray(value))


def one_key(key: Key) -> jax.Array:
    """Return the key of one example, or raise if it is not a typed key or more than one."""
    is_typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_typed:
        kind = f"{key.dtype} of shape {key.shape}" if hasattr(key, "dtype") else type(key).__name__
        raise TypeError(f"key: expected a typed key from jax.random.key(seed), got {kind}")
    if key.shape != ():
        raise ValueError(
            f"key: expected one key (shape ()) for one example, got keys of shape {key.shape}; "
            "use jax.vmap(bound, in_axes=(None, 0, 0)) with jax.random.split(key, batch_size)"
        )
    typed: jax.Array = key
    return typed
