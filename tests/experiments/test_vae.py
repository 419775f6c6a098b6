"""The training script: models end to end on the digits, the same twice, and unbroken by a kill or a time limit."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from experiments import evaluation, images, report, result_files, sweeps, training, vae
from experiments.models import MODELS, make_model, of_one
from experiments.settings import Settings, from_json

TINY = Settings(steps=60, warmup=20, latent=4, hidden=(16, 16), proposal_hidden=8, num_samples=2, nll_samples=20)
OPTIONS = ["--steps", "60", "--warmup", "20", "--latent", "4", "--hidden", "16,16"]
OPTIONS += ["--proposal-hidden", "8", "--num-samples", "2", "--nll-samples", "20"]


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax multiplies Python numbers by integer counts, which the strict setting of the library's tests forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def digits():
    return images.load("digits", None)


def make(settings, digits):
    return make_model(settings, pixel_mean=images.pixel_mean(digits))


def results(folder):
    return {path.parent.name.split("-K")[0]: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


def test_models_end_to_end(tmp_path, capsys):
    arguments = [*OPTIONS, "--model", "iwae-h", "hiwae-0.5", "--seeds", "2", "--tensorboard", "--output", str(tmp_path)]
    assert vae.main(arguments) == 0
    table = capsys.readouterr().out
    found = results(tmp_path)
    assert sorted(found) == ["digits-mlp-hiwae-0.5", "digits-mlp-iwae-h"]
    for result in found.values():
        nll, bound = (np.array(result[name]["mean"]) for name in ("test_nll", "test_bound"))
        assert nll.shape == (2,)
        assert nll[0] != nll[1]
        # An untrained decoder with the pixel means as its bias is at about 30 nats; nothing can be below zero.
        assert np.all((nll > 0.0) & (nll < 35.0))
        assert np.all(-nll >= bound - 0.5)
        assert result["steps"] >= 60
        assert (result["nll_samples"], result["nll_images"]) == (20, [200, 300])
        assert min(result["test_nll"]["monte_carlo_error"]) > 0.0
        assert len(result["data"]["checksum"]) == 64
        assert {"jax", "jaxlib", "flax", "optax", "device", "processor", "date"} <= set(result["provenance"])
        assert np.shape(result["curves"]["validation_bound"]) == (2, len(result["curves"]["step"]))
        assert vae.cells(vae.parse(arguments)).count(from_json(result["settings"])) == 1
    assert table.count("|\n") >= 4
    assert {path.name for path in tmp_path.rglob("*.png")} == {
        "samples.png",
        "reconstructions.png",
        "digits-curves.png",
    }
    events = [path.read_bytes() for path in tmp_path.rglob("events*")]
    assert len(events) == 2
    assert all(b"validation_bound/seed_1" in content for content in events)
    assert len(result_files.read([tmp_path])) == 2
    # A second call reads what the first one wrote.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    vae.main(arguments)
    assert "finished before" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_its_weights_and_gradients(name, digits):
    model = make(TINY._replace(model=name), digits)
    params = jax.eval_shape(model.init, jax.random.key(0))
    bound = hj.make_bound(model.log_joint, model.proposal, weighting=model.weighting)
    arguments = params, jnp.zeros(64), jax.random.key(0)
    assert jax.eval_shape(model.log_weights(), *arguments).shape == (1 if name == "vae" else TINY.num_samples,)
    gradient = jax.eval_shape(jax.grad(bound), *arguments)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)
    assert {path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(params.generative)} == {"decoder"}


def test_the_conv_model_has_the_sizes_of_the_paper():
    (settings,) = sweeps.expand(sweeps.SWEEPS["mnist"], {"model": ["hiwae-0"], "num_samples": [5]})
    model = make_model(settings.check(), pixel_mean=np.full(784, 0.1))
    params = jax.eval_shape(model.init, jax.random.key(0))
    network = params.inference["conditionals"]["network"]
    assert network["of_hidden"].get_raw_value().shape == (1920, 2 * 5 * 32)
    # To a gain for every output of every layer, skip included, and a bias for all but the skip's.
    assert network["of_context"]["kernel"].get_raw_value().shape == (450, 2 * 1920 + 5 * (5 * 32))
    assert jax.eval_shape(model.log_weights(), params, jnp.zeros(784), jax.random.key(0)).shape == (5,)
    assert settings.warmup == 50_000
    assert settings.learning_rate == 5e-5


def test_training_raises_the_bound_and_pieces_give_the_trajectory_of_the_whole(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(training, "STEPS_A_CALL", 200)
    settings = TINY._replace(steps=600, warmup=100, seeds=2, encoder_updates=2)
    whole = training.train(make(settings, digits), settings, digits, tmp_path / "whole")
    assert whole.finished
    bounds = np.asarray(whole.state.curves)[:, :, training.CURVES.index("validation_bound")]
    assert np.all(bounds[:, -1] > bounds[:, 0] + 0.3)
    np.testing.assert_array_equal(whole.state.best_bound, bounds.max(axis=1))
    # The proposal's parameters are updated twice in each minibatch, the decoder's once.
    steps = training.make_plan(settings, len(digits.train)).steps
    np.testing.assert_array_equal(whole.state.optimizer.generative.count, [steps, steps])
    np.testing.assert_array_equal(whole.state.optimizer.inference.count, [2 * steps, 2 * steps])

    # A clock that moves a second whenever it is read: some calls fit before the limit, and the next ones do not.
    ticks = itertools.count()
    monkeypatch.setattr(training, "time", types.SimpleNamespace(monotonic=lambda: float(next(ticks))))
    pieces, calls = 0, []
    while not calls or calls[-1] < int(whole.state.calls[0]):
        deadline = float(next(ticks)) + 6.0
        piece = training.train(make(settings, digits), settings, digits, tmp_path / "pieces", deadline=deadline)
        calls.append(int(piece.state.calls[0]))
        pieces += 1
        assert piece.finished == (calls[-1] == int(whole.state.calls[0]))
    assert pieces > 1
    assert piece.seconds > 12.0  # of all pieces
    jax.tree.map(np.testing.assert_array_equal, piece.state, whole.state)
    # Going on after the end changes nothing.
    again = training.train(make(settings, digits), settings, digits, tmp_path / "pieces")
    jax.tree.map(np.testing.assert_array_equal, again.state, whole.state)


def test_a_seed_does_not_depend_on_its_neighbours_and_patience_ends_it(tmp_path, digits):
    # Nothing can be learned at this rate, and nothing is averaged: the first bound stays the best, to the bit; 70
    # epochs are 3 calls of 25.
    settings = TINY._replace(model="vae", steps=5_000, learning_rate=1e-30, patience=70, polyak=0.0)
    alone = training.train(make(settings, digits), settings, digits, tmp_path / "alone")
    assert alone.finished
    np.testing.assert_array_equal(alone.state.calls, [4])
    pair = settings._replace(seeds=2)
    both = training.train(make(pair, digits), pair, digits, tmp_path / "both").state
    first, second = of_one(both.curves, 0), of_one(both.curves, 1)
    np.testing.assert_allclose(first, alone.state.curves[0], rtol=1e-5)
    assert np.max(np.abs(first - second)) > 1e-3


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    """Kill -9 after the first checkpoint, start again: the same result as without, to the last bit."""
    options = ["--model", "vae", *OPTIONS, "--steps", "600"]
    code = (
        "import sys, pathlib; from experiments import training, vae; training.SECONDS_BETWEEN_CHECKPOINTS = 0.0; "
        "training.STEPS_A_CALL = 100; restore = training._restore; "
        "training._restore = lambda *arguments: print('restored') or restore(*arguments); "
        "sys.exit(vae.main(sys.argv[1:]))"
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
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            }
            return subprocess.Popen(arguments, cwd=root, env=environment, stdout=stream, stderr=stream)

    whole = start(tmp_path / "whole")
    assert whole.wait() == 0, log.read_text()

    broken = start(tmp_path / "broken")
    # A checkpoint under way has a longer name.
    while not any(path.name.isdecimal() for path in tmp_path.glob("broken/*/checkpoints/*")) and broken.poll() is None:
        time.sleep(0.05)
    broken.send_signal(signal.SIGKILL)
    assert broken.wait() == -signal.SIGKILL
    assert not list((tmp_path / "broken").glob("*/result.json"))
    again = start(tmp_path / "broken")
    assert again.wait() == 0, log.read_text()
    assert "restored" in log.read_text()
    ours, theirs = results(tmp_path / "broken")["digits-mlp-vae"], results(tmp_path / "whole")["digits-mlp-vae"]
    for name in ("settings", "steps", "train_bound", "test_bound", "validation_nll", "test_nll", "curves"):
        assert ours[name] == theirs[name], name


def test_a_time_limit_is_told_by_the_exit_status(tmp_path, capsys):
    assert vae.main([*OPTIONS, "--model", "vae", "--time-limit", "0", "--output", str(tmp_path)]) == vae.STOPPED
    assert "the same command goes on" in capsys.readouterr().out
    assert not results(tmp_path)


def test_evaluation_in_pieces_and_other_blocks_gives_the_same_numbers(tmp_path, digits, monkeypatch):
    """Random numbers belong to images, so that K, device and interruptions do not change what is compared."""
    settings = TINY._replace(seeds=2, nll_images=15)
    grey = images.datasets.GreyDataset(
        *(20 * np.unpackbits(split[:count], axis=-1) for split, count in zip(digits[:3], (40, 30, 35), strict=True)),
        (8, 8),
        "grey",
        "",
    )
    model = make_model(settings, pixel_mean=images.pixel_mean(grey))
    params = training.init_states(model, training.make_plan(settings, 1_000), jnp.arange(2)).params
    whole = evaluation.evaluate(model, settings, params, grey)
    assert whole["nll_images"] == [15, 15]
    assert np.shape(whole["test_bound"]["mean"]) == (2,)
    monkeypatch.setattr(evaluation, "ROWS_AT_ONCE", {"cpu": 2 * 25})
    found, saved, pieces = None, tmp_path / "evaluated.npz", 0
    while found is None:
        found = evaluation.evaluate(model, settings, params, grey, saved=saved, deadline=0.0)
        pieces += 1
    assert pieces == 2 * (2 + 2 + 2 + 1 + 1)  # a block each
    seconds = found.pop("evaluation_seconds"), whole.pop("evaluation_seconds")
    assert min(seconds) > 0.0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, whole)
    assert found["test_bound"]["mean"][0] != found["test_bound"]["mean"][1]
    # The pixels of an image are the same in every block.
    of_block = evaluation._over_block(lambda params, x, key: (jnp.sum(x), x[0]), images.make_pixels(grey), None)
    first, second = of_block(None, grey.test[:20], np.arange(20)), of_block(None, grey.test[10:30], 10 + np.arange(20))
    np.testing.assert_array_equal(first[0][10:], second[0][:10])


def test_a_cell_that_diverges_does_not_keep_the_others_from_being_run(tmp_path, capsys):
    options = [*OPTIONS, "--output", str(tmp_path), "--learning-rate", "1e30", "1e-3", "--clip", "1e30"]
    assert vae.main([*options, "--model", "vae"]) == 1
    assert capsys.readouterr().out.count("the objective of seed 0 is not finite at step") == 2
    assert [result["settings"]["learning_rate"] for result in results(tmp_path).values()] == [1e-3]


def test_runs_are_told_apart_by_what_differs():
    every = [TINY, TINY._replace(num_samples=3), TINY._replace(gradient="refilled", model="hiwae-1")]
    assert report.labels(every[:2]) == ["IWAE", "IWAE"]
    assert report.labels(every) == [
        "IWAE, gradient doubly_reparameterized",
        "IWAE, gradient doubly_reparameterized",
        "H-IWAE alpha 1, gradient refilled",
    ]


def test_grey_levels_are_binarized_afresh_by_each_key():
    grey = np.array([[0, 255, 128, 128] * 50], np.uint8)
    data = images.datasets.GreyDataset(grey, grey, grey, (10, 20), "grey", "")
    pixels = images.make_pixels(data)
    first, second = (np.asarray(pixels(grey, jax.random.key(seed))) for seed in (0, 1))
    assert set(np.unique(first)) == {0.0, 1.0}
    assert np.any(first != second)
    np.testing.assert_array_equal(first.reshape(50, 4)[:, :2], np.tile([0.0, 1.0], (50, 1)))
    np.testing.assert_allclose(images.pixel_mean(data), grey[0] / 255.0)


def test_rows_are_spread_over_the_whole_split():
    split = np.arange(100)[:, None]
    np.testing.assert_array_equal(images.spread(split, 3)[:, 0], [0, 50, 99])
    assert images.spread(split, 0) is split
    assert images.spread(split, 1_000) is split


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mnist-mlp", 16),
        ("omniglot-mlp", 12),
        ("caltech-mlp", 12),
        ("gradients-mlp", 10),
        ("mnist", 16),
        ("omniglot", 16),
        ("caltech", 14),
        ("caltech-search", 560),
    ],
)
def test_sweeps_have_the_cells_of_the_tables(name, count):
    cells = sweeps.expand(sweeps.SWEEPS[name], {})
    assert len(cells) == count
    assert len({settings.check().name() for settings in cells}) == count


def test_options_choose_among_the_cells_of_a_sweep_and_replace_the_rest():
    cells = vae.cells(vae.parse(["--sweep", "caltech-mlp", "--model", "hiwae-1", "--num-samples", "5", "--steps", "7"]))
    assert [(cell.model, cell.num_samples, cell.encoder_updates, cell.steps) for cell in cells] == [
        ("hiwae-1", 5, 1, 7),
        ("hiwae-1", 5, 2, 7),
    ]
    with pytest.raises(ValueError, match=r"nothing in this sweep has .*'num_samples': \[3\]"):
        vae.cells(vae.parse(["--sweep", "caltech-mlp", "--num-samples", "3"]))
    grid = vae.cells(vae.parse(["--model", "iwae", "hiwae-2", "--num-samples", "2", "3", "--hidden", "20,10"]))
    assert [(cell.model, cell.num_samples) for cell in grid] == list(itertools.product(("iwae", "hiwae-2"), (2, 3)))
    assert {cell.hidden for cell in grid} == {(20, 10)}
    assert len(vae.cells(vae.parse(["--model", "vae", "--num-samples", "1", "5"]))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_samples": 0}, "num_samples: expected at least 1, got 0"),
        ({"seeds": 0}, "seeds: expected at least 1, got 0"),
        ({"polyak": 1.0}, r"polyak: expected a decay in \[0, 1\), got 1.0"),
        ({"learning_rate": -1.0}, "learning_rate and clip: expected above 0"),
        ({"learning_rate": np.inf}, "learning_rate and clip: expected above 0 and finite"),
        ({"nll_images": 1}, "nll_images: expected 0, for all, or at least 2"),
        ({"batch_size": 2_000}, "batch_size: expected at most the 1297 training examples, got 2000"),
        ({"gradient": "dreg"}, "gradient: expected one of"),
        ({"model": "gan"}, "model: expected vae, iwae"),
        ({"model": "hiwae--1"}, "model: expected vae, iwae"),
        ({"schedule": "linear"}, "schedule: expected one of constant, cosine, got 'linear'"),
        ({"hidden": ()}, "hidden: expected at least one layer"),
        ({"architecture": "conv"}, 'architecture: "conv" takes images of 28x28'),
    ],
    ids=str,
)
def test_settings_that_cannot_be(changes, message, tmp_path, digits):
    with pytest.raises(ValueError, match=message):
        vae.run(TINY._replace(**changes), digits, tmp_path)


def test_a_mistake_in_the_last_cell_is_an_error_before_the_first_one_trains(tmp_path):
    options = [*OPTIONS, "--free-bits", "0.1", "--output", str(tmp_path), "--model", "iwae", "hiwae-1"]
    with pytest.raises(ValueError, match=r"gradient: 'refilled' is not unbiased with free bits"):
        vae.main([*options, "--gradient", "doubly_reparameterized", "refilled"])
    assert not list(tmp_path.glob("digits*"))


def test_missing_files_of_mnist_are_an_error_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    with pytest.raises(FileNotFoundError, match=r"the directory of raw files does not exist: .*nowhere"):
        vae.main(["--dataset", "binarized_mnist", "--data-dir", str(tmp_path / "nowhere"), "--output", str(tmp_path)])
