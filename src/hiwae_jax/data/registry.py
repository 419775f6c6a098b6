"""The data sets by name. Each sub-package of `hiwae_jax.data` defines its own, in a dict `SETS` of entries.

That is the only list of names. A new sub-package is found without a change anywhere else.
"""

import importlib
import pathlib
import pkgutil
from typing import NamedTuple, Protocol

from hiwae_jax.data.dataset import Dataset
from hiwae_jax.data.grey import GreyDataset


class Loader(Protocol):
    """Loads a data set, and prepares it first if that was not done before."""

    def __call__(
        self, *, data_dir: str | pathlib.Path | None = None, manual_dir: str | pathlib.Path | None = None
    ) -> Dataset | GreyDataset:
        """Loads it from the directory of prepared sets, or from that of raw files."""


class Entry(NamedTuple):
    """A data set that can be chosen by its name.

    Attributes:
        load: loads it.
        title: its name in tables.
        shape: height and width of an image.
        needs_files: whether it is made of raw files, local or downloaded.
    """

    load: Loader
    title: str
    shape: tuple[int, int]
    needs_files: bool = True


def entries() -> dict[str, Entry]:
    """All data sets by name: first those that need no files, then the others, by the alphabet.

    >>> list(entries())[:3]
    ['digits', 'binarized_mnist', 'caltech101_silhouettes']
    """
    found: dict[str, Entry] = {}
    package = importlib.import_module("hiwae_jax.data")
    for module in pkgutil.iter_modules(package.__path__, "hiwae_jax.data."):
        if module.ispkg:
            found |= importlib.import_module(module.name).SETS
    return dict(sorted(found.items(), key=lambda item: (item[1].needs_files, item[0])))


def dataset_names() -> tuple[str, ...]:
    """The names that `load_dataset` takes.

    >>> "mnist" in dataset_names()
    True
    """
    return tuple(entries())


def load_dataset(
    name: str, *, data_dir: str | pathlib.Path | None = None, manual_dir: str | pathlib.Path | None = None
) -> Dataset | GreyDataset:
    """Loads the data set of that name.

    Args:
        name: one of `dataset_names()`.
        data_dir: directory of prepared sets, see docs/data.md.
        manual_dir: directory of raw files, likewise.

    Returns:
        A `Dataset` of packed bits, or a `GreyDataset` of grey levels.

    Raises:
        ValueError: there is no data set of that name; or its files are not the published ones.
        FileNotFoundError: raw files are missing and cannot be downloaded.
        ImportError: the set has to be prepared first, which takes `pip install "hiwae_jax[data]"`.

    >>> load_dataset("digits").train.shape
    (1297, 8)
    """
    known = entries()
    if name not in known:
        raise ValueError(f"name: expected one of {', '.join(known)}, got {name!r}")
    return known[name].load(data_dir=data_dir, manual_dir=manual_dir)
