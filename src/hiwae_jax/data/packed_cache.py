"""A set's splits, packed if they are binary, in one small .npy file that is read in milliseconds."""

import math
import os
import pathlib
import re
import uuid

import numpy as np

from hiwae_jax.data.dataset import checksum
from hiwae_jax.data.specification import Specification

_NUM_DIGITS = 16
# The header of the two-dimensional uint8 arrays that `write` saves. NumPy's reader evaluates a header as Python, and
# takes memory for any shape that it claims. So it is given only files whose header matches this.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)"
    rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \((?P<rows>[0-9]{1,10}), (?P<columns>[0-9]{1,10})\), \} *\n",
    re.DOTALL,
)


def cache_path(specification: Specification, data_dir: pathlib.Path) -> pathlib.Path:
    """The path of the set. Its name holds the checksum, or `*` for an unknown one: other content has another name."""
    digits = "*" if specification.checksum is None else specification.checksum[:_NUM_DIGITS]
    # This folder lies beside the sets of TensorFlow Datasets, and not among the files of one of them.
    return data_dir / "hiwae_jax_packed" / f"{specification.name}-{specification.version}-{digits}.npy"


def read(specification: Specification, data_dir: pathlib.Path) -> tuple[np.ndarray, str] | None:
    """The images of all splits, uint8 [N, B], and their checksum, or None if the file is absent or damaged."""
    pattern = cache_path(specification, data_dir)
    for path in sorted(pattern.parent.glob(pattern.name)):
        try:
            if not _is_array(path, array_shape(specification)):
                continue
            images = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        found = checksum(images)
        # Where no checksum is published, the name still says what was written.
        expected = specification.checksum or path.stem[-_NUM_DIGITS:]
        if found.startswith(expected):
            return images, found
    return None


def array_shape(specification: Specification) -> tuple[int, int]:
    """The number of images N of all splits, and of bytes B of one."""
    num_pixels = math.prod(specification.shape)
    return sum(specification.split_sizes), num_pixels if specification.grey else -(-num_pixels // 8)


def _is_array(path: pathlib.Path, shape: tuple[int, int]) -> bool:
    """Whether the file's header and size are those of a uint8 array of this shape."""
    with path.open("rb") as file:
        header = _HEADER.match(file.read(1_024))
    if header is None:
        return False
    start = 10 + int.from_bytes(header["length"], "little")
    found = int(header["rows"]), int(header["columns"])
    return header.end() == start and found == shape and path.stat().st_size == start + math.prod(shape)


def write(path: pathlib.Path, images: np.ndarray) -> None:
    """Writes the file whole or not at all, also if several processes write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("wb") as file:
            np.save(file, images)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
