"""OMNIGLOT in grey: 23,000 / 1,345 / 8,070 images of 28x28, to be binarized dynamically."""

import functools
import pathlib
from typing import TYPE_CHECKING

from hiwae_jax.data import preparation
from hiwae_jax.data.grey import GreyDataset
from hiwae_jax.data.raw_files import RawFile
from hiwae_jax.data.registry import Entry
from hiwae_jax.data.specification import Specification

if TYPE_CHECKING:
    from hiwae_jax.data.raw_file_builder import RawFileBuilder

__all__ = ["REBUILT_SPECIFICATION", "SETS", "SPECIFICATION", "load_omniglot"]

# There is no checksums.tsv, which needs a size and a sha256: of one file only the md5 is known, and the other
# has no address.
SPECIFICATION = Specification(
    name="omniglot",
    version="1.0.0",
    shape=(28, 28),
    files={
        "all": RawFile(
            url="https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat",
            size=None,
            sha256=None,
            filename="chardata.mat",
            md5="21ecaf34373511aa7691cf2e0802aa3d",
            # 32,415 images of 784 pixels as doubles, and 240 doubles an image for the rest of the file.
            largest=8 * 1_024 * 32_415,
        )
    },
    split_sizes=(23_000, 1_345, 8_070),
    checksum=None,
    grey=True,
    mean=0.083,  # of the rebuilt training images
)

REBUILT_SPECIFICATION = SPECIFICATION._replace(
    name="omniglot_rebuilt",
    files={
        "all": RawFile(
            url=None,
            size=19_393_029,
            sha256="a4241c46a2477374d4259b3331dc8a5e45aff7de8635aafc31501d669a990eae",
            filename="chardata_rebuilt.mat",
        )
    },
    checksum="bd971ac07179c81ac988812813d2b46c28f705496114146238928ff0bc723bc1",
)


def load_omniglot(
    *,
    data_dir: str | pathlib.Path | None = None,
    manual_dir: str | pathlib.Path | None = None,
    rebuilt: bool = False,
) -> GreyDataset:
    """Loads OMNIGLOT in grey, 28x28: levels uint8 [23000, 784], [1345, 784] and [8070, 784], strokes bright.

    The 24,345 published training images are put in the order `numpy.random.RandomState(123).permutation(24345)`;
    the first 23,000 are the training set, the last 1,345 the validation set. The test images are the published
    ones in their order. The published values v of 0 to 1 are kept as levels round(255 v), which moves the
    probability of a pixel by 1/510 at most. Pixels run row by row; in the published file they run column by
    column.

    The first call prepares the set with TensorFlow Datasets (about 5 seconds); later calls read one file.

    Args:
        data_dir: directory of prepared sets; that of TensorFlow Datasets by default (the environment's
            TFDS_DATA_DIR, or else ~/tensorflow_datasets).
        manual_dir: directory of the raw file, plain or compressed to `.mat.gz`: `chardata.mat`, which is
            downloaded if it is not there, or `chardata_rebuilt.mat`, which cannot be. Not looked at once the set
            is prepared. By default `data_dir/downloads/manual`.
        rebuilt: False for the original file of Burda et al., which is verified by its md5. True for a
            file that was made from the 105x105 drawings by an inferred recipe (docs/data.md), which is
            verified by its sha256; the set's name is then "omniglot_rebuilt", and a result on it must say so.

    Returns:
        The set, to be binarized with `binarize(key, levels)`. The checksum of the original is found and not
        compared: none is published for the images.

    Raises:
        FileNotFoundError: manual_dir does not exist; or the raw file is missing and cannot be downloaded, and
            the message says where to put it.
        ValueError: the raw file is not the published one (truncated, wrong checksum, format, shape, values or
            polarity, broken gzip), or the prepared set is damaged; the message names it.
        ImportError: the set has to be prepared first, which takes `pip install "hiwae_jax[data]"`.

    Source: Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program
    induction", Science, 2015; at 28x28 Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders",
    ICLR 2016.
    """
    specification, import_builder = (
        (REBUILT_SPECIFICATION, _import_rebuilt_builder) if rebuilt else (SPECIFICATION, _import_builder)
    )
    return GreyDataset(*preparation.load(specification, import_builder, data_dir=data_dir, manual_dir=manual_dir))


SETS = {
    "omniglot": Entry(load_omniglot, "OMNIGLOT", SPECIFICATION.shape),
    "omniglot_rebuilt": Entry(
        functools.partial(load_omniglot, rebuilt=True), "OMNIGLOT 28x28, rebuilt", REBUILT_SPECIFICATION.shape
    ),
}


def _import_builder() -> "type[RawFileBuilder]":
    from hiwae_jax.data.omniglot.builder import HiwaeOmniglot

    return HiwaeOmniglot


def _import_rebuilt_builder() -> "type[RawFileBuilder]":
    from hiwae_jax.data.omniglot.builder import HiwaeOmniglotRebuilt

    return HiwaeOmniglotRebuilt
