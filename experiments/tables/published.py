"""The published numbers of Huang et al. (2019), "Hierarchical Importance Weighted Autoencoders", from `published.json`.

Bounds, negated, and negative log-likelihood (NLL) in nats; lower is better. Their Tables 1 and 2 repeat the test NLL of
Tables 4 to 11.
"""

import json
import pathlib
from typing import NamedTuple

from experiments.vae.evaluation import FIGURES

Row = tuple[str, int]  # model, and encoder updates in a minibatch


class Number(NamedTuple):
    """A published number: its mean over seeds, and the standard deviation between them."""

    mean: float
    deviation: float


class Table(NamedTuple):
    """The published results on one data set.

    Attributes:
      numbers: of the tables in the paper, in words.
      dataset: a name of `hiwae_jax.data.dataset_names()`.
      title: what they are of.
      seeds: runs of each cell.
      cells: by row and K, the number of each of `evaluation.FIGURES`.
      details: by K, the number of the table with these cells.
    """

    numbers: str
    dataset: str
    title: str
    seeds: int
    cells: dict[tuple[Row, int], dict[str, Number]]
    details: dict[int, int]

    @property
    def num_samples(self) -> tuple[int, ...]:
        """The values of K."""
        return tuple(self.details)


def _read(dataset: str, numbers: str, title: str) -> Table:
    content = json.loads((pathlib.Path(__file__).parent / "published.json").read_text())
    cells, details = {}, {}
    for cell in content["cells"]:
        if cell["dataset"] == dataset:
            row, K = (cell["model"], cell["encoder_updates"]), cell["num_samples"]
            figures = dict(zip(content["figures"], cell["figures"], strict=True))
            cells[row, K] = {name: Number(*figures[name]) for name in FIGURES}
            details[K] = cell["table"]
    return Table(numbers, dataset, title, content["seeds"][dataset], cells, details)


MNIST = _read("binarized_mnist", "Tables 1 and 4 to 7", "statically binarized MNIST")
OMNIGLOT = _read("omniglot", "Tables 2 and 8 to 11", "dynamically binarized OMNIGLOT")
CALTECH = _read("caltech101_silhouettes", "Table 3", "Caltech101 Silhouettes")
TABLES = (MNIST, OMNIGLOT, CALTECH)
REBUILT = "omniglot_rebuilt"  # its results stand beside those of OMNIGLOT and may not be equated with them
