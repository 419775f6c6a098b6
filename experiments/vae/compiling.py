"""How much the compiler optimizes: less where that costs no speed."""

import jax

RUNS_ONCE = {"xla_backend_optimization_level": 0}  # of LLVM, for programs that take longer to compile than to run


def for_many_runs() -> dict[str, int] | None:
    """The options for training and evaluation, or None for the compiler's own.

    On a CPU they run as fast with LLVM's first level of optimization, and are compiled in four fifths of the time.
    """
    less = jax.default_backend() == "cpu" and not jax.config.values["jax_disable_most_optimizations"]
    return {"xla_backend_optimization_level": 1} if less else None
