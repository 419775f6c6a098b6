"""The whole way from raw files to arrays, on a tiny set; and the real set if its files are there."""

import hashlib
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from hiwae_jax.data import binarized_mnist, load_binarized_mnist, preparation
from hiwae_jax.data.binarized_mnist.builder import HiwaeBinarizedMnist
from tests.data.binarized_mnist.tiny_checks import SPLITS, assert_is


@pytest.fixture
def no_builder(monkeypatch):
    monkeypatch.setattr(binarized_mnist, "_import_builder", lambda: pytest.fail("the builder was asked for"))


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
def test_prepares_once_and_then_reads_the_cache(tiny_set, compressed, request):
    tiny_set.write(compressed=compressed)
    assert_is(tiny_set.load(), tiny_set)

    request.getfixturevalue("no_builder")
    shutil.rmtree(tiny_set.manual_dir)
    assert_is(tiny_set.load(), tiny_set)


def test_as_a_data_source_of_tensorflow_datasets(tiny_set):
    tiny_set.write()
    tiny_set.load()
    builder = tfds.builder("hiwae_binarized_mnist", data_dir=tiny_set.data_dir)
    for split in SPLITS:
        images = [record["image"] for record in builder.as_data_source(split)]
        np.testing.assert_array_equal(images, tiny_set.images[split].reshape(-1, 28, 28))
        assert images[0].dtype == np.uint8
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        "train": 7,
        "validation": 3,
        "test": 4,
    }


def test_default_directory_is_that_of_tensorflow_datasets(tiny_set, monkeypatch):
    tiny_set.write()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny_set.data_dir))
    assert_is(load_binarized_mnist(manual_dir=str(tiny_set.manual_dir)), tiny_set)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(preparation._data_dir(None)) == "/home/somebody/tensorflow_datasets"


@pytest.mark.parametrize(
    ("package", "importers"),
    [("tensorflow_datasets", ("binarized_mnist.builder", "raw_file_builder")), ("array_record", ())],
)
def test_without_the_packages_that_prepare(tiny_set, package, importers, monkeypatch):
    tiny_set.write()
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, package, None)
        for module in importers:
            patched.delitem(sys.modules, f"hiwae_jax.data.{module}", raising=False)
        with pytest.raises(ModuleNotFoundError, match=rf'{tiny_set.data_dir}.*{package}.*"hiwae_jax\[data\]"'):
            tiny_set.load()
    tiny_set.load()
    # What is prepared is read without.
    monkeypatch.setitem(sys.modules, package, None)
    assert_is(tiny_set.load(), tiny_set)


def test_the_builder_registers_the_files_of_the_specification():
    registered = {url: (info.size, info.checksum) for url, info in HiwaeBinarizedMnist.url_infos.items()}
    files = binarized_mnist.SPECIFICATION.files.values()
    assert registered == {file.url: (file.size, file.sha256) for file in files}
    assert tfds.builder_cls("hiwae_binarized_mnist") is HiwaeBinarizedMnist
    assert tfds.builder_cls("binarized_mnist") is not HiwaeBinarizedMnist


def test_other_record_formats_are_refused(tiny_set):
    builder = HiwaeBinarizedMnist(data_dir=tiny_set.data_dir)
    with pytest.raises(ValueError, match="prepared with file_format=\"array_record\" only, not 'parquet'"):
        builder.download_and_prepare(file_format="parquet")


def test_the_real_set(raw_data_dir, tmp_path, monkeypatch):
    if not list(raw_data_dir.glob("binarized_mnist_train.amat*")):
        pytest.skip(f"no binarized_mnist_train.amat or .amat.gz in {raw_data_dir}")
    dataset = load_binarized_mnist(data_dir=tmp_path, manual_dir=raw_data_dir)
    # Of the arrays uint8 [N, 784], found apart from this library.
    expected = {
        "train": (50_000, "43490d4d6ac9002727af4426d8748609fdb7e4094fa65ad8d681ea60082a7a5a"),
        "validation": (10_000, "069b4f0beb389b776478c3e872b4df71c95ac4be64d7cbe6d32e24ebac8e6d5e"),
        "test": (10_000, "ca0294c3b8d984c7a1dc891015a8eea6f37bae59a34e35ea0fc8c47110a8dd86"),
    }
    for split, (num_images, sha256) in expected.items():
        images = np.unpackbits(getattr(dataset, split), axis=-1)
        assert images.shape == (num_images, 784)
        assert hashlib.sha256(images.tobytes()).hexdigest() == sha256

    monkeypatch.setattr(binarized_mnist, "_import_builder", lambda: pytest.fail("the builder was asked for"))
    again = load_binarized_mnist(data_dir=tmp_path)
    assert again.checksum == dataset.checksum
    np.testing.assert_array_equal(again.train, dataset.train)
