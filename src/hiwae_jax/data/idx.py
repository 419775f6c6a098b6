"""The idx format of MNIST's files: a magic number, the length of each axis, then bytes in C order."""

import math
import pathlib

import numpy as np

from hiwae_jax.data.image_checks import require_shape

_IMAGES, _LABELS = 0x803, 0x801  # the numbers for unsigned bytes in three axes, and in one axis


def parse_idx(content: bytes, *, shape: tuple[int, int, int], path: pathlib.Path) -> np.ndarray:
    """Parses a whole file of images.

    Args:
        content: the file, uncompressed.
        shape: the number of images N, their height H and width W.
        path: where the content comes from, for messages.

    Returns:
        uint8 [N, H, W].

    Raises:
        ValueError: the file is no idx file of images, holds another number of bytes than it says, or images
            of another shape; the message names it.

    >>> content = bytes.fromhex("00000803 00000001 00000001 00000002 00ff")
    >>> parse_idx(content, shape=(1, 1, 2), path=pathlib.Path("tiny-idx3-ubyte"))
    array([[[  0, 255]]], dtype=uint8)
    """
    header, pixels = content[:16], np.frombuffer(content, np.uint8)[16:]
    magic, *lengths = np.frombuffer(header[: len(header) // 4 * 4], ">u4").tolist() or [None]
    if magic != _IMAGES or len(lengths) < 3:
        raise ValueError(f"{path}: {_fault_of_header(magic, content)}")
    require_shape(tuple(lengths), shape, what="the array of images", path=path)
    if pixels.size != math.prod(shape):
        raise ValueError(f"{path}: {pixels.size:,} pixels follow the header where {math.prod(shape):,} were expected")
    return pixels.reshape(shape)


def _fault_of_header(magic: int | None, content: bytes) -> str:
    if not content:
        return "the file is empty"
    if content.startswith(b"\x1f\x8b"):
        return "it is compressed with gzip: give its name the ending .gz"
    if magic == _LABELS:
        return f"it holds labels (magic number {_LABELS}) where images (magic number {_IMAGES}) were expected"
    if magic == _IMAGES:
        return "it ends within its header"
    return f"it is no idx file of images: it starts with {content[:4]!r} where the magic number {_IMAGES} was expected"
