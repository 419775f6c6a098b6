"""Binarized MNIST: 50,000 / 10,000 / 10,000 images of 28x28 in one fixed binarization."""

import pathlib
from typing import TYPE_CHECKING

from hiwae_jax.data import preparation
from hiwae_jax.data.dataset import Dataset
from hiwae_jax.data.raw_files import read_checksums
from hiwae_jax.data.registry import Entry
from hiwae_jax.data.specification import Specification

if TYPE_CHECKING:
    from hiwae_jax.data.raw_file_builder import RawFileBuilder

__all__ = ["SETS", "SPECIFICATION", "load_binarized_mnist"]

_RAW_FILES = read_checksums(pathlib.Path(__file__).with_name("checksums.tsv"))

SPECIFICATION = Specification(
    name="binarized_mnist",
    version="1.0.0",
    shape=(28, 28),
    files={
        "train": _RAW_FILES["binarized_mnist_train.amat"],
        "validation": _RAW_FILES["binarized_mnist_valid.amat"],
        "test": _RAW_FILES["binarized_mnist_test.amat"],
    },
    split_sizes=(50_000, 10_000, 10_000),
    checksum="c462f82a020638a4d5d8d44e4c83242ee0145ee1d125869d0e030c35011837e6",
)


def load_binarized_mnist(
    *, data_dir: str | pathlib.Path | None = None, manual_dir: str | pathlib.Path | None = None
) -> Dataset:
    """Loads MNIST in its fixed binarization, 28x28, packed: uint8 [50000, 98], [10000, 98] and [10000, 98].

    The first call prepares the set with TensorFlow Datasets (about 15 seconds); later calls read one small
    file. What is returned is always verified, so it is the published set to the last bit. The images are in
    the published order and have no labels: shuffle before training.

    Args:
        data_dir: directory of prepared sets; that of TensorFlow Datasets by default (the environment's
            TFDS_DATA_DIR, or else ~/tensorflow_datasets).
        manual_dir: directory of the raw files `binarized_mnist_train.amat`, `binarized_mnist_valid.amat` and
            `binarized_mnist_test.amat`, each plain or compressed to `.amat.gz`. What is not there
            is downloaded. Not looked at once the set is prepared. By default `data_dir/downloads/manual`.

    Returns:
        The set, to be unpacked with `unpack_bits(packed, num_pixels=784)`.

    Raises:
        FileNotFoundError: manual_dir does not exist; or raw files are missing and cannot be downloaded, and
            the message says which files to put where.
        ValueError: a raw file is not the published one (truncated, wrong checksum, shape or values, broken
            gzip), or the prepared set is damaged; the message names it.
        ImportError: the set has to be prepared first, which takes `pip install "hiwae_jax[data]"`.

    Source: Larochelle and Murray, "The neural autoregressive distribution estimator", AISTATS 2011; the
    binarization is that of Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks",
    ICML 2008.
    """
    return Dataset(*preparation.load(SPECIFICATION, _import_builder, data_dir=data_dir, manual_dir=manual_dir))


SETS = {"binarized_mnist": Entry(load_binarized_mnist, "MNIST", SPECIFICATION.shape)}


def _import_builder() -> "type[RawFileBuilder]":
    from hiwae_jax.data.binarized_mnist.builder import HiwaeBinarizedMnist

    return HiwaeBinarizedMnist
