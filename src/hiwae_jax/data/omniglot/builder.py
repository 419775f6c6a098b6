"""The builders of OMNIGLOT. Importing them registers `hiwae_omniglot` and `hiwae_omniglot_rebuilt`."""

import math
import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow_datasets as tfds

from hiwae_jax.data.image_checks import require_polarity, require_values
from hiwae_jax.data.mat import parse_mat, upright
from hiwae_jax.data.omniglot import REBUILT_SPECIFICATION, SPECIFICATION
from hiwae_jax.data.raw_file_builder import RawFileBuilder

_SEED = 123


class HiwaeOmniglot(RawFileBuilder):
    """OMNIGLOT at 28x28 in the file of Burda, Grosse and Salakhutdinov (2016)."""

    SPECIFICATION = SPECIFICATION
    VERSION = tfds.core.Version(SPECIFICATION.version)

    def parse(self, part: str, content: bytes, path: pathlib.Path) -> Mapping[str, np.ndarray]:
        """Turns the file into images of all splits, as levels 0 to 255."""
        shape = self.SPECIFICATION.shape
        num_train, num_validation, num_test = self.SPECIFICATION.split_sizes
        num_pixels, num_images = math.prod(shape), num_train + num_validation
        shapes = {"data": (num_pixels, num_images), "testdata": (num_pixels, num_test)}
        matrices = parse_mat(content, shapes=shapes, path=path)
        for key, matrix in matrices.items():
            require_values(matrix, integer=False, what=key, path=path)
            require_polarity(matrix.mean(dtype=np.float64), self.SPECIFICATION.mean, what=key, path=path)
        # Double precision makes ties round alike on every machine.
        images, test = (
            upright(np.rint(255 * matrix.T.astype(np.float64)).astype(np.uint8), shape) for matrix in matrices.values()
        )
        train, validation = np.split(images[np.random.RandomState(_SEED).permutation(num_images)], [num_train])
        return {"train": train, "validation": validation, "test": test}


class HiwaeOmniglotRebuilt(HiwaeOmniglot):
    """OMNIGLOT at 28x28 in the layout of Burda et al., rebuilt from the 105x105 drawings: not the original."""

    SPECIFICATION = REBUILT_SPECIFICATION
    VERSION = tfds.core.Version(REBUILT_SPECIFICATION.version)
