"""The training script: every model end to end on the digits, the same twice, and unbroken by a kill."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from experiments import training, vae
from experiments.models import MODELS, make_model
from experiments.settings import Settings

TINY = Settings(steps=60, warmup=20, latent=4, hidden=(16, 16), proposal_hidden=8, num_samples=2, nll_samples=20)
END_TO_END = ("iwae-h", "hiwae-1")  # independent samples are killed and resumed below; every model is traced
OPTIONS = ["--steps", "60", "--warmup", "20", "--latent", "4", "--hidden", "16", "16"]
OPTIONS += ["--proposal-hidden", "8", "--num-samples", "2", "--nll-samples", "20"]


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax multiplies Python numbers by integer counts, which the strict setting of the library's tests forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def digits():
    return vae.load("digits", None)


def results(folder):
    return {path.parent.name.split("-K")[0]: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


def test_models_end_to_end(tmp_path, capsys):
    arguments = [*OPTIONS, "--models", *END_TO_END, "--output", str(tmp_path)]
    vae.main(arguments)
    table = capsys.readouterr().out
    found = results(tmp_path)
    assert sorted(found) == sorted(f"digits-{name}" for name in END_TO_END)
    for name in END_TO_END:
        result = found[f"digits-{name}"]
        # An untrained decoder with the pixel means as its bias is at about 30 nats; nothing can be below zero.
        assert 0.0 < result["test_nll"]["mean"] < 35.0
        assert -result["test_nll"]["mean"] >= result["test_bound"]["mean"] - 0.5
        assert result["steps"] >= 60
        assert result["nll_samples"] == 20
        assert result["test_nll"]["monte_carlo_error"] > 0.0
        assert len(result["data_checksum"]) == 64
    assert table.count("|\n") >= len(END_TO_END) + 2
    pictures = {path.name for path in tmp_path.rglob("*.png")}
    assert pictures == {"samples.png", "reconstructions.png", "digits-curves.png"}
    # A second call reads what the first one wrote.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    vae.main(arguments)
    assert "finished before" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}


def make(settings, digits):
    pixel_mean = np.unpackbits(digits.train, axis=-1, count=64).mean(axis=0)
    return make_model(
        settings.model,
        num_samples=settings.num_samples,
        pixel_mean=pixel_mean,
        latent=settings.latent,
        hidden=settings.hidden,
        proposal_hidden=settings.proposal_hidden,
        seed=settings.seed,
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_its_weights_and_gradients(name, digits):
    model = make(TINY._replace(model=name), digits)
    bound = hj.make_bound(model.log_joint, model.proposal, weighting=model.weighting)
    log_weights = hj.make_log_weights(model.log_joint, model.proposal, weighting=model.weighting)
    arguments = model.params, jnp.zeros(64), jax.random.key(0)
    assert jax.eval_shape(log_weights, *arguments).shape == (1 if name == "vae" else TINY.num_samples,)
    gradient = jax.eval_shape(jax.grad(bound), *arguments)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, model.params)


def test_training_raises_the_bound_and_a_seed_gives_one_trajectory(tmp_path, digits):
    settings = TINY._replace(model="hiwae-1", steps=1_000, warmup=100)
    model = make(settings, digits)
    first = training.train(model, settings, digits, tmp_path / "first")
    second = training.train(make(settings, digits), settings, digits, tmp_path / "second")
    np.testing.assert_array_equal(first.curves, second.curves)
    bounds = dict(zip(training.CURVES, np.asarray(first.curves).T, strict=True))["validation_bound"]
    assert bounds[-1] > bounds[0] + 0.3
    assert float(first.best_bound) == max(bounds)


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    """Kill -9 after the first checkpoint, start again: the same result as without, to the last bit."""
    options = ["--models", "iwae", *OPTIONS, "--steps", "600"]
    code = (
        "import sys, pathlib; from experiments import training, vae; training.SECONDS_BETWEEN_CHECKPOINTS = 0.0; "
        "training.STEPS_A_CALL = 100; vae.main(sys.argv[1:])"
    )
    root = pathlib.Path(__file__).resolve().parents[2]

    log = tmp_path / "log"

    def start(folder):
        arguments = [sys.executable, "-c", code, *options, "--output", str(folder)]
        with log.open("w") as stream:
            # One folder of compiled programs for all three: what is compared is the numbers, not the compiler.
            environment = {
                **os.environ,
                "PYTHONPATH": str(root),
                "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            return subprocess.Popen(arguments, cwd=root, env=environment, stdout=stream, stderr=stream)

    whole = start(tmp_path / "whole")
    assert whole.wait() == 0, log.read_text()

    broken = start(tmp_path / "broken")
    while not list((tmp_path / "broken").glob("*/checkpoints/[0-9]*")) and broken.poll() is None:
        time.sleep(0.05)
    broken.send_signal(signal.SIGKILL)
    assert broken.wait() == -signal.SIGKILL
    assert not list((tmp_path / "broken").glob("*/result.json"))
    again = start(tmp_path / "broken")
    assert again.wait() == 0, log.read_text()
    ours, theirs = results(tmp_path / "broken")["digits-iwae"], results(tmp_path / "whole")["digits-iwae"]
    for name in ("settings", "steps", "train_bound", "test_bound", "test_nll", "curves"):
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_samples": 0}, "num_samples: expected at least 1, got 0"),
        ({"polyak": 1.0}, r"polyak: expected a decay in \[0, 1\), got 1.0"),
        ({"learning_rate": -1.0}, "learning_rate and clip: expected above 0"),
        ({"batch_size": 2_000}, "batch_size: expected at most the 1297 training examples, got 2000"),
        ({"gradient": "dreg"}, "gradient: expected one of"),
        ({"model": "gan"}, "name: expected one of vae, iwae"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(changes, message, tmp_path, digits):
    with pytest.raises(ValueError, match=message):
        vae.run(TINY._replace(**changes), digits, tmp_path)


def test_missing_files_of_mnist_are_an_error_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    with pytest.raises(FileNotFoundError, match=r"the directory of raw files does not exist: .*nowhere"):
        vae.main(["--dataset", "binarized_mnist", "--data-dir", str(tmp_path / "nowhere"), "--output", str(tmp_path)])
