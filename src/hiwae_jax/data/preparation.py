"""Loading of a specified set into memory, from the packed cache if it is there, or else with TensorFlow Datasets."""

import importlib
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hiwae_jax.data import packed_cache
from hiwae_jax.data.dataset import checksum, pack_bits
from hiwae_jax.data.specification import SPLITS, Specification

if TYPE_CHECKING:
    from hiwae_jax.data.raw_file_builder import RawFileBuilder


def load(
    specification: Specification,
    import_builder: "Callable[[], type[RawFileBuilder]]",
    *,
    data_dir: str | pathlib.Path | None,
    manual_dir: str | pathlib.Path | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int], str, str]:
    """Loads a set of images, and prepares it if this was not done before.

    Args:
        specification: the set.
        import_builder: returns its `RawFileBuilder` class; called only if there is no valid cache, so that
            TensorFlow Datasets is not imported for nothing.
        data_dir: directory of prepared sets.
        manual_dir: directory of raw files.

    Returns:
        The fields of `Dataset`, or of `GreyDataset` if specification.grey, in their order. The images are
        verified against the specification's checksum, if it has one.

    Raises:
        ValueError: the prepared set is damaged.
        ModuleNotFoundError: it has to be prepared, and the extra "data" is not installed.
    """
    root = _data_dir(data_dir)
    cached = packed_cache.read(specification, root)
    if cached is None:
        try:
            builder_class = import_builder()
            importlib.import_module("array_record")  # TensorFlow Datasets imports it only when it writes
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{specification.name} has not been prepared in {root}, and its preparation needs packages that are "
                f'not installed ({error}): pip install "hiwae_jax[data]". Or copy the folder hiwae_jax_packed from '
                "the data directory of a machine where the set was loaded"
            ) from error
        images, found = _prepare(specification, builder_class, root, manual_dir)
        path = packed_cache.cache_path(specification._replace(checksum=found), root)
        try:
            packed_cache.write(path, images)
        except OSError as error:
            warnings.warn(f"{path} cannot be written, so every load will take seconds: {error}", stacklevel=3)
    else:
        images, found = cached
    train, validation, test = np.split(images, np.cumsum(specification.split_sizes)[:-1])
    return train, validation, test, specification.shape, specification.name, found


def _data_dir(data_dir: str | pathlib.Path | None) -> pathlib.Path:
    # The default of TensorFlow Datasets, which is not asked for it because that would import it.
    default = os.environ.get("TFDS_DATA_DIR", pathlib.Path("~", "tensorflow_datasets"))
    return pathlib.Path(default if data_dir is None else data_dir).expanduser()


def _prepare(
    specification: Specification,
    builder_class: "type[RawFileBuilder]",
    root: pathlib.Path,
    manual_dir: str | pathlib.Path | None,
) -> tuple[np.ndarray, str]:
    import tensorflow_datasets as tfds

    remedy = "Delete that directory and load again"
    try:
        builder = builder_class(data_dir=root)
    except Exception as error:  # a damaged description makes its parsers raise errors of many kinds
        folder = root / builder_class.name / specification.version
        if not folder.exists():
            raise
        raise ValueError(f"the prepared set in {folder} is damaged: {error}. {remedy}") from error
    config = tfds.download.DownloadConfig(
        manual_dir=None if manual_dir is None else pathlib.Path(manual_dir).expanduser(),
        # A file without a known sha256 of its content is verified when it is read.
        force_checksums_validation=all(raw.sha256 for raw in specification.files.values()),
        try_download_gcs=False,
    )
    try:
        builder.download_and_prepare(download_config=config)
    except OSError:
        if not builder.data_path.exists():
            raise
        # Another process has prepared the same set at the same time.
        builder = builder_class(data_dir=root)
    try:
        splits = [_read_images(builder, split) for split in SPLITS]
        images = np.concatenate(splits if specification.grey else [pack_bits(split) for split in splits])
    except (RuntimeError, ValueError) as error:  # a missing or broken file of array records, or records that differ
        raise ValueError(f"the prepared set in {builder.data_dir} is damaged: {error}. {remedy}") from error
    found = checksum(images)
    sizes = tuple(len(split) for split in splits)
    if sizes == specification.split_sizes and images.shape != packed_cache.array_shape(specification):
        found_and_expected = f"images of {splits[0].shape[1]} pixels where {specification.shape} were expected"
    elif sizes != specification.split_sizes:
        found_and_expected = f"{sizes} images where {specification.split_sizes} were expected"
    elif specification.checksum not in (None, found):
        found_and_expected = f"sha256 {found} where {specification.checksum} was expected"
    else:
        return images, found
    raise ValueError(f"the prepared set in {builder.data_dir} is damaged: {found_and_expected}. {remedy}")


def _read_images(builder: "RawFileBuilder", split: str) -> np.ndarray:
    source = builder.as_data_source(split)
    # All records in one call: one by one they take ten times longer.
    records = source.__getitems__(range(len(source)))
    return np.stack([record["image"].reshape(-1) for record in records])
