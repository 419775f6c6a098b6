"""Trace-time checks of shapes."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Shaped

Start = Literal["distinct", "independent"]  # how the heads of a hierarchical proposal start


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


def head_strength(start: Start) -> float:
    """The factor of everything by which the outputs of a head depend on its inputs at the start."""
    if start not in ("distinct", "independent"):
        raise ValueError(f"start: expected 'distinct' or 'independent', got {start!r:.80}")
    return 1.0 if start == "distinct" else 0.0
