"""Trace-time checks of shapes, and the precision in which small numbers are computed."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def require_shape(name: str, array: Shaped[Array, "..."], expected: tuple[int | str, ...]) -> None:
    """Raise a ValueError unless `array` has the shape `expected`; a string in it stands for any size.

    Args:
      name: the argument's name, for the message.
      array: the array to check.
      expected: the shape, e.g. `("K", 32)`.

    Raises:
      ValueError: the rank or a size differs.

    >>> require_shape("z", jnp.zeros((5, 32)), ("K", 32))
    """
    shape = jnp.shape(array)
    fits = len(shape) == len(expected) and all(
        isinstance(want, str) or got == want for got, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = "[" + ", ".join(str(size) for size in expected) + "]"
        got = "[" + ", ".join(str(size) for size in shape) + "]"
        raise ValueError(f"{name} must have shape {wanted} for one example, got {got}; jax.vmap the call over a batch")


def at_least_float32(array: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Return `array` as float32, or unchanged where it is a wider float.

    >>> at_least_float32(jnp.ones(2, jnp.bfloat16)).dtype
    dtype('float32')
    """
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize >= 4:
        return array
    return array.astype(jnp.float32)
