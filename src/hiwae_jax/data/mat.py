"""Matrices of a MATLAB file, in which images are rows or columns, and their pixels run column by column.

Read here and not with SciPy, which reads outside its memory where a file is damaged, so that the process dies
without a message.
"""

import math
import pathlib
import struct
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from hiwae_jax.data.image_checks import require_shape

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)


def parse_mat(content: bytes, *, shapes: Mapping[str, tuple[int, int]], path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads full real matrices out of a .mat file of MATLAB's versions 5 to 7.

    Args:
        content: the file.
        shapes: the shape of each matrix by its name.
        path: where the content comes from, for messages.

    Returns:
        The matrices by name, in this order, with the type of number that the file stores.

    Raises:
        ValueError: the file is no such file or damaged, or a matrix is missing, not numeric or of another shape;
            the message names it.

    Source: "MAT-File Format", The MathWorks, the chapter on level 5 files.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError(f"{path}: {_no_mat_file(content)}")
    if struct.unpack_from(f"{order}H", content, 124)[0] != 0x100:
        raise ValueError(f"{path}: it is a .mat file of version 7.3: save it from MATLAB with -v7")
    try:
        variables = dict(_variables(memoryview(content)[128:], order, wanted=shapes))
    except (zlib.error, struct.error, ValueError) as error:
        raise ValueError(f"{path}: it is a damaged .mat file: {error}") from error
    for name, shape in shapes.items():
        if name not in variables:
            raise ValueError(f"{path}: it holds no {name!r}, only {sorted(variables)}")
        matrix = variables[name]
        if matrix is None:
            raise ValueError(f"{path}: {name} is no full real matrix of numbers")
        require_shape(matrix.shape, shape, what=name, path=path)
    return {name: matrix for name in shapes if (matrix := variables[name]) is not None}


def upright(rows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Images of height H and width W from rows [N, H * W] in MATLAB's order, column by column: [N, H, W].

    >>> upright(np.array([[1, 4, 2, 5, 3, 6]]), (2, 3))
    array([[[1, 2, 3],
            [4, 5, 6]]])
    """
    height, width = shape
    return rows.reshape(-1, width, height).swapaxes(1, 2)


def _no_mat_file(content: bytes) -> str:
    if not content:
        return "the file is empty"
    if content.startswith(b"\x1f\x8b"):
        return "it is compressed with gzip: give its name the ending .gz"
    return f"it is no .mat file of versions 5 to 7: it starts with {content[:20]!r}"


def _variables(
    data: memoryview, order: str, *, wanted: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, np.ndarray | None]]:
    for kind, payload in _elements(data, order):
        if kind == _COMPRESSED:
            kind, payload = next(_elements(memoryview(zlib.decompress(payload)), order), (0, payload))
        if kind == _MATRIX:
            flags, dimensions, name, *values = _elements(payload, order)
            label = bytes(name[1]).decode("latin-1")
            yield label, _matrix(flags[1], dimensions[1], values, order) if label in wanted else None


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            raise ValueError("it ends within the head of an element")
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start, padding = position + 8, 0 if kind == _COMPRESSED else -size % 8
        if kind >> 16:  # a short one, whose value lies beside its kind and size in one word of eight bytes
            kind, size, start, padding = kind & 0xFFFF, kind >> 16, position + 4, 4 - (kind >> 16)
        if start + size > len(data) or padding < 0:
            raise ValueError(f"an element has {size:,} bytes where {len(data) - start:,} are left")
        yield kind, data[start : start + size]
        position = start + size + padding


def _matrix(
    flags: memoryview, dimensions: memoryview, values: list[tuple[int, memoryview]], order: str
) -> np.ndarray | None:
    (flag,) = struct.unpack_from(f"{order}I", flags)
    if flag & 0xFF not in _NUMERIC_CLASSES or len(values) != 1 or values[0][0] not in _NUMBERS:
        return None
    shape = np.frombuffer(dimensions, f"{order}i4").tolist()
    numbers = np.frombuffer(values[0][1], f"{order}{_NUMBERS[values[0][0]]}")
    if min(shape) < 0 or numbers.size != math.prod(shape):
        raise ValueError(f"a matrix of shape {tuple(shape)} has {numbers.size:,} values")
    return numbers.reshape(shape, order="F")
