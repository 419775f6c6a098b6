"""The part of a TensorFlow Datasets builder that all sets share.

TensorFlow itself stays out: features are plain tensors and the records are array records.
"""

import abc
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

from hiwae_jax.data import raw_files
from hiwae_jax.data.specification import SPLITS, Specification


class RawFileBuilder(
    tfds.core.GeneratorBasedBuilder,  # type: ignore[misc]  # tensorflow-datasets is untyped
    abc.ABC,
    skip_registration=True,  # type: ignore[call-arg]
):
    """Prepares a set of images from published files: local copies first, downloads for the rest.

    A subclass names its `SPECIFICATION` and says how contents become images (`parse`). Its module lies beside
    a `checksums.tsv`, from which both the specification and TensorFlow Datasets take urls, sizes and checksums;
    a set whose files are not known by these has none, and its files are verified when they are read.
    """

    SPECIFICATION: ClassVar[Specification]
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    _manual_dir: pathlib.Path | None = None

    @abc.abstractmethod
    def parse(self, part: str, content: bytes, path: pathlib.Path) -> Mapping[str, np.ndarray]:
        """Turns the content of one raw file into the images it holds by split, uint8 [N, height, width].

        Content that was verified is parsed for its images, and other content to find out what is wrong with it.

        Args:
            part: the file's name in `SPECIFICATION.files`.
            content: its content, uncompressed.
            path: where the content comes from, for messages.

        Raises:
            ValueError: format, shape or values are not those of the published file; the message starts with
                the path.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Tensor(shape=self.SPECIFICATION.shape, dtype=np.uint8)}
            ),
            description=self.__doc__,
            disable_shuffling=True,  # the published order is part of the set
        )

    def download_and_prepare(
        self,
        *,
        download_config: tfds.download.DownloadConfig | None = None,
        file_format: str | tfds.core.FileFormat | None = None,
        **options: object,
    ) -> None:
        """As in TensorFlow Datasets, but always as array records.

        Raises:
            FileNotFoundError: download_config.manual_dir does not exist, or files are missing everywhere.
            ValueError: a raw file is not the published one, or file_format is another than "array_record".
        """
        if file_format not in (None, "array_record", tfds.core.FileFormat.ARRAY_RECORD):
            # tfrecord needs TensorFlow, and parquet has lost records without an error.
            raise ValueError(f'{self.name} is prepared with file_format="array_record" only, not {file_format!r}')
        if download_config is not None and download_config.manual_dir and not self.data_path.exists():
            # The path is kept here, because the download manager refuses an empty directory.
            self._manual_dir = raw_files.require_directory(download_config.manual_dir)
        super().download_and_prepare(download_config=download_config, file_format="array_record", **options)

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Iterator[tuple[int, dict[str, np.ndarray]]]]:
        paths = self._locate(dl_manager)
        # Every file is verified before the first record is written: writing takes much longer than reading.
        images: dict[str, np.ndarray] = {}
        for part, raw in self.SPECIFICATION.files.items():
            path = paths[raw.filename]
            content = self._read(part, raw, path, self._directory(dl_manager))
            images.update(self.parse(part, content, path))
        return {split: self._generate_examples(images[split]) for split in SPLITS}

    def _read(self, part: str, raw: raw_files.RawFile, path: pathlib.Path, directory: pathlib.Path) -> bytes:
        try:
            return raw_files.read(raw, path, diagnose=functools.partial(self._diagnose, part, path=path))
        except ValueError as error:
            note = raw_files.of_another_set(raw, path, directory, name=self.SPECIFICATION.name)
            raise ValueError(f"{error}{note}") from error

    def _directory(self, dl_manager: tfds.download.DownloadManager) -> pathlib.Path:
        return self._manual_dir or pathlib.Path(dl_manager.download_dir, "manual")

    def _diagnose(self, part: str, content: bytes, path: pathlib.Path) -> str:
        try:
            self.parse(part, content, path)
        except ValueError as error:
            return f"What is wrong with it: {str(error).removeprefix(f'{path}: ')}"
        return "It has the right format, shape and values: other images, another order, or the same saved anew"

    def _generate_examples(self, images: np.ndarray) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for index, image in enumerate(images):
            yield index, {"image": image}

    def _locate(self, dl_manager: tfds.download.DownloadManager) -> dict[str, pathlib.Path]:
        directory = self._directory(dl_manager)
        found: dict[str, pathlib.Path] = {}
        missing = []
        for raw in self.SPECIFICATION.files.values():
            path = raw_files.find(raw, directory, name=self.SPECIFICATION.name)
            if path:
                found[raw.filename] = path
            else:
                missing.append(raw)
        for raw in missing:
            # Without a network the download below would repeat its tries for minutes.
            reason = self._why_unreachable(raw, dl_manager)
            if reason:
                name = self.SPECIFICATION.name
                raise FileNotFoundError(raw_files.missing_files_message(name, missing, directory, reason))
        if missing:
            downloads = dl_manager.download({raw.filename: raw.url for raw in missing})
            found.update({name: pathlib.Path(path) for name, path in downloads.items()})
        return found

    def _why_unreachable(self, raw: raw_files.RawFile, dl_manager: tfds.download.DownloadManager) -> str | None:
        if raw.url is None:
            return f"{raw.filename} has no address"
        name = resource.get_dl_fname(raw.url, raw.download_sha256 or raw.sha256)
        if resource.is_locally_cached(dl_manager.download_dir / self.name / name):
            return None
        reason = raw_files.why_unreachable(raw.url)
        return reason and f"{raw.url}: {reason}"
