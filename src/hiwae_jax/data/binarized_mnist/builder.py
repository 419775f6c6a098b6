"""The builder of binarized MNIST. Importing it registers `hiwae_binarized_mnist` with TensorFlow Datasets."""

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow_datasets as tfds

from hiwae_jax.data.amat import parse_amat
from hiwae_jax.data.binarized_mnist import SPECIFICATION
from hiwae_jax.data.raw_file_builder import RawFileBuilder


class HiwaeBinarizedMnist(RawFileBuilder):
    """MNIST in the fixed binarization published by Larochelle and Murray (2011)."""

    SPECIFICATION = SPECIFICATION
    VERSION = tfds.core.Version(SPECIFICATION.version)

    def parse(self, part: str, content: bytes, path: pathlib.Path) -> Mapping[str, np.ndarray]:
        """Turns the text of one file, named after its split, into images."""
        height, width = self.SPECIFICATION.shape
        rows = parse_amat(content, num_pixels=height * width, path=path)
        return {part: rows.reshape(-1, height, width)}
