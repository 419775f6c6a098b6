"""What came, against what was expected: errors at trace time that name the argument and the remedy."""

from typing import Any

import jax
import jax.numpy as jnp


def at_least_float32(array: jax.Array) -> jax.Array:
    """Return `array` as float32, or unchanged where it is a wider float.

    >>> at_least_float32(jnp.ones(2, jnp.bfloat16)).dtype
    dtype('float32')
    """
    is_wide = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize >= 4
    return array if is_wide else array.astype(jnp.float32)


def is_array(leaf: Any) -> bool:
    """Whether a leaf of a pytree is an array or a number; some libraries' modules have functions among theirs."""
    return hasattr(leaf, "dtype") or isinstance(leaf, (bool, int, float, complex))


def distribution_parameters(
    name: str, parameters: Any, *, ndim: int, expected: str, equal_shapes: bool, rows: int | None = None
) -> Any:
    """Return the arrays that the callable `name` gave, in at least float32, or say what is wrong with them.

    Args:
      name: the argument of the public function that the user will recognise.
      parameters: what the callable returned, a pytree of arrays.
      ndim: the rank of its first leaf.
      expected: the shapes in words.
      equal_shapes: whether it must be a pair `(loc, scale)` of equal shapes.
      rows: the number of leading rows of every leaf, where it is known.
    """
    leaves = jax.tree.leaves(parameters)
    got = ", ".join(str(jnp.shape(leaf)) for leaf in leaves) or "nothing"
    if not leaves or jnp.ndim(leaves[0]) != ndim:
        raise ValueError(
            f"{name}: expected arrays {expected} for one example, got {got}; the caller vmaps over the batch"
        )
    for leaf in leaves:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{name}: expected floating-point arrays {expected}, got dtype {dtype}")
    if equal_shapes and (len(leaves) != 2 or jnp.shape(leaves[0]) != jnp.shape(leaves[1])):
        raise ValueError(
            f"{name}: expected a pair of arrays of equal shape {expected}, got {got}; nothing is broadcast"
        )
    if ndim == 2:
        rows = jnp.shape(leaves[0])[0] if rows is None else rows
        if any(jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != rows for leaf in leaves):
            raise ValueError(f"{name}: expected {rows} rows, one for each sample, as {expected}; got {got}")
    return jax.tree.map(lambda leaf: at_least_float32(jnp.asarray(leaf)), parameters)


def scalar(name: str, value: Any, *, z: jax.Array) -> jax.Array:
    """Return a log-density as a scalar of at least float32, or say what is wrong with it."""
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


def positive_integer(name: str, value: Any) -> int:
    """Return a static count of at least one, or say what is wrong with it."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
    return int(value.__index__())


def logits(name: str, value: Any, *, num_samples: int) -> jax.Array:
    """Return the logits [K] of a weighting in at least float32, or say what is wrong with them."""
    if jnp.shape(value) != (num_samples,):
        raise ValueError(
            f"{name}: expected {num_samples} logits (shape ({num_samples},)), one for each member, at one z; "
            f"got shape {jnp.shape(value)}"
        )
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise TypeError(f"{name}: expected floating-point logits, got dtype {jnp.result_type(value)}")
    return at_least_float32(jnp.asarray(value))


def one_key(key: Any) -> jax.Array:
    """Return the key of one example, or say that it is no typed key, or more than one."""
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
