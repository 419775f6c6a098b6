"""The text format and its faults."""

import pathlib

import numpy as np
import pytest

from hiwae_jax.data.amat import parse_amat


def test_against_numpy():
    images = np.random.default_rng(0).integers(0, 2, (6, 5), dtype=np.uint8)
    text = "\n".join(" ".join(map(str, row)) for row in images) + "\n"
    parsed = parse_amat(text.encode(), num_pixels=5, path=pathlib.Path("a.amat"))
    assert parsed.dtype == np.uint8
    np.testing.assert_array_equal(parsed, np.loadtxt(text.splitlines()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the file is empty"),
        (b"0 1\n0 1\n", "line 1 has 2 values where 3 were expected"),
        (b"0 1 0\n0 1 0 1\n0 1\n", "line 2 has 4 values where 3 were expected"),
        (b"0 1 0\n0 2 0\n", "line 2 holds the value '2' where 0 or 1"),
        (b"0 1 0\n0 / 0\n", "line 2 holds the value '/' where 0 or 1"),
        (b"0 0.5 0\n0 1 0\n", "line 1 holds the value '0.5' where 0 or 1"),
        (b"0\t1 0\n0 1 0\n", "separated by single spaces"),
        (b"0 1 0\r\n0 1 0\r\n", "separated by single spaces"),
        (b"0 1 0\n0 1 0", "separated by single spaces"),
        (b"010101", "line 1 has 1 values where 3 were expected"),
    ],
)
def test_faults_name_file_and_line(text, message):
    with pytest.raises(ValueError, match=f"^folder/a.amat: .*{message}"):
        parse_amat(text, num_pixels=3, path=pathlib.Path("folder/a.amat"))
