"""The builder of Caltech 101 Silhouettes. Importing it registers `hiwae_caltech101_silhouettes`."""

import math
import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow_datasets as tfds

from hiwae_jax.data.caltech101_silhouettes import SPECIFICATION
from hiwae_jax.data.image_checks import require_polarity, require_values
from hiwae_jax.data.mat import parse_mat, upright
from hiwae_jax.data.raw_file_builder import RawFileBuilder

_KEYS = {"train_data": "train", "val_data": "validation", "test_data": "test"}


class HiwaeCaltech101Silhouettes(RawFileBuilder):
    """Caltech 101 Silhouettes at 28x28, split 1 (Marlin, Swersky, Chen and de Freitas, 2010)."""

    SPECIFICATION = SPECIFICATION
    VERSION = tfds.core.Version(SPECIFICATION.version)

    def parse(self, part: str, content: bytes, path: pathlib.Path) -> Mapping[str, np.ndarray]:
        """Turns the file into images of all splits, the silhouette 1 on a background of 0."""
        shape, sizes = self.SPECIFICATION.shape, self.SPECIFICATION.split_sizes
        shapes = {key: (size, math.prod(shape)) for key, size in zip(_KEYS, sizes, strict=True)}
        matrices = parse_mat(content, shapes=shapes, path=path)
        for key, matrix in matrices.items():
            require_values(matrix, integer=True, what=key, path=path)
            require_polarity(matrix.mean(dtype=np.float64), self.SPECIFICATION.mean, what=key, path=path)
        return {split: upright((matrices[key] == 0).astype(np.uint8), shape) for key, split in _KEYS.items()}
