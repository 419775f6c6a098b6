"""Trained cells: both NLLs and active units against numbers by hand, and which parameters are measured."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import trained_cells
from experiments.shared import stored
from experiments.vae import checkpoints, images, training
from experiments.vae.models import Params, make_model
from experiments.vae.settings import Settings
from hiwae_jax.data import Dataset
from tests.experiments.refused import refusal_of

pytestmark = pytest.mark.usefixtures("as_a_script")


def test_fewer_samples_are_the_mean_over_groups_of_the_draws(monkeypatch):
    """Mean weights 1, 3, 5, 7 and 9 of two samples: groups of four samples have the means 2 and 6, all have 5."""
    monkeypatch.setattr(trained_cells, "SAMPLES", 4)
    few, many = trained_cells.negative_log_likelihoods(np.log([[1.0, 3.0, 5.0, 7.0, 9.0]]), 2)
    np.testing.assert_allclose(few, [-(np.log(2.0) + np.log(6.0)) / 2])
    np.testing.assert_allclose(many, [-np.log(5.0)])


def test_a_unit_is_active_if_its_mean_differs_between_images(monkeypatch):
    """Four images with 0, 8, 16 and 24 bright pixels of 24. A unit that is a hundredth of the pixels has the variance
    0.0107, one that is a two-hundredth has a quarter of it, and noise of variance one averages out over draws.
    """
    monkeypatch.setattr(trained_cells, "DRAWS", 400)
    monkeypatch.setattr(trained_cells, "SAMPLES", 200)
    bright = np.arange(24) < np.array([0, 8, 16, 24])[:, None]
    rows = np.packbits(bright, axis=1)
    data = Dataset(rows, rows, rows, (4, 6), "stripes", "")

    def draw(params, x, key):
        noise = jax.random.normal(key, (2, 1))
        return types.SimpleNamespace(z=jnp.sum(x) * jnp.array([0.01, 0.005]) + jnp.concatenate([noise, noise], 1) / 9)

    def log_weights(params, x, key):
        return jnp.log(params) + jnp.log(jnp.array([0.25, 0.75])) + 0.1 * jax.random.normal(key)

    model = types.SimpleNamespace(log_weights=lambda: log_weights, proposal=types.SimpleNamespace(draw=draw))
    found = trained_cells.measure(model, Settings(num_samples=2), jnp.float32(3.0), data, num_images=4)
    assert found["active_units"] == 1
    assert (found["nll_few"], found["nll_many"]) == pytest.approx((-np.log(3.0), -np.log(3.0)), abs=0.03)
    assert found["difference"] == pytest.approx(found["nll_few"] - found["nll_many"])
    assert found["difference"] > 1e-6  # by Jensen's inequality, whatever the draws are
    assert found["images"] == 4


@pytest.fixture
def folder(tmp_path):
    """A tiny cell after two calls of training, where the best average is one everywhere: model, settings, data, folder.

    Its result has the curve of the checkpoint, -90 and -80.
    """
    settings = Settings(latent=2, hidden=(3,), proposal_hidden=2, seeds=2)
    rows = np.zeros((64, 8), np.uint8)
    data = Dataset(rows, rows, rows, (8, 8), "black", "")
    model = make_model(settings, pixel_mean=np.full(64, 0.5))
    state = training.init_states(model, training.make_plan(settings, 64), jnp.arange(2))
    ones = jax.tree.map(lambda leaf: jnp.ones_like(leaf).at[1].set(2.0), state.best)
    curves = state.curves.at[:, :2, training.CURVES.index("validation_bound")].set(jnp.array([-90.0, -80.0]))
    curves = curves.at[:, :2, 0].set(jnp.array([500.0, 1_000.0]))
    state = state._replace(best=Params(*ones), curves=curves, calls=state.calls + 2)
    belongs_to = stored.identity(settings.written(), data.name, data.checksum)
    with checkpoints.opened(tmp_path / "cell" / "checkpoints", belongs_to) as kept:
        kept.save(2, state, 1.0)
    write_curve(tmp_path / "cell", [-90.0, -80.0])
    return model, settings, data, tmp_path / "cell"


def write_curve(folder, values):
    steps = [500.0 * (number + 1) for number in range(len(values))]
    (folder / "result.json").write_text(json.dumps({"curves": {"step": steps, "validation_bound": [values, values]}}))


def test_the_best_average_of_the_first_seed_is_measured(folder):
    params = trained_cells.trained(*folder)
    leaves = jax.tree.leaves(params)
    assert len(leaves) > 4
    assert all(bool(jnp.all(leaf == 1.0)) for leaf in leaves)


@pytest.mark.parametrize("curve", [[-90.0, -80.0, -75.0], [-90.0, -81.0]], ids=["earlier", "of another run"])
def test_a_checkpoint_that_is_not_of_the_result_is_passed_over(folder, curve):
    write_curve(folder[3], curve)
    assert trained_cells.trained(*folder) is None


def test_a_folder_without_a_checkpoint_is_passed_over(folder, tmp_path):
    assert trained_cells.trained(*folder[:3], tmp_path / "empty") is None


def test_measured_cells_are_kept_and_shown(tmp_path, monkeypatch, capsys):
    runs, output = tmp_path / "runs", tmp_path / "out"
    (runs / "cell" / "checkpoints").mkdir(parents=True)
    settings = Settings(dataset="mnist", model="hiwae-1", encoder_updates=2, twice="encoder", steps=1_000, latent=7)
    monkeypatch.setattr(trained_cells, "cells", lambda runs: {runs[0] / "cell": settings})
    monkeypatch.setattr(trained_cells, "load_all", lambda cells, data_dir: {})
    (output / "cells").mkdir(parents=True)
    figures = {"nll_few": 9.5, "nll_many": 9.0, "difference": 0.5, "difference_error": 0.25, "active_units": 3}
    head = {name: getattr(settings, name) for name in trained_cells.SAVED}
    (output / "cells" / "cell-20.json").write_text(json.dumps({**head, **figures, "images": 20}))
    assert trained_cells.main(["--runs", str(runs), "--images", "20", "--output", str(output)]) == 0
    row = "| mnist | hiwae-1 | 5 | 2 (r once) | 1,000 | 9.50 | 9.00 | 0.500 | 0.250 | 3 of 7 |"
    assert row in capsys.readouterr().out
    assert row in (output / "trained_cells.md").read_text()
    assert json.loads((output / "trained_cells.json").read_text())["cells"][0]["difference"] == 0.5


def test_missing_data_and_damaged_cells_are_named_before_any_work(tmp_path, monkeypatch, capsys):
    settings = Settings(dataset="binarized_mnist")
    monkeypatch.setattr(trained_cells, "cells", lambda runs: {runs[0] / "cell": settings})

    def load(name, data_dir):
        raise FileNotFoundError(f"{name}: no files in {data_dir}")

    monkeypatch.setattr(images, "load", load)
    line = ["--runs", str(tmp_path), "--data-dir", str(tmp_path), "--output", str(tmp_path / "out")]
    assert f"binarized_mnist: no files in {tmp_path}" in refusal_of(trained_cells, line, capsys)
    (tmp_path / "out" / "cells" / "cell-200.json").write_text("{")
    assert "cell-200.json: no readable JSON" in refusal_of(trained_cells, line, capsys)
