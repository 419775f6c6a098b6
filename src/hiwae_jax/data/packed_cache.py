"""A set's splits, packed if they are binary, in one small .npy file that is read in milliseconds."""

import os
import pathlib
import uuid

import numpy as np

from hiwae_jax.data.dataset import checksum
from hiwae_jax.data.specification import Specification

_NUM_DIGITS = 16


def cache_path(specification: Specification, data_dir: pathlib.Path) -> pathlib.Path:
    """Where the set lies. The name holds the checksum, or `*` for an unknown one: other content, other name."""
    digits = "*" if specification.checksum is None else specification.checksum[:_NUM_DIGITS]
    # Beside the sets of TensorFlow Datasets and not among the files of one: it takes any folder for a set.
    return data_dir / "hiwae_jax_packed" / f"{specification.name}-{specification.version}-{digits}.npy"


def read(specification: Specification, data_dir: pathlib.Path) -> tuple[np.ndarray, str] | None:
    """The images of all splits, uint8 [N, B], and their checksum, or None if the file is absent or damaged."""
    pattern = cache_path(specification, data_dir)
    for path in sorted(pattern.parent.glob(pattern.name)):
        try:
            images = np.load(path)
        except (OSError, ValueError, EOFError):
            continue
        found = checksum(images)
        # Where no checksum is published, the name still says what was written.
        expected = specification.checksum or path.stem[-_NUM_DIGITS:]
        if images.dtype == np.uint8 and found.startswith(expected):
            return images, found
    return None


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
