"""MNIST in grey: 50,000 / 10,000 / 10,000 images of 28x28, to be binarized dynamically."""

import pathlib
from typing import TYPE_CHECKING

from hiwae_jax.data import preparation
from hiwae_jax.data.grey import GreyDataset
from hiwae_jax.data.raw_files import gunzipped, read_checksums
from hiwae_jax.data.registry import Entry
from hiwae_jax.data.specification import Specification

if TYPE_CHECKING:
    from hiwae_jax.data.raw_file_builder import RawFileBuilder

__all__ = ["SETS", "SPECIFICATION", "load_mnist"]

_PUBLISHED = read_checksums(pathlib.Path(__file__).with_name("checksums.tsv"))

SPECIFICATION = Specification(
    name="mnist",
    version="1.0.0",
    shape=(28, 28),
    files={
        "train": gunzipped(
            _PUBLISHED["train-images-idx3-ubyte.gz"],
            size=47_040_016,
            sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        "test": gunzipped(
            _PUBLISHED["t10k-images-idx3-ubyte.gz"],
            size=7_840_016,
            sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
    },
    split_sizes=(50_000, 10_000, 10_000),
    checksum="5b92582eb909c82a9bfefcd44acbe9233be3eb5b419a44cf211022ad2bf4bf96",
    grey=True,
    mean=0.131,  # 0.133 in the test images
)


def load_mnist(
    *, data_dir: str | pathlib.Path | None = None, manual_dir: str | pathlib.Path | None = None
) -> GreyDataset:
    """Loads MNIST in grey, 28x28: levels uint8 [50000, 784], [10000, 784] and [10000, 784], strokes bright.

    The first 50,000 images of the published training file are the training set, its last 10,000 the
    validation set. The first call prepares the set with TensorFlow Datasets (about 10 seconds); later calls
    read one file. What is returned is always verified, so it is the published set to the last bit. The images
    are in the published order, without their labels: shuffle before training.

    Args:
        data_dir: directory of prepared sets; that of TensorFlow Datasets by default (the environment's
            TFDS_DATA_DIR, or else ~/tensorflow_datasets).
        manual_dir: directory of the raw files `train-images-idx3-ubyte` and `t10k-images-idx3-ubyte`, each
            plain or, as they are published, compressed to `.gz`. What is not there is downloaded. Not looked
            at once the set is prepared. By default `data_dir/downloads/manual`.

    Returns:
        The set, to be binarized with `binarize(key, levels)`.

    Raises:
        FileNotFoundError: manual_dir does not exist; or raw files are missing and cannot be downloaded, and
            the message says which files to put where.
        ValueError: a raw file is not the published one (truncated, wrong checksum, format, shape or values,
            broken gzip), or the prepared set is damaged; the message names it.
        ImportError: the set has to be prepared first, which takes `pip install "hiwae_jax[data]"`.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE, 1998.
    """
    return GreyDataset(*preparation.load(SPECIFICATION, _import_builder, data_dir=data_dir, manual_dir=manual_dir))


SETS = {"mnist": Entry(load_mnist, "MNIST, dynamically binarized", SPECIFICATION.shape)}


def _import_builder() -> "type[RawFileBuilder]":
    from hiwae_jax.data.mnist.builder import HiwaeMnist

    return HiwaeMnist
