"""MNIST, OMNIGLOT and Caltech 101 Silhouettes: from tiny files in their formats to arrays."""

import gzip
import hashlib
import io
import pathlib
import shutil
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from hiwae_jax.data import (
    Dataset,
    GreyDataset,
    caltech101_silhouettes,
    load_caltech101_silhouettes,
    load_mnist,
    load_omniglot,
    mnist,
    omniglot,
    packed_cache,
    unpack_bits,
)
from hiwae_jax.data.caltech101_silhouettes.builder import HiwaeCaltech101Silhouettes
from hiwae_jax.data.dataset import checksum
from hiwae_jax.data.mnist.builder import HiwaeMnist
from hiwae_jax.data.omniglot.builder import HiwaeOmniglot, HiwaeOmniglotRebuilt

from .conftest import NOWHERE, permuted, serve

SIZES = (7, 3, 4)


class Set(NamedTuple):
    """A set of the library: where it is defined, how it is loaded, and tiny files in its format."""

    module: Any
    attribute: str
    builder: type
    load: Callable[..., Dataset | GreyDataset]
    files: Callable[[np.ndarray], dict[str, bytes]]  # from grey images [14, 28, 28]
    order: list[int]  # the images of train, validation and test, one after another


class Installed(NamedTuple):
    """A tiny set that stands in the place of the published one."""

    described: Set
    contents: dict[str, bytes]
    images: np.ndarray  # uint8 [14, 784] in the order of the splits
    data_dir: pathlib.Path
    manual_dir: pathlib.Path

    def load(self):
        return self.described.load(data_dir=self.data_dir, manual_dir=self.manual_dir)

    def write(self, *, compressed=False):
        for name, content in self.contents.items():
            (self.manual_dir / name).unlink(missing_ok=True)
            if compressed:
                (self.manual_dir / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (self.manual_dir / name).write_bytes(content)

    @property
    def specification(self):
        return getattr(self.described.module, self.described.attribute)


def mat(**variables):
    file = io.BytesIO()
    scipy.io.savemat(file, variables)
    return file.getvalue()


def idx(images):
    return struct.pack(">IIII", 2051, len(images), 28, 28) + images.tobytes()


def by_columns(images):
    return np.stack([image.ravel(order="F") for image in images])


def mnist_files(images):
    return {"train-images-idx3-ubyte": idx(images[:10]), "t10k-images-idx3-ubyte": idx(images[10:])}


def omniglot_matrices(images):
    columns = by_columns(images).T / np.float32(255)
    return {"data": columns[:, :10], "testdata": columns[:, 10:]}


def caltech_matrices(images):
    background = by_columns((images < 128).astype(np.uint8))
    return {"train_data": background[:7], "val_data": background[7:10], "test_data": background[10:]}


MNIST = Set(mnist, "SPECIFICATION", HiwaeMnist, load_mnist, mnist_files, list(range(14)))
OMNIGLOT = Set(
    omniglot,
    "SPECIFICATION",
    HiwaeOmniglot,
    load_omniglot,
    lambda images: {"chardata.mat": mat(**omniglot_matrices(images))},
    [*permuted(10), *range(10, 14)],
)
REBUILT = OMNIGLOT._replace(
    attribute="REBUILT_SPECIFICATION",
    builder=HiwaeOmniglotRebuilt,
    load=lambda **directories: load_omniglot(rebuilt=True, **directories),
    files=lambda images: {"chardata_rebuilt.mat": mat(**omniglot_matrices(images))},
)
CALTECH = Set(
    caltech101_silhouettes,
    "SPECIFICATION",
    HiwaeCaltech101Silhouettes,
    load_caltech101_silhouettes,
    lambda images: {"caltech101_silhouettes_28_split1.mat": mat(**caltech_matrices(images))},
    list(range(14)),
)
SETS = {"mnist": MNIST, "omniglot": OMNIGLOT, "omniglot_rebuilt": REBUILT, "caltech101_silhouettes": CALTECH}


def grey_images():
    """Strokes as bright as any on a background of 0, a quarter of the pixels."""
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (14, 28, 28), dtype=np.uint8) * (rng.random((14, 28, 28)) < 0.4)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a tiny set in the place of a published one; its files are not written yet."""

    def install(described):
        images = grey_images()
        contents = described.files(images)
        specification = getattr(described.module, described.attribute)
        rows = images.reshape(14, 784)[described.order]
        if not specification.grey:
            rows = (rows >= 128).astype(np.uint8)
        files = {}
        for part, raw in specification.files.items():
            content = contents[raw.filename]
            raw = raw._replace(url=raw.url and f"{NOWHERE}/{raw.filename}")
            if raw.md5:
                files[part] = raw._replace(md5=hashlib.md5(content).hexdigest())
            else:
                files[part] = raw._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        stored = rows if specification.grey else np.packbits(rows, axis=-1)
        tiny = specification._replace(
            files=files, split_sizes=SIZES, checksum=specification.checksum and checksum(stored)
        )
        monkeypatch.setattr(described.module, described.attribute, tiny)
        monkeypatch.setattr(described.builder, "SPECIFICATION", tiny)
        manual_dir = tmp_path / "raw"
        manual_dir.mkdir(exist_ok=True)
        return Installed(described, contents, rows, tmp_path / "prepared", manual_dir)

    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    return install


def assert_is(dataset, installed):
    grey = installed.specification.grey
    assert type(dataset) is (GreyDataset if grey else Dataset)
    assert [len(split) for split in dataset[:3]] == list(SIZES)
    stored = np.concatenate(dataset[:3])
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored if grey else unpack_bits(stored), installed.images)
    assert dataset.checksum == checksum(*dataset[:3])
    assert dataset.shape == (28, 28)


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


def transposed(matrices):
    return {key: matrix.T for key, matrix in matrices.items()}


CALTECH_FILE, REBUILT_FILE = "caltech101_silhouettes_28_split1.mat", "chardata_rebuilt.mat"


@pytest.mark.parametrize(
    ("described", "name", "make", "message"),
    [
        (MNIST, "train-images-idx3-ubyte", lambda images: idx(images[:9]), r"shape \(9, 28, 28\) where \(10, 28, 28\)"),
        (MNIST, "train-images-idx3-ubyte", lambda images: idx(images[:10])[:-5], "7,835 pixels follow the header"),
        (MNIST, "t10k-images-idx3-ubyte", lambda images: b"<html>", "no idx file of images"),
        (MNIST, "t10k-images-idx3-ubyte", lambda images: struct.pack(">II", 2049, 4) + bytes(4), "it holds labels"),
        (
            MNIST,
            "t10k-images-idx3-ubyte",
            lambda images: idx(255 - images[10:]),
            "looks inverted: mean pixel 0.799, expected about 0.131",
        ),
        (MNIST, "t10k-images-idx3-ubyte", lambda images: idx(images[:4]), "the same saved anew"),
        (OMNIGLOT, "chardata.mat", lambda images: b"text" * 100, "no .mat file"),
        (OMNIGLOT, "chardata.mat", lambda images: mat(**omniglot_matrices(images[::-1])), "the same saved anew"),
        (REBUILT, REBUILT_FILE, lambda images: mat(data=omniglot_matrices(images)["data"]), "holds no 'testdata'"),
        (REBUILT, REBUILT_FILE, lambda images: mat(**transposed(omniglot_matrices(images))), "it looks transposed"),
        (
            REBUILT,
            REBUILT_FILE,
            lambda images: mat(**{key: 255 * matrix for key, matrix in omniglot_matrices(images).items()}),
            r"data holds the value \d+, and [\d,]+ more that are not from 0 to 1",
        ),
        (
            REBUILT,
            REBUILT_FILE,
            lambda images: mat(**{key: 1 - matrix for key, matrix in omniglot_matrices(images).items()}),
            r"data looks inverted: mean pixel 0\.\d+, expected about 0\.083",
        ),
        (CALTECH, CALTECH_FILE, lambda images: mat(**caltech_matrices(images))[:-90], "damaged .mat file"),
        (CALTECH, CALTECH_FILE, lambda images: mat(**transposed(caltech_matrices(images))), "it looks transposed"),
        (
            CALTECH,
            CALTECH_FILE,
            lambda images: mat(**{key: 1 - matrix for key, matrix in caltech_matrices(images).items()}),
            r"train_data looks inverted: mean pixel 0\.\d+, expected about 0\.55",
        ),
        (
            CALTECH,
            CALTECH_FILE,
            lambda images: mat(**{**caltech_matrices(images), "val_data": np.full((3, 784), 0.5)}),
            "val_data holds the value 0.5, and 2,351 more that are not 0 or 1",
        ),
    ],
)
def test_other_files_are_diagnosed(described, name, make, message, install):
    installed = install(described)
    installed.write()
    (installed.manual_dir / name).write_bytes(make(grey_images()))
    not_published = r"(is truncated, or another file|is not the original|has the wrong checksum): "
    with pytest.raises(ValueError, match=f"^{installed.manual_dir / name} {not_published}.*{message}"):
        installed.load()
    assert not list(installed.data_dir.glob("hiwae_jax_packed/*"))
    assert not described.builder(data_dir=installed.data_dir).data_path.exists()


def test_missing_files_say_what_is_known_of_them(install):
    for described, message in (
        (MNIST, rf"train-images-idx3-ubyte or .*\.gz  \(7,856 bytes uncompressed, from {NOWHERE}/"),
        (OMNIGLOT, rf"chardata.mat or chardata.mat.gz  \(md5 \w{{32}} uncompressed, from {NOWHERE}/"),
        (REBUILT, r"\(chardata_rebuilt.mat has no address\).*bytes uncompressed, to be had from no address"),
    ):
        with pytest.raises(FileNotFoundError, match=f"(?s){message}"):
            install(described).load()


def test_compressed_downloads(install, tmp_path, monkeypatch):
    installed = install(MNIST)
    with serve(tmp_path / "served") as (folder, address):
        files, infos = {}, {}
        for part, raw in installed.specification.files.items():
            download = gzip.compress(installed.contents[raw.filename])
            (folder / f"{raw.filename}.gz").write_bytes(download)
            sha256 = hashlib.sha256(download).hexdigest()
            files[part] = raw._replace(url=f"{address}/{raw.filename}.gz", download_sha256=sha256)
            infos[files[part].url] = tfds.download.checksums.UrlInfo(len(download), sha256, f"{raw.filename}.gz")
        specification = installed.specification._replace(files=files)
        monkeypatch.setattr(mnist, "SPECIFICATION", specification)
        monkeypatch.setattr(HiwaeMnist, "SPECIFICATION", specification)
        monkeypatch.setattr(HiwaeMnist, "url_infos", infos)
        assert_is(installed.load(), installed)
    # What was downloaded is found again, off line as well.
    shutil.rmtree(installed.data_dir / "hiwae_mnist")
    shutil.rmtree(installed.data_dir / "hiwae_jax_packed")
    assert_is(installed.load(), installed)


@pytest.mark.parametrize("good", [True, False], ids=["the file", "another"])
def test_a_download_known_by_its_md5(good, install, tmp_path, monkeypatch):
    installed = install(OMNIGLOT)
    with serve(tmp_path / "served") as (folder, address):
        content = installed.contents["chardata.mat"] if good else b"<html>moved</html>"
        (folder / "chardata.mat").write_bytes(content)
        raw = installed.specification.files["all"]._replace(url=f"{address}/chardata.mat")
        specification = installed.specification._replace(files={"all": raw})
        monkeypatch.setattr(omniglot, "SPECIFICATION", specification)
        monkeypatch.setattr(HiwaeOmniglot, "SPECIFICATION", specification)
        if good:
            assert_is(installed.load(), installed)
        else:
            with pytest.raises(ValueError, match=r"wrong checksum: md5 .* starts with b'<html>moved"):
                installed.load()


def test_shipped_checksums_are_those_of_the_downloads():
    for builder in (HiwaeMnist, HiwaeCaltech101Silhouettes):
        registered = {url: info.checksum for url, info in builder.url_infos.items()}
        files = builder.SPECIFICATION.files.values()
        assert registered == {raw.url: raw.download_sha256 or raw.sha256 for raw in files}
        # As TensorFlow Datasets finds local files by name, the names are those of the downloads.
        assert all(url.endswith(f"/{info.filename}") for url, info in builder.url_infos.items())
    assert HiwaeOmniglot.url_infos is None
