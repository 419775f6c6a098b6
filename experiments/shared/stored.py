"""Files on disk that are used only if they are whole and belong to the run.

An `identity` ties figures to the settings, the data and the version of the format. JSON is read as an object, or
refused with the name of the file. Reading arrays takes no more memory than the file has bytes.
"""

import hashlib
import io
import json
import math
import os
import pathlib
import struct
import tokenize
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

FORMAT = 1  # the version of result.json, checkpoints, evaluated.npz and the fits of the toy
UNREADABLE = (  # the errors that `zipfile` and NumPy raise for a damaged file
    *(OSError, ValueError, TypeError, EOFError, RuntimeError, NotImplementedError),
    *(SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile),
)
ANEW = "delete it, and the same command makes it anew"


class UnusableError(ValueError):
    """A stored file that is damaged or belongs to something else; the message names it and says what to do."""


def identity(*described: Any, arrays: Iterable[Any] = ()) -> str:
    """The sha256 (hex) of what a file belongs to: the format, JSON-like descriptions, and arrays.

    >>> identity({"steps": 1}) == identity({"steps": 2})
    False
    """
    digest = hashlib.sha256(json.dumps([FORMAT, *described], sort_keys=True).encode())
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def load_json(path: pathlib.Path, *, remedy: str = ANEW) -> Any:
    """The content of a JSON file, of any kind.

    Raises:
      UnusableError: it is not readable.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UnusableError(f"{path}: no readable JSON ({error}); {remedy}") from error


def read_json(path: pathlib.Path, *, remedy: str = ANEW) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      UnusableError: there is no readable object.
    """
    content = load_json(path, remedy=remedy)
    if not isinstance(content, dict):
        raise UnusableError(f"{path}: expected a JSON object, got {json.dumps(content)[:40]}; {remedy}")
    return content


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON file that is either whole or not there."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file that is either whole or not there."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays that `write_arrays` wrote: numbers and texts, neither objects nor anything compressed.

    Raises:
      UnusableError: it is no such file, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # Arrays that are not compressed are no larger than the file.
            if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
                raise ValueError("its arrays are compressed")
            return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
    except UNREADABLE as error:
        raise UnusableError(f"{path}: no readable arrays ({error})") from error


def _array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array has another version of its format")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
    # NumPy itself would first allocate the memory for any shape that the header claims.
    size = math.prod(shape)
    if dtype.hasobject or min(shape, default=0) < 0 or size * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"an array of shape {shape} and type {dtype} has {len(content) - file.tell():,} bytes")
    numbers = np.frombuffer(content, dtype, count=size, offset=file.tell())
    return numbers.reshape(shape, order="F" if in_columns else "C")


class Pieces(NamedTuple):
    """The file of an unfinished evaluation: values and errors of the images done so far, [2, images].

    Attributes:
      path: the file.
      belongs_to: the `identity` of settings, data and parameters.
      total: images in all.
    """

    path: pathlib.Path
    belongs_to: str
    total: int

    def read(self) -> tuple[float, np.ndarray]:
        """The seconds and the figures in the file. If it is not what it should be, print why and return no figures."""
        try:
            seconds, found = self._checked(read_arrays(self.path))
        except UnusableError as error:
            print(f"{error}; the evaluation begins anew")
            return 0.0, np.zeros((2, 0))
        return seconds, found

    def _checked(self, content: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
        names = {"belongs_to", "seconds", "found"}
        if set(content) != names or str(content["belongs_to"]) != self.belongs_to:
            raise UnusableError(f"{self.path}: of other settings, data, parameters or of another version")
        seconds, found = content["seconds"], content["found"]
        fits = found.dtype == np.float64 and found.ndim == 2 and len(found) == 2 and found.shape[1] <= self.total
        if not (fits and seconds.shape == () and seconds.dtype == np.float64 and 0.0 <= seconds < math.inf):
            raise UnusableError(f"{self.path}: expected two rows of at most {self.total:,} numbers, and seconds")
        return float(seconds), found

    def write(self, seconds: float, found: np.ndarray) -> None:
        """Replace the file."""
        arrays = {"belongs_to": np.asarray(self.belongs_to), "seconds": np.float64(seconds), "found": found}
        write_arrays(self.path, arrays)
