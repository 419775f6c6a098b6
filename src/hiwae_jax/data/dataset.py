"""A set of binary images in memory, and the packing of its pixels into bits."""

import hashlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


class Dataset(NamedTuple):
    """Three splits of binary images, each one array of packed bits (see `pack_bits`).

    `prod(shape)` is the number of pixels P, and B = ceil(P / 8) the number of bytes of one image.

    Attributes:
        train: uint8 [N_train, B].
        validation: uint8 [N_validation, B].
        test: uint8 [N_test, B].
        shape: height and width of an image; pixels run row by row.
        name: the set's name, for file names and tables.
        checksum: sha256 (hex) over the bytes of train, validation and test in this order. Put it into result
            files: equal checksums mean equal data.
    """

    train: UInt8[np.ndarray, "train bytes"]
    validation: UInt8[np.ndarray, "validation bytes"]
    test: UInt8[np.ndarray, "test bytes"]
    shape: tuple[int, int]
    name: str
    checksum: str


def checksum(*arrays: np.ndarray) -> str:
    """The sha256 (hex) over the bytes of the arrays, in C order, one after another.

    >>> checksum(np.zeros(0, np.uint8))[:12]
    'e3b0c44298fc'
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def pack_bits(images: np.ndarray) -> UInt8[np.ndarray, "... bytes"]:
    """Packs pixels of 0 and 1, eight to a byte, as `numpy.packbits` does: the first pixel is the highest bit.

    Args:
        images: any dtype [..., P], each value 0 or 1.

    Returns:
        uint8 [..., ceil(P / 8)]; what is left of the last byte is 0.

    Raises:
        ValueError: a value is neither 0 nor 1.

    >>> pack_bits(np.array([[1, 0, 0, 0, 0, 0, 1, 1, 1]]))
    array([[131, 128]], dtype=uint8)
    """
    ones = images == 1
    if not np.all(ones | (images == 0)):
        raise ValueError("pack_bits takes values 0 and 1 only: binarize the images first")
    return np.packbits(ones, axis=-1)


def unpack_bits(packed: UInt8[Array | np.ndarray, "... bytes"], *, num_pixels: int = 784) -> Float[Array, "... pixels"]:
    """Undoes `pack_bits` on the device, under `jit` and `vmap` as well.

    A batch travels to the accelerator packed, 32 times smaller than as float32, and is unpacked there.

    Args:
        packed: uint8 [..., ceil(num_pixels / 8)].
        num_pixels: the number of pixels P of an image, `prod(dataset.shape)`.

    Returns:
        float32 [..., P] of 0 and 1.

    Raises:
        ValueError: packed is not uint8, or its last axis does not hold num_pixels bits.

    >>> unpack_bits(np.array([[131, 128]], np.uint8), num_pixels=9)
    Array([[1., 0., 0., 0., 0., 0., 1., 1., 1.]], dtype=float32)
    """
    num_bytes = -(-num_pixels // 8)
    if packed.dtype != jnp.uint8 or packed.shape[-1:] != (num_bytes,):
        raise ValueError(
            f"unpack_bits expects uint8 [..., {num_bytes}] for num_pixels={num_pixels}, "
            f"got {packed.dtype} {list(packed.shape)}; num_pixels is prod(dataset.shape)"
        )
    return jnp.unpackbits(jnp.asarray(packed), axis=-1, count=num_pixels).astype(jnp.float32)
