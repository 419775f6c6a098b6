"""The whole way from raw files to arrays, on a tiny set; and the real set if its files are there."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from hiwae_jax.data import binarized_mnist, load_binarized_mnist, packed_cache, preparation, unpack_bits
from hiwae_jax.data.binarized_mnist.builder import HiwaeBinarizedMnist
from hiwae_jax.data.dataset import checksum

from .conftest import amat, describe, serve

SPLITS = ("train", "validation", "test")


def assert_is(dataset, tiny):
    for split in SPLITS:
        packed = getattr(dataset, split)
        assert packed.dtype == np.uint8
        np.testing.assert_array_equal(unpack_bits(packed), tiny.images[split])
    assert dataset.checksum == tiny.specification.checksum == checksum(*dataset[:3])
    assert (dataset.shape, dataset.name) == ((28, 28), "tiny")


def assert_nothing_is_readable(tiny):
    assert not packed_cache.cache_path(tiny.specification, tiny.data_dir).exists()
    assert not HiwaeBinarizedMnist(data_dir=tiny.data_dir).data_path.exists()


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
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"",
        lambda content: b"text",
    ],
    ids=["cut off", "altered", "empty", "no npy"],
)
def test_a_damaged_cache_is_made_anew(tiny_set, damage):
    tiny_set.write()
    tiny_set.load()
    path = packed_cache.cache_path(tiny_set.specification, tiny_set.data_dir)
    content = path.read_bytes()
    path.write_bytes(damage(content))
    shutil.rmtree(tiny_set.manual_dir)  # not needed: the prepared set is still there
    assert_is(tiny_set.load(), tiny_set)
    assert path.read_bytes() == content


def test_a_cache_of_another_content_is_not_read(tiny_set, monkeypatch):
    tiny_set.write()
    tiny_set.load()
    tiny_set.install(monkeypatch, tiny_set.specification._replace(checksum="0" * 64))
    with pytest.raises(ValueError, match=rf"damaged: sha256 {tiny_set.specification.checksum} where 0{{64}} was"):
        tiny_set.load()


def test_a_cache_that_cannot_be_written(tiny_set):
    tiny_set.write()
    tiny_set.data_dir.mkdir()
    (tiny_set.data_dir / "hiwae_jax_packed").touch()
    with pytest.warns(UserWarning, match="cannot be written, so every load will take seconds"):
        assert_is(tiny_set.load(), tiny_set)


def test_an_interrupted_write_leaves_no_cache(tiny_set, monkeypatch):
    path = packed_cache.cache_path(tiny_set.specification, tiny_set.data_dir)

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        packed_cache.write(path, np.zeros((3, 98), np.uint8))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*train.array_record*", lambda path: path.write_bytes(path.read_bytes()[:-100])),
        ("*train.array_record*", lambda path: path.unlink()),
        ("dataset_info.json", lambda path: path.unlink()),
    ],
    ids=["cut off", "records absent", "description absent"],
)
def test_a_damaged_prepared_set_is_refused(tiny_set, pattern, damage):
    tiny_set.write()
    tiny_set.load()
    folder = HiwaeBinarizedMnist(data_dir=tiny_set.data_dir).data_path
    shutil.rmtree(tiny_set.data_dir / "hiwae_jax_packed")
    (path,) = folder.glob(pattern)
    damage(path)
    with pytest.raises(ValueError, match=f"(?s)prepared set in {folder} is damaged: .* Delete that directory"):
        tiny_set.load()


def test_a_killed_preparation_leaves_nothing_readable(tiny_set):
    tiny_set.write()
    code = f"""
import os, signal
{tiny_set.in_python}
from hiwae_jax.data.binarized_mnist.builder import HiwaeBinarizedMnist

def generate(self, images):
    yield 0, {{"image": images[0]}}
    if len(images) == 4:  # the test split: the other two lie there complete
        os.kill(os.getpid(), signal.SIGKILL)
    yield from ((i, {{"image": image}}) for i, image in enumerate(images[1:], start=1))

HiwaeBinarizedMnist._generate_examples = generate
load()
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tiny_set.manual_dir)
    assert killed.returncode == -signal.SIGKILL
    assert list(tiny_set.data_dir.glob("*/incomplete.*/*train.array_record*"))
    assert_nothing_is_readable(tiny_set)
    assert_is(tiny_set.load(), tiny_set)


def test_a_failed_preparation_leaves_nothing_readable(tiny_set, monkeypatch):
    tiny_set.write()

    def generate(self, images):
        yield 0, {"image": images[0]}
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(HiwaeBinarizedMnist, "_generate_examples", generate)
        with pytest.raises(OSError, match="No space left"):
            tiny_set.load()
    assert_nothing_is_readable(tiny_set)
    assert_is(tiny_set.load(), tiny_set)


def test_another_process_is_first(tiny_set, monkeypatch):
    tiny_set.write()
    prepare = HiwaeBinarizedMnist.download_and_prepare

    def prepare_twice(self, **options):
        prepare(HiwaeBinarizedMnist(data_dir=tiny_set.data_dir), **options)
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(HiwaeBinarizedMnist, "download_and_prepare", prepare_twice)
    assert_is(tiny_set.load(), tiny_set)


def test_raw_files_that_are_not_the_published_ones(tiny_set):
    tiny_set.write()
    path = tiny_set.manual_dir / "binarized_mnist_test.amat"
    text = path.read_bytes()
    for other, message in (
        (text[:3000], f"{path} is truncated, or another file: .* wrong with it: line 2 has 716 values where 784"),
        (text + text, f"{path} is not the original"),
        (text[1568:] + text[:1568], f"{path} has the wrong checksum: .*the same saved anew"),
    ):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=message):
            tiny_set.load()
    path.unlink()
    path.with_name(f"{path.name}.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=f"{path}.gz is a broken gzip file"):
        tiny_set.load()
    assert_nothing_is_readable(tiny_set)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 28), np.uint8), "line 1 has 28 values where 784 were expected"),
        (np.eye(4, 784, dtype=np.uint8) * 7, "line 1 holds the value '7' where 0 or 1"),
    ],
    ids=["shape", "values"],
)
def test_raw_files_of_another_shape_or_other_values(tiny_set, monkeypatch, images, message):
    # Such a file gets that far only if its checksum is the registered one.
    name = "binarized_mnist_test.amat"
    files = {**tiny_set.specification.files, "test": describe(amat(images), name)}
    tiny_set.install(monkeypatch, tiny_set.specification._replace(files=files))
    tiny_set.write()
    (tiny_set.manual_dir / name).write_bytes(amat(images))
    with pytest.raises(ValueError, match=f"{tiny_set.manual_dir / name}: {message}"):
        tiny_set.load()
    assert_nothing_is_readable(tiny_set)


def test_without_manual_dir_the_one_of_tensorflow_datasets_is_looked_at(tiny_set):
    manual_dir = tiny_set.data_dir / "downloads" / "manual"
    with pytest.raises(FileNotFoundError, match=f"not in {manual_dir}, and cannot be downloaded now"):
        load_binarized_mnist(data_dir=tiny_set.data_dir)
    tiny_set.write()
    shutil.move(tiny_set.manual_dir, manual_dir)
    assert_is(load_binarized_mnist(data_dir=tiny_set.data_dir), tiny_set)


def test_without_tensorflow_datasets(tiny_set, monkeypatch):
    tiny_set.write()
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "tensorflow_datasets", None)
        for module in ("binarized_mnist.builder", "raw_file_builder"):
            patched.delitem(sys.modules, f"hiwae_jax.data.{module}", raising=False)
        with pytest.raises(ModuleNotFoundError, match=f"tiny has not been prepared in {tiny_set.data_dir}"):
            tiny_set.load()
    tiny_set.load()
    # What is prepared is read without.
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert_is(tiny_set.load(), tiny_set)


def test_a_raw_directory_that_does_not_exist(tiny_set):
    tiny_set.manual_dir.rmdir()
    with pytest.raises(FileNotFoundError, match=f"directory of raw files does not exist: {tiny_set.manual_dir}"):
        tiny_set.load()


def test_off_line_says_soon_which_files_go_where(tiny_set):
    tiny_set.write()
    (tiny_set.manual_dir / "binarized_mnist_train.amat").unlink()
    (tiny_set.manual_dir / "binarized_mnist_test.amat").unlink()
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as error:
        tiny_set.load()
    assert time.perf_counter() - start < 5
    message = str(error.value)
    assert f"not in {tiny_set.manual_dir}, and cannot be downloaded now (http://127.0.0.1:9/" in message
    assert "manual_dir=..." in message
    for split in ("train", "test"):
        name = f"binarized_mnist_{split}.amat"
        assert f"  {name} or {name}.gz  (" in message
        assert f"from http://127.0.0.1:9/{name})" in message
    assert "binarized_mnist_valid.amat" not in message
    (tiny_set.manual_dir / "binarized_mnist_valid.amat").unlink()
    with pytest.raises(FileNotFoundError, match=f"(?s)not in {tiny_set.manual_dir}, and .*_train.*_valid.*_test"):
        tiny_set.load()
    assert_nothing_is_readable(tiny_set)


@pytest.fixture
def server(tiny_set, monkeypatch):
    """Serves a folder on this machine, and registers its addresses as the original ones."""
    with serve(tiny_set.manual_dir.parent / "served") as (folder, address):
        files = {
            split: describe(tiny_set.texts[file.filename], file.filename, server=address)
            for split, file in tiny_set.specification.files.items()
        }
        infos = {
            file.url: tfds.download.checksums.UrlInfo(file.size, file.sha256, file.filename) for file in files.values()
        }
        monkeypatch.setattr(HiwaeBinarizedMnist, "url_infos", infos)
        tiny_set.install(monkeypatch, tiny_set.specification._replace(files=files))
        yield folder


def test_what_is_not_there_is_downloaded(tiny_set, server, monkeypatch):
    tiny_set.write()
    for split in ("train", "test"):
        name = f"binarized_mnist_{split}.amat"
        shutil.move(tiny_set.manual_dir / name, server / name)
    assert_is(tiny_set.load(), tiny_set)

    # What was downloaded before is not asked for again, on line or off.
    shutil.rmtree(HiwaeBinarizedMnist(data_dir=tiny_set.data_dir).data_path)
    shutil.rmtree(tiny_set.data_dir / "hiwae_jax_packed")
    shutil.rmtree(server)
    assert_is(tiny_set.load(), tiny_set)


def test_a_download_is_verified(tiny_set, server):
    tiny_set.write()
    path = tiny_set.manual_dir / "binarized_mnist_valid.amat"
    (server / path.name).write_bytes(b"<html>moved</html>")
    path.unlink()
    with pytest.raises(NonMatchingChecksumError, match=r"binarized_mnist_valid\.amat.* has wrong checksum"):
        tiny_set.load()
    assert_nothing_is_readable(tiny_set)


def test_builder_reads_the_shipped_checksums():
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
    start = time.perf_counter()
    again = load_binarized_mnist(data_dir=tmp_path)
    assert time.perf_counter() - start < 1
    assert again.checksum == dataset.checksum
    np.testing.assert_array_equal(again.train, dataset.train)
