"""MNIST, OMNIGLOT and Caltech 101 Silhouettes: tiny files in their formats, in the place of the published ones."""

import gzip
import io
import pathlib
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.io

from hiwae_jax.data import (
    Dataset,
    GreyDataset,
    caltech101_silhouettes,
    load_caltech101_silhouettes,
    load_mnist,
    load_omniglot,
    mnist,
    omniglot,
    unpack_bits,
)
from hiwae_jax.data.caltech101_silhouettes.builder import HiwaeCaltech101Silhouettes
from hiwae_jax.data.dataset import checksum
from hiwae_jax.data.mnist.builder import HiwaeMnist
from hiwae_jax.data.omniglot.builder import HiwaeOmniglot, HiwaeOmniglotRebuilt
from tests.data.tiny_files import permuted

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
        """Loads it with the public function."""
        return self.described.load(data_dir=self.data_dir, manual_dir=self.manual_dir)

    def write(self, *, compressed=False):
        """Puts the raw files into manual_dir."""
        for name, content in self.contents.items():
            (self.manual_dir / name).unlink(missing_ok=True)
            if compressed:
                (self.manual_dir / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (self.manual_dir / name).write_bytes(content)

    @property
    def specification(self):
        """What the library takes for that of the published set."""
        return getattr(self.described.module, self.described.attribute)


def mat(**variables):
    """The content of a .mat file."""
    file = io.BytesIO()
    scipy.io.savemat(file, variables)
    return file.getvalue()


def idx(images):
    """The content of an idx file."""
    return struct.pack(">IIII", 2051, len(images), 28, 28) + images.tobytes()


def by_columns(images):
    """Images [N, 784] in the order of Matlab."""
    return np.stack([image.ravel(order="F") for image in images])


def mnist_files(images):
    """The idx files of MNIST; train and validation share one."""
    return {"train-images-idx3-ubyte": idx(images[:10]), "t10k-images-idx3-ubyte": idx(images[10:])}


def omniglot_matrices(images):
    """The variables of chardata.mat: floats, a column for each image."""
    columns = by_columns(images).T / np.float32(255)
    return {"data": columns[:, :10], "testdata": columns[:, 10:]}


def caltech_matrices(images):
    """The variables of the silhouettes: ones are background."""
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


def assert_is(dataset, installed):
    """The images of the tiny set, whole and in their order."""
    grey = installed.specification.grey
    assert type(dataset) is (GreyDataset if grey else Dataset)
    assert [len(split) for split in dataset[:3]] == list(SIZES)
    stored = np.concatenate(dataset[:3])
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored if grey else unpack_bits(stored), installed.images)
    assert dataset.checksum == checksum(*dataset[:3])
    assert dataset.shape == (28, 28)
