"""Settings that cannot be are errors before any work."""

import numpy as np
import pytest

from experiments.vae import command as vae
from experiments.vae.settings import Settings
from hiwae_jax.data import raw_files


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
        vae.run(Settings(**changes), digits, tmp_path)


def test_a_mistake_in_the_last_cell_is_an_error_before_the_first_one_trains(tmp_path, capsys):
    options = [
        "--latent",
        "4",
        "--hidden",
        "16,16",
        "--proposal-hidden",
        "8",
        "--num-samples",
        "2",
        "--free-bits",
        "0.1",
        "--output",
        str(tmp_path),
        "--model",
        "iwae",
        "hiwae-1",
    ]
    with pytest.raises(SystemExit) as refused:
        vae.main([*options, "--gradient", "doubly_reparameterized", "refilled"])
    assert refused.value.code == 2
    assert "gradient: 'refilled' is not unbiased with free bits" in capsys.readouterr().err
    assert not list(tmp_path.glob("digits*"))


def test_missing_files_of_mnist_are_an_error_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(raw_files, "why_unreachable", lambda url: "no network")
    with pytest.raises(SystemExit) as refused:
        vae.main(["--dataset", "binarized_mnist", "--data-dir", str(tmp_path / "empty"), "--output", str(tmp_path)])
    assert refused.value.code == 2
    assert "binarized_mnist_train.amat or binarized_mnist_train.amat.gz" in capsys.readouterr().err
