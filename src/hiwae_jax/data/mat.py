"""Reading of matrices from a MATLAB file, in which images are rows or columns and pixels run column by column.

Read here and not with SciPy, which reads outside its memory where a file is damaged, so that the process dies
without a message.
"""

import itertools
import math
import pathlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from hiwae_jax.data.image_checks import require_shape

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)
_HEAD_BYTES = 4_096  # flags, dimensions and name of a matrix take less than this


class _Variable(NamedTuple):
    """A matrix: its shape, and its numbers column by column, None where they are too many for the shape."""

    shape: tuple[int, ...]
    numbers: np.ndarray | None


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
    matrices = {}
    for name, shape in shapes.items():
        if name not in variables:
            raise ValueError(f"{path}: it holds no {name!r}, only {sorted(variables)}")
        variable = variables[name]
        if variable is None:
            raise ValueError(f"{path}: {name} is no full real matrix of numbers")
        require_shape(variable.shape, shape, what=name, path=path)
        if variable.numbers is None:
            raise ValueError(f"{path}: {name} holds more bytes than a matrix of shape {shape} has room for")
        matrices[name] = variable.numbers.reshape(shape, order="F")
    return matrices


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
) -> Iterator[tuple[str, _Variable | None]]:
    for kind, payload in _elements(data, order):
        if kind == _COMPRESSED:
            expanded = _expanded(payload, order, wanted)
            if expanded is not None:
                yield expanded
        elif kind == _MATRIX:
            parts = _elements(payload, order)
            label, (flags, dimensions) = _head(parts)
            yield label, _variable(flags, dimensions, list(parts), order) if label in wanted else None


def _expanded(
    payload: memoryview, order: str, wanted: Mapping[str, tuple[int, int]]
) -> tuple[str, _Variable | None] | None:
    """The variable in a compressed element, or None if that is something else.

    Of one that is not wanted only the head is decompressed, and of a wanted one no more than its shape has room for: a
    few bytes can stand for more than any memory holds.
    """
    expander = zlib.decompressobj()
    start = expander.decompress(payload, _HEAD_BYTES)
    if len(start) < 8:
        return None
    kind, size = struct.unpack_from(f"{order}II", start)
    if kind != _MATRIX:
        return None
    label, (flags, dimensions) = _head(_elements(memoryview(start)[8:], order))
    if label not in wanted:
        return label, None
    shape = _shape(dimensions, order)
    if shape != wanted[label] or size > _HEAD_BYTES + 8 * math.prod(shape):
        return label, _Variable(shape, None)
    # One byte more is asked for than there should be, so that zlib reads on to its checksum.
    rest = expander.decompress(expander.unconsumed_tail, max(1, size + 9 - len(start)))
    ((_, matrix),) = itertools.islice(_elements(memoryview(start + rest), order), 1)
    parts = _elements(matrix, order)
    _head(parts)
    return label, _variable(flags, dimensions, list(parts), order)


def _head(parts: Iterator[tuple[int, memoryview]]) -> tuple[str, tuple[memoryview, memoryview]]:
    """Name, flags and dimensions, which are the first three elements of a matrix."""
    first = [value for _, value in itertools.islice(parts, 3)]
    if len(first) < 3:
        raise ValueError("a matrix lacks flags, dimensions or name")
    flags, dimensions, name = first
    return bytes(name).decode("latin-1"), (flags, dimensions)


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            raise ValueError("it ends within the head of an element")
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start, padding = position + 8, 0 if kind == _COMPRESSED else -size % 8
        if kind >> 16:  # a short element: kind, size and value lie in one word of eight bytes
            kind, size, start, padding = kind & 0xFFFF, kind >> 16, position + 4, 4 - (kind >> 16)
        if start + size > len(data) or padding < 0:
            raise ValueError(f"an element has {size:,} bytes where {len(data) - start:,} are left")
        yield kind, data[start : start + size]
        position = start + size + padding


def _shape(dimensions: memoryview, order: str) -> tuple[int, ...]:
    return tuple(np.frombuffer(dimensions, f"{order}i4").tolist())


def _variable(
    flags: memoryview, dimensions: memoryview, values: list[tuple[int, memoryview]], order: str
) -> _Variable | None:
    """The matrix, or None if it is not a full real matrix of numbers."""
    (flag,) = struct.unpack_from(f"{order}I", flags)
    if flag & 0xFF not in _NUMERIC_CLASSES or len(values) != 1 or values[0][0] not in _NUMBERS:
        return None
    shape = _shape(dimensions, order)
    numbers = np.frombuffer(values[0][1], f"{order}{_NUMBERS[values[0][0]]}")
    if len(shape) < 2 or min(shape) < 0 or numbers.size != math.prod(shape):
        raise ValueError(f"a matrix of shape {shape} has {numbers.size:,} values")
    return _Variable(shape, numbers)
