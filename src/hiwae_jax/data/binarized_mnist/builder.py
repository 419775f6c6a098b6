"""The builder of binarized MNIST. Importing it registers `hiwae_binarized_mnist` with TensorFlow Datasets."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from hiwae_jax.data.amat import parse_amat
from hiwae_jax.data.binarized_mnist import SPECIFICATION
from hiwae_jax.data.raw_file_builder import RawFileBuilder


class HiwaeBinarizedMnist(RawFileBuilder):
    """MNIST in the fixed binarization published by Larochelle and Murray (2011)."""

    SPECIFICATION = SPECIFICATION
    VERSION = tfds.core.Version(SPECIFICATION.version)

    def parse(self, content: bytes, path: pathlib.Path) -> np.ndarray:
        """Turns the text of one file into images, uint8 [N, 28, 28]."""
        height, width = self.SPECIFICATION.shape
        rows = parse_amat(content, num_pixels=height * width, path=path)
        return rows.reshape(-1, height, width)
