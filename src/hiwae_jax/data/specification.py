"""The specification of a published set: its files, and the checksum of the images that they hold."""

from collections.abc import Mapping
from typing import NamedTuple

from hiwae_jax.data.raw_files import RawFile

SPLITS = ("train", "validation", "test")


class Specification(NamedTuple):
    """A set as it was published.

    Attributes:
        name: for files and tables.
        version: the version of the prepared form.
        shape: height and width of an image.
        files: the raw files, each under the name by which the builder's `parse` knows it.
        split_sizes: the numbers of images of train, validation and test.
        checksum: sha256 of the splits, as in `Dataset.checksum`. Whatever way the data took, from raw files,
            records or cache, it is this or it is refused. None if it is unknown, because the raw files are
            known by another checksum only.
        grey: whether a pixel is a level of 0 to 255, kept in one byte, and not a bit.
        mean: of the pixels of the raw training images, 0 to 1. By it a file with black and white exchanged is
            recognised: its mean is closer to `1 - mean`. None if it is not known; then nothing is checked.
    """

    name: str
    version: str
    shape: tuple[int, int]
    files: Mapping[str, RawFile]
    split_sizes: tuple[int, int, int]
    checksum: str | None
    grey: bool = False
    mean: float | None = None
