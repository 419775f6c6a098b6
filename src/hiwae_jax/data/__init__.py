"""Benchmark sets as arrays of packed bits or grey levels: prepared once with TensorFlow Datasets, then read at once.

Importing this package needs neither TensorFlow Datasets nor TensorFlow; the first is imported when a set is
prepared, the second never. `pip install "hiwae_jax[data]"` brings what preparing takes. Without it, sets that were
prepared before are read all the same.
"""

from hiwae_jax.data.binarized_mnist import load_binarized_mnist
from hiwae_jax.data.caltech101_silhouettes import load_caltech101_silhouettes
from hiwae_jax.data.dataset import Dataset, pack_bits, unpack_bits
from hiwae_jax.data.digits import load_digits
from hiwae_jax.data.grey import GreyDataset, binarize
from hiwae_jax.data.mnist import load_mnist
from hiwae_jax.data.omniglot import load_omniglot
from hiwae_jax.data.registry import dataset_names, load_dataset

__all__ = [
    "Dataset",
    "GreyDataset",
    "binarize",
    "dataset_names",
    "load_binarized_mnist",
    "load_caltech101_silhouettes",
    "load_dataset",
    "load_digits",
    "load_mnist",
    "load_omniglot",
    "pack_bits",
    "unpack_bits",
]
