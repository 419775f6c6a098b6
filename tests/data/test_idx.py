"""The idx format and its faults."""

import gzip
import pathlib
import struct

import numpy as np
import pytest

from hiwae_jax.data.idx import parse_idx

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 2, 3), dtype=np.uint8)
CONTENT = struct.pack(">IIII", 2051, 5, 2, 3) + IMAGES.tobytes()


def test_parses_images():
    parsed = parse_idx(CONTENT, shape=(5, 2, 3), path=pathlib.Path("a"))
    assert parsed.dtype == np.uint8
    np.testing.assert_array_equal(parsed, IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\0\0", r"no idx file of images: it starts with b'\\x00\\x00' where the magic number 2051"),
        (b"<html>", "no idx file of images: it starts with b'<htm'"),
        (gzip.compress(CONTENT, mtime=0), "compressed with gzip: give its name the ending .gz"),
        (struct.pack(">II", 2049, 5) + bytes(5), r"it holds labels \(magic number 2049\) where images"),
        (CONTENT[:15], "ends within its header"),
        (CONTENT[:-1], "29 pixels follow the header where 30 were expected"),
        (CONTENT + b"0", "31 pixels follow the header where 30 were expected"),
        (CONTENT[:4] + struct.pack(">III", 4, 2, 3) + CONTENT[16:-6], r"shape \(4, 2, 3\) where \(5, 2, 3\) was"),
    ],
)
def test_faults(content, message):
    with pytest.raises(ValueError, match=f"^folder/a: .*{message}"):
        parse_idx(content, shape=(5, 2, 3), path=pathlib.Path("folder/a"))
