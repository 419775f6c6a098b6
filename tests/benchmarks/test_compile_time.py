"""The table of compile times: a row for each cell, and columns for what they say."""

import types

import jax
import pytest

from benchmarks import compile_time
from experiments.vae import sweeps, training

TINY = {
    "dataset": ["binarized_mnist"],
    "latent": [2],
    "hidden": [(4,)],
    "proposal_hidden": [3],
    "steps": [128],
    "num_samples": [2, 5],
    "seeds": [2],
}

pytestmark = pytest.mark.usefixtures("as_a_script")


@pytest.fixture
def tiny(monkeypatch):
    """Two sweeps of tiny networks, and the options that choose them."""
    monkeypatch.setitem(sweeps.SWEEPS, "one", [{**TINY, "model": ["vae", "iwae", "hiwae-1"]}])
    monkeypatch.setitem(sweeps.SWEEPS, "two", [{**TINY, "model": ["iwae", "hiwae-1"]}])
    return ["--sweeps", "one", "two", "--models", "hiwae-1", "iwae"]


def test_there_is_a_row_for_each_cell_with_its_cpu_times_in_order(tiny, clock, monkeypatch, capsys):
    """In the cell of number n initialization takes n seconds of CPU time, lowering 2 n and compiling 3 n."""
    asked = []

    def make_run_call(model, settings, plan, unpack):
        asked.append((settings.num_samples, plan.steps_a_call))
        number = len(asked)

        def lower(seeds, state, train, *monitored):
            assert seeds.shape == (2,)
            assert unpack(train[:1], None).shape == (1, 784)
            clock.spend(1.0 * number)
            return types.SimpleNamespace(compile=lambda: clock.spend(1.5 * number))

        return types.SimpleNamespace(lower=lower)

    def init_states(model, plan, seeds):
        clock.spend(0.5 * len(asked))  # compiled anew in each cell
        return seeds

    monkeypatch.setattr(compile_time, "time", clock)
    monkeypatch.setattr(training, "make_run_call", make_run_call)
    monkeypatch.setattr(training, "init_states", init_states)
    compile_time.main(tiny)
    assert capsys.readouterr().out.splitlines() == [
        "| sweep | model | initialization | trace and lower | compile |",
        "| --- | --- | --- | --- | --- |",
        "| one | iwae | 1.0 | 2.0 | 3.0 |",
        "| one | hiwae-1 | 2.0 | 4.0 | 6.0 |",
        "| two | iwae | 3.0 | 6.0 | 9.0 |",
        "| two | hiwae-1 | 4.0 | 8.0 | 12.0 |",
    ]
    assert asked == [(5, 128)] * 4
    assert not jax.config.jax_enable_compilation_cache


def test_the_program_is_that_of_training(tiny, monkeypatch, capsys):
    """It goes from a state of all seeds to the next; it is traced here, and not compiled."""
    make_run_call, traced = training.make_run_call, []

    def recorded(*arguments):
        def lower(seeds, state, *images):
            after = jax.eval_shape(make_run_call(*arguments), seeds, state, *images)
            shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (state, after)]
            traced.append(shapes[0] == shapes[1] and len(state.calls) == len(seeds) == 2)
            return types.SimpleNamespace(compile=lambda: None)

        return types.SimpleNamespace(lower=lower)

    monkeypatch.setattr(training, "make_run_call", recorded)
    compile_time.main(["--sweeps", "two", "--models", "iwae"])
    assert traced == [True]
    assert capsys.readouterr().out.count("| two | iwae | ") == 1
