"""Packing into bits, against a plain second way of unpacking them."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hiwae_jax.data import pack_bits, unpack_bits
from hiwae_jax.data.dataset import checksum


@pytest.mark.parametrize("num_pixels", [1, 8, 9, 64, 784])
def test_round_trip(num_pixels):
    images = np.random.default_rng(0).integers(0, 2, (3, 5, num_pixels))
    packed = pack_bits(images)
    assert packed.dtype == np.uint8
    assert packed.shape == (3, 5, -(-num_pixels // 8))
    unpacked = unpack_bits(packed, num_pixels=num_pixels)
    assert unpacked.dtype == jnp.float32
    np.testing.assert_array_equal(unpacked, images)


def test_first_pixel_is_the_highest_bit():
    packed = np.arange(256, dtype=np.uint8)[:, None]
    by_text = [[float(bit) for bit in f"{byte:08b}"] for byte in range(256)]
    np.testing.assert_array_equal(unpack_bits(packed, num_pixels=8), by_text)


def test_under_jit_and_vmap():
    packed = np.random.default_rng(0).integers(0, 256, (4, 98), dtype=np.uint8)
    expected = np.unpackbits(packed, axis=-1)
    np.testing.assert_array_equal(jax.jit(unpack_bits)(packed), expected)
    np.testing.assert_array_equal(jax.jit(jax.vmap(unpack_bits))(packed), expected)


def test_what_cannot_be_packed_or_unpacked():
    with pytest.raises(ValueError, match="0 and 1 only"):
        pack_bits(np.array([0.0, 0.5]))
    with pytest.raises(ValueError, match="0 and 1 only"):
        pack_bits(np.array([0, 2], np.uint8))
    with pytest.raises(ValueError, match=r"expects uint8 \[\.\.\., 98\] for num_pixels=784, got uint8 \[3, 8\]"):
        unpack_bits(np.zeros((3, 8), np.uint8))
    with pytest.raises(ValueError, match=r"got float32 \[3, 98\]"):
        unpack_bits(np.zeros((3, 98), np.float32))


def test_checksum_runs_over_the_arrays_in_order():
    a, b = np.arange(6, dtype=np.uint8).reshape(2, 3), np.arange(3, dtype=np.uint8)
    assert checksum(a, b) == hashlib.sha256(bytes([0, 1, 2, 3, 4, 5, 0, 1, 2])).hexdigest()
    assert checksum(a.T) == hashlib.sha256(bytes([0, 3, 1, 4, 2, 5])).hexdigest()
    assert checksum(a, b) != checksum(b, a)
