"""The worked example of CONTRIBUTING.md, "Add a data set", run as it stands there on small files."""

import gzip
import hashlib
import importlib
import json
import pathlib
import re
import sys

import jax
import numpy as np
import pytest

import hiwae_jax.data
from experiments.vae import command
from hiwae_jax.data import dataset_names, load_dataset, mnist, packed_cache
from hiwae_jax.data.mnist.builder import HiwaeMnist
from tests.data.published_sets.tiny_sets import grey_images, idx

CONTRIBUTING = pathlib.Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
SIZES = (40, 10, 40)  # the command shows 32 test images
FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}


def raw_files(images):
    """The compressed idx files of these images, by name."""
    parts = {"train": images[:50], "test": images[50:]}
    return {f"{FILES[part]}.gz": gzip.compress(idx(rows), mtime=0) for part, rows in parts.items()}


def shrunk(specification, files):
    """The specification of small files in the place of the published ones."""
    described = {}
    for part, raw in specification.files.items():
        content = files[f"{raw.filename}.gz"]
        known = {"download_sha256": hashlib.sha256(content).hexdigest(), "size": len(gzip.decompress(content))}
        if raw.sha256:
            known["sha256"] = hashlib.sha256(gzip.decompress(content)).hexdigest()
        described[part] = raw._replace(url="http://127.0.0.1:9/nowhere.gz", **known)
    return specification._replace(files=described, split_sizes=SIZES, checksum=None)


@pytest.fixture
def images():
    return {seed: np.concatenate([np.roll(grey_images(), (seed, n), (1, 2)) for n in range(7)])[:90] for seed in (0, 3)}


@pytest.fixture
def raw_dir(tmp_path):
    """The folder of raw files of both sets."""
    folder = tmp_path / "raw"
    (folder / "fashion_mnist").mkdir(parents=True)
    return folder


@pytest.fixture
def module(images, raw_dir, tmp_path, monkeypatch):
    """The module of the example as a sub-package of `hiwae_jax.data`, with small files in the sub-folder of the set."""
    (code,) = re.findall(
        r"```python\n(.*?)```", CONTRIBUTING.read_text().split("## Add a data set")[1], flags=re.DOTALL
    )
    package = tmp_path / "packages" / "fashion_mnist"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    monkeypatch.setattr(hiwae_jax.data, "__path__", [*hiwae_jax.data.__path__, str(package.parent)])
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    module = importlib.import_module("hiwae_jax.data.fashion_mnist")
    files = raw_files(images[0])
    monkeypatch.setattr(module, "SPECIFICATION", shrunk(module.SPECIFICATION, files))
    for name, content in files.items():
        (raw_dir / "fashion_mnist" / name).write_bytes(content)
    yield module
    del sys.modules[module.__name__], hiwae_jax.data.fashion_mnist


def assert_is(dataset, images):
    stored = np.concatenate([dataset.train, dataset.validation, dataset.test])
    np.testing.assert_array_equal(stored, images.reshape(90, 784))


def test_the_set_is_found_by_its_name_prepared_and_loaded(module, images, raw_dir):
    assert "fashion_mnist" in dataset_names()
    dataset = load_dataset("fashion_mnist", manual_dir=raw_dir)
    assert_is(dataset, images[0])
    assert dataset.name == "fashion_mnist"
    assert [len(split) for split in dataset[:3]] == list(SIZES)
    # The second time from the prepared set, without raw files.
    assert_is(module.load_fashion_mnist(manual_dir=raw_dir.parent), images[0])


def test_the_training_command_takes_it(module, raw_dir, tmp_path, capsys):
    options = "--dataset fashion_mnist --model vae --steps 4 --batch-size 10 --warmup 0 --latent 2 --hidden 4"
    options += " --nll-samples 2 --nll-images 2"
    with jax.numpy_dtype_promotion("standard"):
        assert command.main([*options.split(), "--data-dir", str(raw_dir), "--output", str(tmp_path / "runs")]) == 0
    (path,) = (tmp_path / "runs").glob("fashion_mnist-mlp-vae-*/result.json")
    assert json.loads(path.read_text())["data"]["name"] == "fashion_mnist"
    assert "\nfashion_mnist: bounds and NLL in nats" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["--dataset", "letters", "--output", str(tmp_path / "runs")])
    assert "fashion_mnist" in capsys.readouterr().err  # among the names that are offered


def test_files_of_equal_names_lie_in_one_folder(module, images, raw_dir, monkeypatch):
    """MNIST in the folder itself, Fashion-MNIST in its sub-folder: each set finds its own."""
    files = raw_files(images[3])
    for name, content in files.items():
        (raw_dir / name).write_bytes(content)
    tiny = shrunk(mnist.SPECIFICATION, files)
    monkeypatch.setattr(mnist, "SPECIFICATION", tiny)
    monkeypatch.setattr(HiwaeMnist, "SPECIFICATION", tiny)
    assert_is(load_dataset("fashion_mnist", manual_dir=raw_dir), images[0])
    assert_is(load_dataset("mnist", manual_dir=raw_dir), images[3])


def test_a_wrong_file_beside_another_of_its_name_is_an_error_that_names_both(module, images, raw_dir):
    for name, content in raw_files(images[3]).items():
        (raw_dir / "fashion_mnist" / name).rename(raw_dir / name)
        (raw_dir / "fashion_mnist" / name).write_bytes(content)
    wrong, other = raw_dir / "fashion_mnist" / f"{FILES['train']}.gz", raw_dir / f"{FILES['train']}.gz"
    message = f"^{wrong} .*{other} has the same name and was not looked at: remove the one that is not of fashion_mnist"
    with pytest.raises(ValueError, match=message):
        load_dataset("fashion_mnist", manual_dir=raw_dir)


def test_a_file_of_another_set_is_refused_with_the_place_for_the_right_one(module, images, raw_dir):
    for name, content in raw_files(images[3]).items():
        (raw_dir / name).write_bytes(content)
        (raw_dir / "fashion_mnist" / name).unlink()
    message = f"another data set, put the file of fashion_mnist into the folder {raw_dir / 'fashion_mnist'}$"
    with pytest.raises(ValueError, match=message):
        load_dataset("fashion_mnist", manual_dir=raw_dir)


def test_content_without_a_known_checksum_is_not_believed(module, raw_dir):
    path = raw_dir / "fashion_mnist" / f"{FILES['test']}.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"ubyte cannot be verified: only the compressed file has a known checksum"):
        load_dataset("fashion_mnist", manual_dir=raw_dir)
    path.with_suffix("").unlink()
    assert load_dataset("fashion_mnist", manual_dir=raw_dir).train.shape == (40, 784)
    assert packed_cache.read(module.SPECIFICATION, raw_dir.parent / "prepared") is not None


def test_an_inverted_file_is_recognised_by_the_mean_of_its_own_set(module, images, raw_dir, monkeypatch):
    files = raw_files(images[0])
    specification = module.SPECIFICATION._replace(mean=0.8)  # the images have 0.2
    monkeypatch.setattr(module, "SPECIFICATION", specification)
    assert files
    with pytest.raises(ValueError, match=r"looks inverted: mean pixel 0.\d+, expected about 0.800"):
        load_dataset("fashion_mnist", manual_dir=raw_dir)
