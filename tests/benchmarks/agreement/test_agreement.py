"""What does not agree with the CPU is found, told by the exit status, and compared again; the rest is not repeated."""

import json

import numpy as np
import pytest

import hiwae_jax as hj
from benchmarks.agreement import command as agreement
from benchmarks.agreement import comparison, problems
from experiments.shared import command_line

pytestmark = pytest.mark.usefixtures("as_a_script")

GRADIENT = np.array([3.0, 4.0])


def test_every_gradient_is_compared_and_every_kind_of_proposal():
    bounds = {name: problems.make(name).bounds() for name in problems.PROPOSALS}
    assert {gradient for found in bounds.values() for gradient in found} == set(hj.GRADIENTS)
    assert all(bounds.values())
    kinds = {"independent", "hierarchical", "joint_gaussian", "defensive", "antithetic", "flow_chain", "markov"}
    assert {*kinds, "mixture"} == {name.split(",")[0] for name in problems.PROPOSALS}
    assert problems.names(smoke=False) == [*problems.PROPOSALS, problems.NETWORKS]


@pytest.mark.parametrize(
    ("value", "gradient", "agrees"),
    [
        (-100.0009, GRADIENT, True),
        (-100.0011, GRADIENT, False),
        (-100.0, GRADIENT + np.array([4.9e-4, 0.0]), True),
        (-100.0, GRADIENT + np.array([5.1e-4, 0.0]), False),
        (-100.0, -GRADIENT, False),
        (np.nan, GRADIENT, False),
        (-100.0, np.array([np.nan, 4.0]), False),
    ],
)
def test_the_limits_are_relative_and_what_is_not_finite_never_agrees(value, gradient, agrees):
    found = comparison.figures("p", "g", (value, gradient), (-100.0, GRADIENT))
    assert ("failed" not in found) == agrees
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_two_devices_are_evaluated_and_the_second_is_the_measure(monkeypatch):
    sides = {"here": (-3.0, 2.0 * GRADIENT), "cpu": (-2.0, GRADIENT)}
    monkeypatch.setattr(comparison, "evaluate", lambda name, device: {"g": sides[device]})
    (cell,) = comparison.compare("p", comparison.Devices("here", "cpu")).values()
    assert (cell["value"], cell["value_apart"], cell["gradient_apart"]) == (-2.0, 0.5, 1.0)


@pytest.fixture
def device(monkeypatch):
    """A device that is made up: the problems that are compared there, and those that do not agree or cannot run."""
    found = {"compared": [], "wrong": set(), "impossible": set()}

    def compare(name, where):
        found["compared"].append(name)
        if name in found["impossible"]:
            raise agreement.jax.errors.JaxRuntimeError("out of memory\nand more")
        ours = -GRADIENT if name in found["wrong"] else GRADIENT
        return {
            f"{name}, {gradient}": comparison.figures(name, gradient, (1.0, ours), (1.0, GRADIENT))
            for gradient in ("a", "b")
        }

    monkeypatch.setattr(comparison, "compare", compare)
    return found


def test_a_failure_stops_nothing_and_is_compared_again_alone(device, tmp_path, capsys):
    first, second = problems.names(smoke=True)
    device["wrong"] = {first}
    arguments = ["--smoke", "--output", str(tmp_path)]
    assert agreement.main(arguments) == command_line.FAILED
    assert device["compared"] == [first, second]
    assert f"2 of 4 gradients agree with the CPU's; NOT: {first}, a; {first}, b" in capsys.readouterr().out
    text = (tmp_path / "agreement.md").read_text()
    assert f"| {first} | a | 0.0e+00 | 2.0e+00 | **no**: value 0 and gradient 2 away from the CPU's |" in text
    device["impossible"] = {first}
    assert agreement.main(arguments) == command_line.FAILED
    assert f"NOT: {first};" in capsys.readouterr().out
    assert "**no**: out of memory |" in (tmp_path / "agreement.md").read_text()
    device["wrong"], device["impossible"] = set(), set()
    assert agreement.main(arguments) == command_line.DONE
    assert device["compared"] == [first, second, first, first]
    assert "4 of 4 gradients agree" in capsys.readouterr().out
    assert agreement.main(arguments) == command_line.DONE
    assert len(device["compared"]) == 4


def test_a_time_limit_leaves_the_rest_to_the_same_command(device, tmp_path, capsys):
    arguments = ["--smoke", "--output", str(tmp_path)]
    assert agreement.main([*arguments, "--time-limit", "0"]) == command_line.AGAIN
    assert device["compared"] == []
    assert "0 of 0 gradients agree with the CPU's; 2 problems left" in capsys.readouterr().out
    assert json.loads((tmp_path / "agreement.json").read_text())["not_run"] == problems.names(smoke=True)
    assert agreement.main(arguments) == command_line.DONE


def test_without_a_cpu_to_compare_with_the_command_is_refused(device, tmp_path, capsys, monkeypatch):
    def devices(kind=None):
        if kind == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return ["cuda:0"]

    monkeypatch.setattr(comparison.jax, "devices", devices)
    with pytest.raises(SystemExit) as refused:
        agreement.main(["--output", str(tmp_path)])
    assert refused.value.code == command_line.REFUSED
    assert "JAX has no CPU to compare with; add cpu to JAX_PLATFORMS" in capsys.readouterr().err
