"""The builder of grey MNIST. Importing it registers `hiwae_mnist` with TensorFlow Datasets."""

import tensorflow_datasets as tfds

from hiwae_jax.data.idx_builder import IdxBuilder
from hiwae_jax.data.mnist import SPECIFICATION


class HiwaeMnist(IdxBuilder):
    """MNIST, its 70,000 images in grey (LeCun, Bottou, Bengio and Haffner, 1998)."""

    SPECIFICATION = SPECIFICATION
    VERSION = tfds.core.Version(SPECIFICATION.version)
