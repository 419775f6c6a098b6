"""The .amat text format: one image a line, its pixels 0 or 1, one space between them."""

import pathlib

import numpy as np


def parse_amat(content: bytes, *, num_pixels: int, path: pathlib.Path) -> np.ndarray:
    r"""Parses a whole file.

    Args:
        content: the text.
        num_pixels: the number of values P of a line.
        path: where the text comes from, for messages.

    Returns:
        uint8 [N, P] of 0 and 1.

    Raises:
        ValueError: a line has not P values, or values other than 0 and 1; the message names file and line.

    >>> parse_amat(b"0 1 1\n1 0 0\n", num_pixels=3, path=pathlib.Path("tiny.amat"))
    array([[0, 1, 1],
           [1, 0, 0]], dtype=uint8)
    """
    characters = np.frombuffer(content, np.uint8)
    if content and characters.size % (2 * num_pixels) == 0:
        # A well-formed file is a table of characters, which is parsed a hundred times faster than text.
        table = characters.reshape(-1, num_pixels, 2)
        values, separators = table[..., 0] - ord("0"), table[..., 1]
        if (
            np.all(values <= 1)  # unsigned: what is below "0" is large
            and np.all(separators[:, :-1] == ord(" "))
            and np.all(separators[:, -1] == ord("\n"))
        ):
            return values
    raise ValueError(f"{path}: {_first_fault(content, num_pixels)}")


def _first_fault(content: bytes, num_pixels: int) -> str:
    if not content:
        return "the file is empty"
    for number, line in enumerate(content.splitlines(), start=1):
        values = line.split()
        if len(values) != num_pixels:
            return f"line {number} has {len(values)} values where {num_pixels} were expected"
        other = next((value for value in values if value not in (b"0", b"1")), None)
        if other is not None:
            shown = other[:20].decode(errors="replace")
            return f"line {number} holds the value {shown!r} where 0 or 1 was expected"
    return "values must be separated by single spaces, and each line must end with a newline only"
