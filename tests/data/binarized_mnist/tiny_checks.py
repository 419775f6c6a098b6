"""Whether a tiny set was loaded as it was written, and whether nothing of it can be read."""

import numpy as np

from hiwae_jax.data import packed_cache, unpack_bits
from hiwae_jax.data.binarized_mnist.builder import HiwaeBinarizedMnist
from hiwae_jax.data.dataset import checksum

SPLITS = ("train", "validation", "test")


def assert_is(dataset, tiny):
    """The images of the tiny set, whole and under their names."""
    for split in SPLITS:
        packed = getattr(dataset, split)
        assert packed.dtype == np.uint8
        np.testing.assert_array_equal(unpack_bits(packed), tiny.images[split])
    assert dataset.checksum == tiny.specification.checksum == checksum(*dataset[:3])
    assert (dataset.shape, dataset.name) == ((28, 28), "tiny")


def assert_nothing_is_readable(tiny):
    """Neither the cache nor the prepared set is there."""
    assert not packed_cache.cache_path(tiny.specification, tiny.data_dir).exists()
    assert not HiwaeBinarizedMnist(data_dir=tiny.data_dir).data_path.exists()
