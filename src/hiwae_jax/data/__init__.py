"""Benchmark sets as bit-packed arrays: prepared once with TensorFlow Datasets, then read in milliseconds.

Importing this package needs neither TensorFlow Datasets nor TensorFlow; the first is imported when a set is
prepared, the second never.
"""

from hiwae_jax.data.binarized_mnist import load_binarized_mnist
from hiwae_jax.data.dataset import Dataset, pack_bits, unpack_bits
from hiwae_jax.data.digits import load_digits

__all__ = ["Dataset", "load_binarized_mnist", "load_digits", "pack_bits", "unpack_bits"]
