"""The benchmark of objectives trains what it says and keeps what it has measured."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from benchmarks.objectives import command, measurement
from benchmarks.shared import problems
from tests import models

# All six would take a minute to compile.
TWO = (measurement.BOUND, "4 reverse draws")


def small_problem(*, alpha, num_samples):
    """Two members in one dimension, with the toy's name: it compiles in a moment."""
    proposal = hj.hierarchical(models.scalar_base, models.scalar_conditionals, models.scalar_reverse)
    x, weighting = jnp.asarray(models.SCALAR_X, jnp.float32), hj.power_heuristic(alpha)

    def evaluate(params, key, *, reverse_samples=None):
        weights = hj.make_log_weights(
            models.scalar_log_joint, proposal, weighting=weighting, reverse_samples=reverse_samples
        )
        keys = jax.random.split(key, 2_000)
        return jnp.mean(jax.nn.logsumexp(jax.vmap(weights, in_axes=(None, None, 0))(params, x, keys), axis=1))

    return problems.Problem(
        title="toy",
        alpha=alpha,
        num_samples=num_samples,
        init=lambda seed: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), models.scalar_params()),
        of_proposal=None,
        log_joint=models.scalar_log_joint,
        proposal=proposal,
        weighting=weighting,
        make_bound=None,
        batch=lambda key: jnp.broadcast_to(x, (4, 1)),
        compared_examples=1,
        evaluate=evaluate,
        learning_rate=1e-3,
    )


@pytest.mark.usefixtures("as_a_script")
def test_a_finished_problem_is_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measurement, "OBJECTIVES", {name: measurement.OBJECTIVES[name] for name in TWO})
    monkeypatch.setattr(command, "PROBLEMS", {"toy": small_problem})
    arguments = ["--problems", "toy", "--num-samples", "2", "--steps", "20", "--seeds", "2"]
    assert command.main([*arguments, "--output", str(tmp_path)]) == 0
    (cell,) = json.loads((tmp_path / "objectives.json").read_text())["cells"]
    assert cell["cost"]["4 reverse draws"]["flops_ratio"] > 1.5
    for rows in cell["bound"].values():
        assert np.shape([rows[kind] for kind in ("equal_steps", "equal_time", "many_reverse_samples")]) == (3, 2)
        assert np.all(np.asarray(rows["many_reverse_samples"]) > np.asarray(rows["equal_steps"]))
    monkeypatch.setattr(measurement, "run_cell", None)
    assert command.main([*arguments, "--output", str(tmp_path)]) == 0
    assert "| toy | 1 | 2 | 20 | 4 reverse draws |" in capsys.readouterr().out


def test_each_objective_is_another_bound():
    """At one draw, lower orders are higher, and the draws of the reverse model change the value."""
    problem = problems.make_toy(alpha=1.0, num_samples=3)
    bounds = {name: measurement.bound_of(problem, objective) for name, objective in measurement.OBJECTIVES.items()}
    evaluate = jax.jit(lambda params, key: {name: bound(params, jnp.zeros(()), key) for name, bound in bounds.items()})
    values = {name: float(value) for name, value in evaluate(problem.init(0), jax.random.key(1)).items()}
    assert values[measurement.BOUND] == pytest.approx(values[measurement.PLAIN], rel=1e-6)
    assert values[measurement.BOUND] > values["order 0.3"] > values["order 0.7"]
    assert len({round(values[name], 4) for name in (measurement.BOUND, "1 reverse draw", "4 reverse draws")}) == 3
