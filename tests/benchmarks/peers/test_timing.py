"""Ratios of the peers are taken within rounds, for each step, to the reference; on a clock that is made up."""

import numpy as np
import pytest

from benchmarks.peers import measurement as peer_measurement
from benchmarks.peers import problem as peer_problem
from benchmarks.peers.contestants import REFERENCE
from benchmarks.peers.problem import Contestant, Evaluated

PROBLEM = peer_problem.make_problem(peer_problem.Sizes(batch=2, pixels=4, hidden=3, latent=1), 2)


def test_seconds_are_of_one_step_and_every_round_has_everybody(clock, monkeypatch):
    monkeypatch.setattr(peer_measurement, "time", clock)
    order = []

    def make(name, cost, steps):
        def advance(calls):
            order.append((name, calls))
            clock.spend(cost * calls * steps)

        return Contestant(advance, evaluate=None, steps_per_call=steps)

    costs = {"one": (0.125, 1), "scanned": (0.0625, 4), "slow": (2.0, 1)}
    contestants = {name: make(name, *numbers) for name, numbers in costs.items()}
    timed = peer_measurement.interleaved(contestants, rounds=6, least_seconds=1.0)
    for name, (cost, steps) in costs.items():
        assert timed.wall[name] == [cost] * 6
        assert timed.cpu[name] == [2.0 * cost] * 6
        assert timed.steps_per_round[name] * cost >= 1.0  # a round is long enough
        assert timed.steps_per_round[name] == {"one": 8, "scanned": 4 * steps, "slow": 1}[name]
        assert order[[called for called, _ in order].index(name)] == (name, 1)  # the call that compiles
    rounds = [[name for name, _ in order[start : start + 3]] for start in range(len(order) - 18, len(order), 3)]
    assert all(sorted(names) == sorted(costs) for names in rounds)
    assert len({tuple(names) for names in rounds}) > 2


@pytest.fixture
def cell(monkeypatch, as_a_script):
    """The cell of the reference and of one more, with seconds by round."""
    seconds = {
        "cpu": {REFERENCE: [1.0, 2.0, 10.0], "hiwae": [3.0, 2.0, 5.0]},
        "wall": {REFERENCE: [1.0, 1.0, 4.0], "hiwae": [1.0, 3.0, 2.0]},
    }
    noise = peer_problem.standard_noise(PROBLEM)
    loss, gradient = peer_problem.expected(PROBLEM, noise, "plain")

    def interleaved(contestants, *, rounds, least_seconds):
        assert (list(contestants), rounds, least_seconds) == ([REFERENCE, "hiwae"], 3, 0.5)
        return peer_measurement.Timed(**seconds, steps_per_round={REFERENCE: 7, "hiwae": 9})

    def make(name, problem):
        evaluate = lambda: Evaluated(loss * (1.0 if name == REFERENCE else 1.0 + 5e-6), gradient, noise)
        return Contestant(None, evaluate, temp_bytes=None if name == REFERENCE else 11)

    monkeypatch.setattr(peer_measurement, "interleaved", interleaved)
    monkeypatch.setattr(peer_measurement, "make", make)
    return peer_measurement.run_cell(PROBLEM, [REFERENCE, "hiwae"], rounds=3, least_seconds=0.5)


def test_ratios_are_to_the_reference_within_rounds(cell):
    assert cell["num_samples"] == 2
    reference, ours = cell["contestants"].values()
    assert (reference["title"], ours["title"]) == ("plain JAX", "hiwae_jax plain")
    assert reference["cpu_ratio"] == reference["wall_ratio"] == [1.0, 1.0, 1.0]
    assert ours["cpu_ratio"] == pytest.approx(np.quantile([3.0, 1.0, 0.5], [0.25, 0.5, 0.75]))
    assert ours["wall_ratio"] == pytest.approx(np.quantile([1.0, 3.0, 0.5], [0.25, 0.5, 0.75]))
    assert (ours["cpu_milliseconds"], ours["wall_milliseconds"]) == (3_000.0, 2_000.0)
    assert (ours["steps_per_round"], ours["temp_bytes"], reference["temp_bytes"]) == (9, 11, None)
    assert reference["relative_difference"]["loss"] < 1e-6 < ours["relative_difference"]["loss"]
