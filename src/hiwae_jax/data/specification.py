"""What identifies a published set: its files, and the checksum of what must come out of them."""

from collections.abc import Mapping
from typing import NamedTuple

from hiwae_jax.data.raw_files import RawFile


class Specification(NamedTuple):
    """A set as it was published.

    Attributes:
        name: for files and tables.
        version: the version of the prepared form.
        shape: height and width of an image.
        files: the raw file of each split.
        split_sizes: the numbers of images of train, validation and test.
        checksum: sha256 of the packed splits, as in `Dataset.checksum`. Whatever way the data took, from
            text, records or cache, it is this or it is refused.
    """

    name: str
    version: str
    shape: tuple[int, int]
    files: Mapping[str, RawFile]
    split_sizes: tuple[int, int, int]
    checksum: str
