"""How much XLA's CPU compiler optimizes: less where that costs no speed. Other compilers keep their own options."""

import jax


def for_one_run() -> dict[str, int] | None:
    """The options for programs that take longer to compile than to run."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def for_many_runs() -> dict[str, int] | None:
    """The options for training and evaluation: they run as fast, and are compiled in four fifths of the time."""
    less = jax.default_backend() == "cpu" and not jax.config.values["jax_disable_most_optimizations"]
    return {"xla_backend_optimization_level": 1} if less else None
