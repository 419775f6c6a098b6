"""The figures of an overhead cell come from the right programs, by hand on seconds and FLOPs that are made up."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.overhead import measurement, timing
from benchmarks.overhead import problem as overhead_problem
from benchmarks.overhead.tables import EXACT, PLAIN, REFILLED

OPTIONS = types.SimpleNamespace(batch_size=4, chunk_size=None, no_draw=False, rounds=3)
BUSY = np.array([1.0, 10.0, 2.0])  # how much longer everything takes in each round
PARTS = {"encoder": 1.0, "proposal networks of IWLB": 2.0, "proposal networks of H-IWLB 0": 5.0, "decoder": 3.0}
PARTS["proposal networks of H-IWLB"] = 4.0
STEPS = {  # seconds in the first round, were the machine idle; FLOPs are a tenth of the square
    f"IWLB {EXACT}": 10.0,
    f"IWLB {PLAIN}": 8.0,
    f"H-IWLB 0 {EXACT}": 15.0,
    f"H-IWLB 0 {PLAIN}": 14.0,
    f"H-IWLB 1 {EXACT}": 12.0,
    f"H-IWLB 1 {REFILLED}": 16.0,
    f"H-IWLB 1 {PLAIN}": 11.0,
}
COST = {**PARTS, **STEPS}
UNEVEN = np.array([1.0, 1.0, 3.0])  # of each step's own, in the last round
BASELINES = {EXACT: f"IWLB {EXACT}", REFILLED: f"IWLB {EXACT}", PLAIN: f"IWLB {PLAIN}"}


def flops(name):
    return 0.1 * COST[name] ** 2


def seconds(name):
    """Of each round; CPU time is twice the wall time, and that of a step grows where it is H-IWLB's."""
    wall = COST[name] * BUSY * (UNEVEN if name.startswith("H-IWLB") else 1.0)
    return [(2.0 * second, second + 1.0) for second in wall]


@pytest.fixture
def cell(monkeypatch):
    """A cell of K = 2 at alpha 0 and 1, whose programs are names."""

    def make_problem(sizes, method, num_samples):
        assert (sizes.name(), num_samples) == ("mlp 5/6", 2)
        whose = {None: "IWLB", 0.0: "H-IWLB 0", 1.0: "H-IWLB"}[method.alpha]
        networks = {"encoder": "encoder", "proposal networks": f"proposal networks of {whose}", "decoder": "decoder"}
        parts = {part: (f"function of {name}", name) for part, name in networks.items()}
        return overhead_problem.Problem(method.name(), types.SimpleNamespace(draw="its draw"), parts)

    def compiled(objective, params, batch, *, chunk_size, draw):
        is_part = params in PARTS
        assert objective == f"function of {params}" if is_part else objective.draw == draw
        assert (draw is None) == is_part
        facts = {"compile_seconds": 1.0, "temp_bytes": 2**20 * COST[params], "flops": flops(params)}
        return lambda: params, facts

    def take_turns(calls, rounds):
        assert rounds == OPTIONS.rounds
        assert {name: call() for name, call in calls.items()} == {name: name for name in COST}
        return {name: seconds(name) for name in calls}

    monkeypatch.setattr(overhead_problem, "make_problem", make_problem)
    monkeypatch.setattr(timing, "compiled", compiled)
    monkeypatch.setattr(timing, "take_turns", take_turns)
    return measurement.measure(overhead_problem.Sizes("mlp", 5, 6), 2, [0.0, 1.0], OPTIONS)


def test_a_step_is_compared_with_the_iwlb_of_its_own_gradient_within_rounds(cell):
    assert list(cell["steps"]) == list(STEPS)
    for name, step in cell["steps"].items():
        baseline = BASELINES[name.split()[-1]]
        ours, theirs = np.array(seconds(name)), np.array(seconds(baseline))
        for kind, ratios in zip(("cpu", "wall"), (ours / theirs).T, strict=True):
            assert step[kind] == pytest.approx(np.quantile(ratios, [0.5, 0.25, 0.75]))
        assert step["flops_ratio"] == pytest.approx(flops(name) / flops(baseline))
        assert step["temp_bytes"] == 2**20 * COST[name]
        assert (step["cpu_ms"], step["wall_ms"]) == pytest.approx(1e3 * np.median(ours, axis=0))
    assert cell["steps"][f"H-IWLB 1 {REFILLED}"]["cpu"][0] == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("name", "networks"),
    [
        (f"IWLB {EXACT}", "proposal networks of IWLB"),
        (f"H-IWLB 0 {EXACT}", "proposal networks of H-IWLB 0"),
        (f"H-IWLB 1 {EXACT}", "proposal networks of H-IWLB"),
        (f"H-IWLB 1 {REFILLED}", "proposal networks of H-IWLB"),
    ],
)
def test_the_parts_and_the_rest_make_up_the_step(cell, name, networks):
    assert len(cell["parts"]) == 4
    parts, step = cell["parts"][name], cell["steps"][name]
    assert list(parts) == [*overhead_problem.PARTS, "rest"]
    for part, program in (("encoder", "encoder"), ("proposal networks", networks), ("decoder", "decoder")):
        assert parts[part]["cpu"][0] == pytest.approx(COST[program] / COST[f"IWLB {EXACT}"])
        assert parts[part]["flops_ratio"] == pytest.approx(flops(program) / flops(f"IWLB {EXACT}"))
    for kind in ("cpu", "flops_ratio"):
        total = sum(np.ravel(part[kind])[0] for part in parts.values())
        assert total == pytest.approx(np.ravel(step[kind])[0])


def test_every_call_takes_part_in_every_round_and_each_begins_once(clock, monkeypatch):
    monkeypatch.setattr(timing, "time", clock)
    order = []

    def make(name, cost):
        def call():
            order.append(name)
            clock.spend(cost)

        return call

    costs = {"a": 1.0, "b": 4.0, "c": 0.5}
    found = timing.take_turns({name: make(name, cost) for name, cost in costs.items()}, rounds=3)
    assert found == {name: [(2.0 * cost, cost)] * 3 for name, cost in costs.items()}
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"  # the first calls are not timed


def test_flops_are_of_the_whole_batch_whatever_is_evaluated_at_once():
    params, batch = np.ones((5, 7), np.float32), np.random.default_rng(0).normal(size=(8, 7)).astype(np.float32)

    def objective(params, x, key):
        return jnp.sum((params @ x) ** 2)

    counted = []
    for chunk_size in (1, 8):
        call, facts = timing.compiled(objective, jnp.asarray(params), jnp.asarray(batch), chunk_size=chunk_size)
        counted.append(facts["flops"])
        value, gradient = call()
        assert value == pytest.approx(5.0 * np.mean(batch.sum(1) ** 2), rel=1e-5)
        np.testing.assert_allclose(gradient, 2.0 * params @ batch.T @ batch / 8, rtol=1e-5)
    products = 2 * 2 * 5 * 7 * 8  # forward, and the gradient
    assert products <= counted[0] == counted[1] < 1.5 * products
