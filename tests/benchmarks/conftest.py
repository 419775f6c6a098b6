"""What the benchmark scripts find when a user runs them, and how much they may change."""

import types

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from benchmarks.shared import cores as machine

CHANGED = ("jax_default_matmul_precision", "jax_enable_compilation_cache")


@pytest.fixture
def as_a_script(monkeypatch):
    """JAX's own rules of promotion; the process keeps its cores, and settings that scripts change are set back."""
    monkeypatch.setattr(machine, "use_cores", lambda cores: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = {name: getattr(jax.config, name) for name in CHANGED}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    # JAX asks once whether there is a cache of compiled programs, and the other tests want it.
    compilation_cache.reset_cache()


@pytest.fixture
def clock():
    """A module `time` that stands still until `clock.spend(seconds)`; two threads are busy all the while."""
    now = [0.0]

    def spend(seconds):
        now[0] += seconds

    return types.SimpleNamespace(spend=spend, perf_counter=lambda: now[0], process_time=lambda: 2.0 * now[0])
