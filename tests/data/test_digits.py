"""The digits of scikit-learn: the documented threshold and split, and nothing lost."""

import sys

import numpy as np
import pytest
import sklearn.datasets

from hiwae_jax.data import load_digits, unpack_bits
from hiwae_jax.data.dataset import checksum


def rows(packed):
    return sorted(map(tuple, packed.tolist()))


def test_splits_are_disjoint_and_exhaustive():
    digits = load_digits()
    assert [split.shape for split in digits[:3]] == [(1297, 8), (200, 8), (300, 8)]
    assert digits.shape == (8, 8)
    assert digits.name == "digits"
    binary = sklearn.datasets.load_digits().images.reshape(1797, 64) >= 8
    # As multisets: a few images occur twice once binarized.
    assert rows(np.concatenate(digits[:3])) == rows(np.packbits(binary, axis=-1))
    order = np.random.default_rng(0).permutation(1797)
    for split, indices in zip(digits[:3], np.split(order, [1297, 1497]), strict=True):
        np.testing.assert_array_equal(unpack_bits(split, num_pixels=64), binary[indices])


def test_the_split_never_changes():
    # A pinned value: results are comparable only while it holds, on every machine and version of NumPy.
    digits = load_digits()
    assert digits.checksum == "0f6191599ae49a9f609b0f29218025d164ecdc5c94b6debad624bc483097bc6c"
    assert digits.checksum == checksum(*digits[:3])
    other = load_digits(seed=1)
    assert other.checksum != digits.checksum
    assert rows(np.concatenate(other[:3])) == rows(np.concatenate(digits[:3]))


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "hiwae_jax\[data\]"'):
        load_digits()
