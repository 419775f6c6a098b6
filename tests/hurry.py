"""What makes a process faster that traces and compiles much and computes little."""

import functools
import gc
from importlib.metadata import version

# Traces are many objects and few cycles. Python looks for cycles so often that it takes an eighth of the time. JAX
# makes a new MLIR context for every program, which is half of the time of a small one. What is private belongs to one
# version.
SHARES_CONTEXT = version("jax").startswith("0.10.")
if SHARES_CONTEXT:
    from jax._src.interpreters import mlir


def begin() -> None:
    """No search for cycles from here on, and one MLIR context for all programs."""
    gc.disable()
    gc.freeze()
    if SHARES_CONTEXT:
        mlir.make_ir_context = functools.cache(mlir.make_ir_context)


def clean_up() -> None:
    """Search for cycles once, among the objects that are new; the next program has a new context."""
    if SHARES_CONTEXT:
        mlir.make_ir_context.cache_clear()
    gc.collect()
    gc.freeze()
