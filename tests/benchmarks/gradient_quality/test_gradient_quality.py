"""The gradient benchmark measures what its table says."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot as plt

from benchmarks.gradient_quality import command, measurement
from benchmarks.gradient_quality import tables as gradient_tables
from benchmarks.shared import problems as gradient_problems

# The estimators that the smoke run compares; all six would take minutes to compile.
TWO = ("reparameterized", "doubly_reparameterized")


def test_the_squared_norm_is_unbiased_and_its_error_is_honest():
    random = np.random.default_rng(0)
    mean, noise = np.zeros(30), random.normal(size=(2_000, measurement.GROUPS, 30))
    mean[0] = 0.5
    silent = np.array([measurement._squared_norm(rows) for rows in noise])
    loud = np.array([measurement._squared_norm(rows + mean)[0] for rows in noise])
    error = silent[:, 0].std()
    assert abs(silent[:, 0].mean()) < 4.0 * error / np.sqrt(len(noise))
    assert abs(loud.mean() - 0.25) < 4.0 * loud.std() / np.sqrt(len(noise))
    assert np.median(silent[:, 1]) == pytest.approx(error, rel=0.1)


def test_only_parameters_of_the_proposal_are_compared():
    problem = gradient_problems.make_digits(alpha=1.0, num_samples=2)
    marks = {
        jax.tree_util.keystr(path): mark for path, mark in jax.tree_util.tree_leaves_with_path(problem.of_proposal)
    }
    assert {name.split("'")[1]: mark for name, mark in marks.items()} == {
        "base": True,
        "conditionals": True,
        "encoder": True,
        "decoder": False,
        "reverse": False,
    }


def test_a_finished_cell_is_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measurement, "ESTIMATORS", TWO)
    arguments = ["--problems", "toy", "--alpha", "1", "--num-samples", "2"]
    arguments += ["--steps", "20", "--seeds", "1", "--draws", "40", "--output"]
    with jax.numpy_dtype_promotion("standard"):
        command.main([*arguments, str(tmp_path)])
    (cell,) = json.loads((tmp_path / "gradient_quality.json").read_text())["cells"]
    assert set(cell["quality"]) == set(measurement.STAGES)
    for rows in cell["quality"].values():
        assert rows["reparameterized"]["variance_ratio"] == 1.0
        assert all(np.isfinite(list(row.values())).all() for row in rows.values())
    assert cell["cost"]["doubly_reparameterized"]["flops_ratio"] > 1.0
    assert len(cell["bound"]["reparameterized"]["equal_steps"]) == 1
    assert (tmp_path / "gradient_quality.png").stat().st_size > 4_000

    def again(*arguments, **options):
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(measurement, "run_cell", again)
    command.main([*arguments, str(tmp_path)])
    assert "| toy | 1 | 2 | trained | doubly_reparameterized |" in capsys.readouterr().out


def test_a_biased_gradient_is_seen_and_an_unbiased_one_is_not():
    problem = gradient_problems.make_toy(alpha=3.0, num_samples=2)
    small = problem._replace(
        init=None, of_proposal={"a": True, "b": False}, batch=lambda key: jnp.zeros(4), make_bound=fake_bound
    )
    moments = measurement.make_moments(small, draws=100)
    rows = measurement.compare(small, moments, {"a": jnp.ones(3), "b": jnp.ones(1)}, draws=2_000)
    assert rows["path_squared"]["bias_is_seen"]
    assert rows["path_squared"]["bias_norm"] == pytest.approx(0.5 * np.sqrt(3), rel=0.05)
    assert rows["path_squared"]["largest_z"] > 10.0
    assert not rows["refilled"]["bias_is_seen"]
    assert rows["refilled"]["largest_z"] < 4.5
    assert rows["doubly_reparameterized"]["variance_ratio"] == pytest.approx(0.25, rel=0.2)
    assert rows["reparameterized"]["gradient_norm"] == pytest.approx(2.0 * np.sqrt(3), rel=0.05)


def fake_bound(gradient, backward_samples=None):
    """Gradients of known mean 2 and noise 1, half of it for all but the plain one; one of them is off by 0.5."""
    level = 2.5 if gradient == "path_squared" else 2.0
    spread = 1.0 if gradient == "reparameterized" else 0.5

    def bound(params, x, key):
        noise = jax.random.normal(jax.random.fold_in(key, len(gradient)), (3,))
        return jnp.sum(params["a"] * (level + spread * noise))

    return bound


def test_the_figures_have_a_panel_for_each_problem_and_alpha_and_a_line_for_each_gradient(tmp_path, monkeypatch):
    cells = json.loads((pathlib.Path(__file__).parents[3] / "results" / "gradient_quality.json").read_text())["cells"]
    drawn = []
    with monkeypatch.context() as context:
        context.setattr(plt, "close", drawn.append)
        gradient_tables.draw_figure(cells[::-1], tmp_path / "variances.png")
        gradient_tables.draw_bounds(cells, tmp_path / "bounds.png")
    variances, bounds = ({axis.get_title(loc="left"): axis for axis in figure.axes} for figure in drawn)
    assert set(variances) == {f"{problem}, alpha {alpha}" for problem in ("toy", "digits") for alpha in (0, 1, 3)}
    assert [line.get_label() for line in bounds["digits, alpha 0"].lines[:-1]] == ["DReG", "authors", "DReG, M = 1"]
    assert {text.get_text() for text in bounds["toy, alpha 3"].texts} == set(gradient_tables.COLUMNS.values())
    (K, ratios), (_, gains) = (panels["toy, alpha 1"].lines[1].get_data() for panels in (variances, bounds))
    here = {c["num_samples"]: c for c in cells if (c["problem"], c["alpha"]) == ("toy", 1.0)}
    assert list(K) == [2, 5, 10, 50]
    assert list(ratios) == [here[k]["quality"]["trained"]["refilled"]["variance_ratio"] for k in K]
    of = {name: [sum(here[k]["bound"][name]["equal_time"]) / 2 for k in K] for name in ("refilled", "reparameterized")}
    np.testing.assert_allclose(gains, np.subtract(of["refilled"], of["reparameterized"]), rtol=1e-9)
    for figure in drawn:
        plt.close(figure)
