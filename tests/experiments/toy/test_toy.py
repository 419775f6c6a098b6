"""The toy script: target, log Z and measures against NumPy, a run end to end, the same twice, and clear errors."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.toy import command as toy
from experiments.toy import problem as toy_problem
from experiments.toy import training as toy_training

LOG_Z = 3.30983
# The estimator that compiles fastest; every other one is traced below, and tested with the library.
OPTIONS = ["--alpha", "1", "--gradient", "reparameterized", "--steps", "6"]
OPTIONS += ["--seeds", "2", "--draws", "2000", "--num-samples", "2"]
LISTS = ("bound", "gap", "bound_standard_error", "log_weight_variance", "effective_sample_size")
LISTS += ("estimate_log_variance", "estimate_variance", "estimate_deviation")


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax multiplies Python numbers by integer counts, which the strict setting of the library's tests forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_training, "STEPS_A_CALL", 3)  # two calls of the compiled program
        toy.main([*OPTIONS, "--output", str(folder)])
    return folder


def log_target_float64(z1, z2):
    ring = -0.5 * ((np.sqrt(z1**2 + z2**2) / np.sqrt(2) - 2) / 0.5) ** 2
    modes = [((z1 - 2) / 0.6) ** 2, (np.sin(z1) / 0.5) ** 2, ((z1 + z2 + 2.5) / 0.6) ** 2]
    return ring + np.log(sum(np.exp(-0.5 * mode) for mode in modes))


@pytest.mark.parametrize("z", [(0.3, -0.2), (2.0, 2.0), (-2.8, 0.1), (1.5, -2.5), (-6.0, 5.0)])
def test_target_is_the_formula(z):
    np.testing.assert_allclose(toy_problem.log_target(jnp.array(z)), log_target_float64(*z), rtol=1e-5)


def test_target_at_a_point_by_hand():
    # On the ring at (2, 2), on the first mode; the other two have sin(2) / 0.5 and 6.5 / 0.6 standard deviations.
    others = math.exp(-0.5 * (math.sin(2.0) / 0.5) ** 2) + math.exp(-0.5 * (6.5 / 0.6) ** 2)
    assert float(toy_problem.log_target(jnp.array([2.0, 2.0]))) == pytest.approx(math.log(1.0 + others), abs=1e-6)


def test_log_z_agrees_with_a_second_quadrature():
    radius, angle = np.meshgrid(np.linspace(0, 9, 2_001)[1:], np.linspace(0, 2 * np.pi, 2_000, endpoint=False))
    density = np.exp(log_target_float64(radius * np.cos(angle), radius * np.sin(angle))) * radius
    polar = math.log(density.sum() * (9 / 2_000) * (2 * np.pi / 2_000))
    log_z = toy.log_normaliser()
    assert log_z == pytest.approx(polar, abs=1e-5)
    assert log_z == pytest.approx(LOG_Z, abs=1e-5)


def test_a_run_writes_finite_figures_below_log_z(finished):
    content = json.loads((finished / "toy.json").read_text())
    assert {"hiwae_jax", "jax", "device"} <= set(content["provenance"])
    assert [result["settings"]["z0"] for result in content["results"]] == ["shared", "separate"]
    for result in content["results"]:
        figures = np.array([result[name] for name in LISTS])
        assert figures.shape == (len(LISTS), 2)
        assert np.all(np.isfinite(figures))
        bound, gap, error, variance, ess, *dispersion = figures
        np.testing.assert_allclose(bound + gap, LOG_Z, atol=1e-4)
        assert np.all(bound < LOG_Z + 4 * error)
        assert np.all(variance > 0)
        assert np.all((ess >= 1) & (ess <= 2))
        assert np.min(dispersion) > 0
        assert np.shape(result["weight_correlation"]) == (2, 2, 2)
    lines = (finished / "toy.md").read_text().splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


def test_the_same_seeds_give_the_same_numbers(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(toy_training, "STEPS_A_CALL", 3)
    toy.main([*OPTIONS, "--z0", "shared", "--output", str(tmp_path)])
    first = json.loads((finished / "toy.json").read_text())["results"][0]
    second = json.loads((tmp_path / "toy.json").read_text())["results"][0]
    assert first["bound"][0] != first["bound"][1]
    for name in LISTS:
        assert first[name] == second[name]


def test_a_finished_fit_is_read_and_an_unfinished_one_repeated(finished, tmp_path, monkeypatch):
    settings = toy.Settings(**json.loads((finished / "toy.json").read_text())["results"][0]["settings"])
    monkeypatch.setattr(toy_training, "train", None)  # no call can succeed
    first = toy_training.fit(settings, finished / "fits", log_z=LOG_Z)
    assert first.params["conditionals"]["hidden"]["weight"].shape == (2, 64, 2)
    problem = toy.make_problem(settings)
    again = toy_training.evaluate(settings, problem, first.params, log_z=first.result["log_z"])
    assert {name: first.result[name] for name in again} == again  # the parameters are those that were evaluated
    for path in (finished / "fits").glob("shared*.npz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(TypeError, match="not callable"):  # killed before the JSON was written
        toy_training.fit(settings, tmp_path, log_z=LOG_Z)
    with pytest.raises(TypeError, match="not callable"):
        toy_training.fit(settings._replace(learning_rate=5.000001e-4), finished / "fits", log_z=LOG_Z)


@pytest.mark.parametrize("z0", ["shared", "separate"])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_only_the_uniform_weighting_tells_the_reverse_model_the_member(z0, alpha):
    problem = toy.make_problem(toy.Settings(z0=z0, alpha=alpha))
    params = jax.eval_shape(problem.init, jax.random.key(0))
    assert params["reverse"]["hidden"]["weight"].shape == (64, 2 + (3 if alpha == 0.0 else 0))
    # Strong types: a weak one would change in the first update, and the training program would compile twice.
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(params))
    gradient = jax.eval_shape(jax.grad(problem.make_bound()), params, jnp.zeros(()), jax.random.key(0))
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)


def test_a_mixture_draws_three_different_ones_of_twelve_gaussians():
    problem = toy.make_problem(toy.Settings(z0="mixture-12", alpha=1.0))
    params = problem.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == {"loc": (12, 2), "raw": (12, 2)}
    draw = problem.draw(params, jnp.zeros(()), jax.random.key(1))
    assert len(set(draw.parameters.picks.tolist())) == len(draw.z) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--gradient typo", "gradient: expected one of"),
        ("--z0 shared markov --alpha 0 --num-samples 1", "num_samples: expected at least 2 for a Markov chain, got 1"),
    ],
)
def test_bad_options_are_errors_before_anything_trains(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        toy.main([*options.split(), "--output", str(tmp_path)])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_bad_settings_are_errors():
    with pytest.raises(ValueError, match="z0: expected 'shared', 'separate', 'markov' or 'mixture-12', got 'both'"):
        toy.make_problem(toy.Settings(z0="both"))
    with pytest.raises(ValueError, match="reverse: expected 'embedded' or 'heads', got 'head'"):
        toy.make_problem(toy.Settings(reverse="head"))
    with pytest.raises(ValueError, match="alpha: expected 0 where the weighting is learned, got 1"):
        toy.make_problem(toy.Settings(alpha=1.0, learned=True))
    with pytest.raises(ValueError, match="alpha: expected 1 for z0='mixture-12', whose weighting is fixed, got 0"):
        toy.make_problem(toy.Settings(z0="mixture-12"))
    with pytest.raises(ValueError, match="learning_rate: expected above 0"):
        toy.make_problem(toy.Settings(learning_rate=0.0))
