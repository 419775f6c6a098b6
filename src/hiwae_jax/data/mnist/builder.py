"""The builder of grey MNIST. Importing it registers `hiwae_mnist` with TensorFlow Datasets."""

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow_datasets as tfds

from hiwae_jax.data.idx import parse_idx
from hiwae_jax.data.image_checks import require_polarity
from hiwae_jax.data.mnist import SPECIFICATION
from hiwae_jax.data.raw_file_builder import RawFileBuilder

_MEAN = 0.131  # of the training images, as a part of 255; 0.133 in the test images


class HiwaeMnist(RawFileBuilder):
    """MNIST, its 70,000 images in grey (LeCun, Bottou, Bengio and Haffner, 1998)."""

    SPECIFICATION = SPECIFICATION
    VERSION = tfds.core.Version(SPECIFICATION.version)

    def parse(self, part: str, content: bytes, path: pathlib.Path) -> Mapping[str, np.ndarray]:
        """Turns an idx file into images; the last of the training file are those of the validation split."""
        num_train, num_validation, num_test = self.SPECIFICATION.split_sizes
        num_images = {"train": num_train + num_validation, "test": num_test}[part]
        images = parse_idx(content, shape=(num_images, *self.SPECIFICATION.shape), path=path)
        require_polarity(images.mean() / 255, _MEAN, what="the array of images", path=path)
        if part == "test":
            return {"test": images}
        return {"train": images[:num_train], "validation": images[num_train:]}
