"""The builder of sets of grey images in two idx files."""

import pathlib
import types
from collections.abc import Mapping

import numpy as np
import tensorflow_datasets as tfds

from hiwae_jax.data.idx import parse_idx
from hiwae_jax.data.image_checks import require_polarity
from hiwae_jax.data.raw_file_builder import RawFileBuilder
from hiwae_jax.data.specification import Specification


class IdxBuilder(
    RawFileBuilder,
    skip_registration=True,  # type: ignore[call-arg]
):
    """Grey images from the files "train" and "test"; the last images of the first are those of validation."""

    def parse(self, part: str, content: bytes, path: pathlib.Path) -> Mapping[str, np.ndarray]:
        """Turns an idx file into the images of its splits."""
        num_train, num_validation, num_test = self.SPECIFICATION.split_sizes
        num_images = {"train": num_train + num_validation, "test": num_test}[part]
        images = parse_idx(content, shape=(num_images, *self.SPECIFICATION.shape), path=path)
        require_polarity(images.mean() / 255, self.SPECIFICATION.mean, what="the array of images", path=path)
        if part == "test":
            return {"test": images}
        return {"train": images[:num_train], "validation": images[num_train:]}


def make_idx_builder(specification: Specification) -> type[IdxBuilder]:
    """A builder of this set; TensorFlow Datasets does not find it by name."""

    def fill(namespace: dict[str, object]) -> None:
        namespace.update(
            __doc__=f"The set {specification.name}, from idx files.",
            __module__=__name__,
            name=f"hiwae_{specification.name}",
            SPECIFICATION=specification,
            VERSION=tfds.core.Version(specification.version),
        )

    title = "".join(part.capitalize() for part in specification.name.split("_"))
    builder: type[IdxBuilder] = types.new_class(f"Hiwae{title}", (IdxBuilder,), {"skip_registration": True}, fill)
    return builder
