"""A set's packed splits in one small .npy file, read in milliseconds."""

import os
import pathlib
import uuid

import numpy as np

from hiwae_jax.data.dataset import checksum
from hiwae_jax.data.specification import Specification


def cache_path(specification: Specification, data_dir: pathlib.Path) -> pathlib.Path:
    """Where the packed set lies. The name holds the checksum, so another content has another name."""
    name = f"{specification.name}-{specification.version}-{specification.checksum[:16]}.npy"
    # Beside the sets of TensorFlow Datasets and not among the files of one: it takes any folder for a set.
    return data_dir / "hiwae_jax_packed" / name


def read(path: pathlib.Path, specification: Specification) -> np.ndarray | None:
    """The packed images of all splits, uint8 [N, B], or None if the file is absent or damaged."""
    try:
        packed = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    return packed if packed.dtype == np.uint8 and checksum(packed) == specification.checksum else None


def write(path: pathlib.Path, packed: np.ndarray) -> None:
    """Writes the file whole or not at all, also if several processes write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("wb") as file:
            np.save(file, packed)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
