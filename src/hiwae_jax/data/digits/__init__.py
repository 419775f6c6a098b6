"""Digits: 1,797 real images of 8x8 that come with scikit-learn, for runs without any file or download."""

import pathlib

import numpy as np

from hiwae_jax.data.dataset import Dataset, checksum, pack_bits
from hiwae_jax.data.registry import Entry

__all__ = ["SETS", "load_digits"]

_SHAPE = (8, 8)
_THRESHOLD = 8
_NUM_VALIDATION, _NUM_TEST = 200, 300


def load_digits(*, seed: int = 0) -> Dataset:
    """Loads the digits of scikit-learn, binarized, 8x8, packed: uint8 [1297, 8], [200, 8] and [300, 8].

    A pixel is 1 where its grey level, 0 to 16, is at least 8. The images are put in the order
    `numpy.random.default_rng(seed).permutation(1797)`; the first 1,297 are the training set, the next 200 the
    validation set, the last 300 the test set. The split of seed 0 is the one to report.

    Args:
        seed: of the permutation.

    Returns:
        The set, to be unpacked with `unpack_bits(packed, num_pixels=64)`.

    Raises:
        ImportError: scikit-learn is not installed. `pip install "hiwae_jax[data]"` brings it.

    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository,
    1998; scikit-learn bundles its test part.

    >>> digits = load_digits()
    >>> digits.train.shape, digits.validation.shape, digits.test.shape
    ((1297, 8), (200, 8), (300, 8))
    """
    try:
        from sklearn.datasets import load_digits as load_grey_digits
    except ImportError as error:
        raise ImportError('load_digits: scikit-learn is not installed; pip install "hiwae_jax[data]"') from error
    grey = load_grey_digits().data
    packed = pack_bits(grey >= _THRESHOLD)[np.random.default_rng(seed).permutation(len(grey))]
    train, validation, test = np.split(packed, [-_NUM_VALIDATION - _NUM_TEST, -_NUM_TEST])
    return Dataset(train, validation, test, _SHAPE, "digits", checksum(train, validation, test))


def _load(*, data_dir: str | pathlib.Path | None = None, manual_dir: str | pathlib.Path | None = None) -> Dataset:
    del data_dir, manual_dir  # scikit-learn has the images
    return load_digits()


SETS = {"digits": Entry(_load, "digits", _SHAPE, needs_files=False)}
