"""Raw files that are not there: where they are looked for, what is said of them, and their download."""

import shutil
import time

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from hiwae_jax.data import load_binarized_mnist
from hiwae_jax.data.binarized_mnist.builder import HiwaeBinarizedMnist
from tests.data.binarized_mnist.tiny_checks import assert_is, assert_nothing_is_readable
from tests.data.tiny_files import describe, serve


def test_without_manual_dir_the_one_of_tensorflow_datasets_is_looked_at(tiny_set):
    manual_dir = tiny_set.data_dir / "downloads" / "manual"
    with pytest.raises(FileNotFoundError, match=f"not in {manual_dir}, and cannot be downloaded now"):
        load_binarized_mnist(data_dir=tiny_set.data_dir)
    tiny_set.write()
    shutil.move(tiny_set.manual_dir, manual_dir)
    assert_is(load_binarized_mnist(data_dir=tiny_set.data_dir), tiny_set)


def test_a_raw_directory_that_does_not_exist(tiny_set):
    tiny_set.manual_dir.rmdir()
    with pytest.raises(FileNotFoundError, match=f"directory of raw files does not exist: {tiny_set.manual_dir}"):
        tiny_set.load()


def test_off_line_says_without_waiting_which_files_go_where(tiny_set, monkeypatch):
    tiny_set.write()
    (tiny_set.manual_dir / "binarized_mnist_train.amat").unlink()
    (tiny_set.manual_dir / "binarized_mnist_test.amat").unlink()
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits for {seconds} s"))
    with pytest.raises(FileNotFoundError) as error:
        tiny_set.load()
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
