"""Sets of grey images in two idx files, as MNIST is published: one for training and validation, one for testing."""

import pathlib
from typing import TYPE_CHECKING

from hiwae_jax.data import preparation
from hiwae_jax.data.grey import GreyDataset
from hiwae_jax.data.specification import Specification

if TYPE_CHECKING:
    from hiwae_jax.data.idx_builder import IdxBuilder


def load_idx_images(
    specification: Specification,
    *,
    data_dir: str | pathlib.Path | None = None,
    manual_dir: str | pathlib.Path | None = None,
) -> GreyDataset:
    """Loads a set of grey images from its idx files "train" and "test".

    The first images of the training file are the training set, its last ones the validation set.

    Args:
        specification: the set, with `grey=True` and its `mean`.
        data_dir: directory of prepared sets.
        manual_dir: directory of raw files.

    Raises:
        FileNotFoundError: raw files are missing and cannot be downloaded.
        ValueError: a raw file is not the published one, or the prepared set is damaged; the message names it.
    """

    def import_builder() -> "type[IdxBuilder]":
        from hiwae_jax.data.idx_builder import make_idx_builder  # imports TensorFlow Datasets

        return make_idx_builder(specification)

    return GreyDataset(*preparation.load(specification, import_builder, data_dir=data_dir, manual_dir=manual_dir))
