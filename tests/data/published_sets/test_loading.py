"""MNIST, OMNIGLOT and Caltech 101 Silhouettes: from tiny files in their formats to arrays."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from hiwae_jax.data import omniglot, packed_cache
from hiwae_jax.data.caltech101_silhouettes.builder import HiwaeCaltech101Silhouettes
from hiwae_jax.data.mnist.builder import HiwaeMnist
from hiwae_jax.data.omniglot.builder import HiwaeOmniglot

from .conftest import MNIST, OMNIGLOT, SETS, assert_is


@pytest.mark.parametrize("name", SETS)
def test_prepares_once_and_then_reads_the_cache(name, install, monkeypatch):
    installed = install(SETS[name])
    installed.write(compressed=name != "mnist")
    dataset = installed.load()
    assert_is(dataset, installed)
    assert dataset.name == name

    builder = tfds.builder(f"hiwae_{name}", data_dir=installed.data_dir)
    records = [record["image"] for split in ("train", "validation", "test") for record in builder.as_data_source(split)]
    np.testing.assert_array_equal(np.reshape(records, (14, 784)), installed.images)

    shutil.rmtree(installed.manual_dir)
    monkeypatch.setattr(installed.described.builder, "parse", None)
    assert_is(installed.load(), installed)
    assert len(list(installed.data_dir.glob("hiwae_jax_packed/*"))) == 1


def test_a_recompressed_file_is_the_published_one(install):
    installed = install(MNIST)
    installed.write(compressed=True)
    assert_is(installed.load(), installed)


def test_a_cache_without_a_published_checksum_is_verified_too(install):
    installed = install(OMNIGLOT)
    installed.write()
    dataset = installed.load()
    (path,) = installed.data_dir.glob("hiwae_jax_packed/*")
    assert path.name == f"omniglot-1.0.0-{dataset.checksum[:16]}.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert packed_cache.read(installed.specification, installed.data_dir) is None
    assert_is(installed.load(), installed)
    assert path.read_bytes() == content


def test_a_prepared_set_without_a_published_checksum_has_the_right_sizes(install, monkeypatch):
    installed = install(OMNIGLOT)
    installed.write()
    installed.load()
    shutil.rmtree(installed.data_dir / "hiwae_jax_packed")
    monkeypatch.setattr(omniglot, "SPECIFICATION", installed.specification._replace(split_sizes=(8, 2, 4)))
    with pytest.raises(ValueError, match=r"damaged: \(7, 3, 4\) images where \(8, 2, 4\) were expected. Delete"):
        installed.load()


def test_the_builders_register_the_files_of_the_specifications():
    for builder in (HiwaeMnist, HiwaeCaltech101Silhouettes):
        registered = {url: info.checksum for url, info in builder.url_infos.items()}
        files = builder.SPECIFICATION.files.values()
        assert registered == {raw.url: raw.download_sha256 or raw.sha256 for raw in files}
        # As TensorFlow Datasets finds local files by name, the names are those of the downloads.
        assert all(url.endswith(f"/{info.filename}") for url, info in builder.url_infos.items())
    assert HiwaeOmniglot.url_infos is None
