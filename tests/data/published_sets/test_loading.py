"""MNIST, OMNIGLOT and Caltech 101 Silhouettes: from tiny files in their formats to arrays."""

import shutil

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from hiwae_jax.data import binarize, omniglot, packed_cache
from hiwae_jax.data.caltech101_silhouettes.builder import HiwaeCaltech101Silhouettes
from hiwae_jax.data.mnist.builder import HiwaeMnist
from hiwae_jax.data.omniglot.builder import HiwaeOmniglot
from tests.data.published_sets.tiny_sets import MNIST, OMNIGLOT, SETS, assert_is, mat, omniglot_matrices


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


def test_fractions_of_a_grey_level_are_rounded_and_drawn_with_the_rounded_probability(install, tmp_path):
    """The published pixels are floats of 0 to 1, few of them a whole number of 255ths."""
    values = {}

    def files(images):
        # Anywhere within half a level of the images, but not outside of 0 to 1.
        shift = np.random.default_rng(6).uniform(-0.499, 0.499, images.shape)
        fractional = np.clip(images + shift, 0.0, 255.0)
        values.update({key: np.float64(matrix) for key, matrix in omniglot_matrices(fractional).items()})
        return {"chardata.mat": mat(**values)}

    installed = install(OMNIGLOT._replace(files=files))
    builder = OMNIGLOT.builder(data_dir=tmp_path)
    splits = builder.parse("all", installed.contents["chardata.mat"], tmp_path / "chardata.mat")
    levels = np.concatenate([splits[split] for split in ("train", "validation", "test")])
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels.reshape(14, 784), installed.images)
    # The test images keep their order; the published ones run column by column.
    published = values["testdata"].T.reshape(4, 28, 28).swapaxes(1, 2)
    assert np.max(np.abs(levels[10:] / 255 - published)) <= 0.5 / 255
    is_grey = (published > 0.2) & (published < 0.8)
    assert np.sum(is_grey) > 500

    # Drawn afresh by each key, with the probability that the file has.
    keys = jax.random.split(jax.random.key(0), 400)
    test = levels[10:].reshape(4, 784)
    drawn = np.asarray(jax.vmap(lambda key: binarize(key, test))(keys)).reshape(400, 4, 28, 28)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert np.any(drawn[0] != drawn[1])
    variance = published * (1 - published) / 400
    z = (drawn.mean(axis=0) - published)[is_grey] / np.sqrt(variance[is_grey])
    assert abs(np.mean(z)) * np.sqrt(z.size) < 4.0
    assert 0.9 < np.mean(z**2) < 1.1


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
