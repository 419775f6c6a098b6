"""Caltech 101 Silhouettes: 4,100 / 2,264 / 2,307 binary images of 28x28."""

import pathlib
from typing import TYPE_CHECKING

from hiwae_jax.data import preparation
from hiwae_jax.data.dataset import Dataset
from hiwae_jax.data.raw_files import read_checksums
from hiwae_jax.data.registry import Entry
from hiwae_jax.data.specification import Specification

if TYPE_CHECKING:
    from hiwae_jax.data.raw_file_builder import RawFileBuilder

__all__ = ["SETS", "SPECIFICATION", "load_caltech101_silhouettes"]

SPECIFICATION = Specification(
    name="caltech101_silhouettes",
    version="1.0.0",
    shape=(28, 28),
    files={
        "all": read_checksums(pathlib.Path(__file__).with_name("checksums.tsv"))["caltech101_silhouettes_28_split1.mat"]
    },
    split_sizes=(4_100, 2_264, 2_307),
    checksum="e15dfcfd62381b62c3905962d797392ec42944a62b7dc8208afd5eec3ec64f33",
    mean=0.55,  # of the file, in which the background is 1
)


def load_caltech101_silhouettes(
    *, data_dir: str | pathlib.Path | None = None, manual_dir: str | pathlib.Path | None = None
) -> Dataset:
    """Loads Caltech 101 Silhouettes, 28x28, split 1, packed: uint8 [4100, 98], [2264, 98] and [2307, 98].

    The silhouette is 1 and the background 0, as in most papers that report likelihoods; the published file
    has it the other way round. That is a matter of names only: a model of one becomes a model of the other,
    with equal likelihoods, by exchanging 0 and 1 in what it reads and writes. Pixels run row by row; in the
    published file they run column by column.

    The first call prepares the set with TensorFlow Datasets (a few seconds); later calls read one small file.
    What is returned is always verified, so it is the published set to the last bit. The images are in the
    published order, without their labels: shuffle before training.

    Args:
        data_dir: directory of prepared sets; that of TensorFlow Datasets by default (the environment's
            TFDS_DATA_DIR, or else ~/tensorflow_datasets).
        manual_dir: directory of the raw file `caltech101_silhouettes_28_split1.mat`, plain or compressed to
            `.mat.gz`. If it is not there, it is downloaded. Not looked at once the set is prepared. By default
            `data_dir/downloads/manual`.

    Returns:
        The set, to be unpacked with `unpack_bits(packed, num_pixels=784)`.

    Raises:
        FileNotFoundError: manual_dir does not exist; or the raw file is missing and cannot be downloaded, and
            the message says where to put it.
        ValueError: the raw file is not the published one (truncated, wrong checksum, format, shape, values or
            polarity, broken gzip), or the prepared set is damaged; the message names it.
        ImportError: the set has to be prepared first, which takes `pip install "hiwae_jax[data]"`.

    Source: Marlin, Swersky, Chen and de Freitas, "Inductive principles for restricted Boltzmann machine
    learning", AISTATS 2010.
    """
    return Dataset(*preparation.load(SPECIFICATION, _import_builder, data_dir=data_dir, manual_dir=manual_dir))


SETS = {"caltech101_silhouettes": Entry(load_caltech101_silhouettes, "Caltech101 Silhouettes", SPECIFICATION.shape)}


def _import_builder() -> "type[RawFileBuilder]":
    from hiwae_jax.data.caltech101_silhouettes.builder import HiwaeCaltech101Silhouettes

    return HiwaeCaltech101Silhouettes
