"""The tiny set in the format of binarized MNIST, for tests of all that is common to sets."""

import pathlib

import numpy as np
import pytest

from hiwae_jax.data import binarized_mnist
from hiwae_jax.data.dataset import checksum
from hiwae_jax.data.specification import Specification
from tests.data.tiny_files import TinySet, amat, describe


@pytest.fixture
def tiny_set(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> TinySet:
    """The tiny set, installed; its files are not written yet."""
    rng = np.random.default_rng(1)
    sizes = {"train": 7, "validation": 3, "test": 4}
    images = {split: rng.integers(0, 2, (size, 784), dtype=np.uint8) for split, size in sizes.items()}
    names = {split: file.filename for split, file in binarized_mnist.SPECIFICATION.files.items()}
    texts = {names[split]: amat(array) for split, array in images.items()}
    specification = Specification(
        name="tiny",
        version="1.0.0",
        shape=(28, 28),
        files={split: describe(texts[name], name) for split, name in names.items()},
        split_sizes=(7, 3, 4),
        checksum=checksum(*(np.packbits(array, axis=-1) for array in images.values())),
    )
    manual_dir, data_dir = tmp_path / "raw", tmp_path / "prepared"
    manual_dir.mkdir()
    tiny = TinySet(specification, images, texts, manual_dir, data_dir)
    tiny.install(monkeypatch, specification)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    return tiny
