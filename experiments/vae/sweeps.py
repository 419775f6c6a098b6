"""Grids of settings: the tables of Huang et al. (2019).

Sweeps without an ending have the paper's networks and budget, those ending in "-short" its networks and a short
training, those ending in "-mlp" small MLPs. docs/experiments.md says where the paper and its released code leave a
choice, and which one is made here.

A grid maps fields of `Settings` to the values they take; a sweep is a list of grids.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.vae.settings import Settings
from hiwae_jax import PATHWISE_GRADIENTS

Grid = Mapping[str, Sequence[Any]]

# Section 6.3 and the released code; 400 epochs at most, stopped early.
_PAPER = {
    "architecture": ["conv"],
    "latent": [32],
    "hidden": [(450,)],
    "proposal_hidden": [1920],
    "learning_rate": [5e-5],
    "schedule": ["constant"],
    "warmup": [50_000],
    "polyak": [0.998],
    "patience": [50],
    "seeds": [5],
}
_TABLE_MODELS = ["iwae", "hiwae-0", "hiwae-1", "hiwae-3"]
_MLP = {
    "architecture": ["mlp"],
    "latent": [50],
    "hidden": [(200, 200)],
    "proposal_hidden": [100],
    "learning_rate": [1e-3],
    "schedule": ["cosine"],
    "nll_images": [500],
    "seeds": [3],
}
_MNIST_MLP = {**_MLP, "dataset": ["binarized_mnist"], "steps": [8_000], "warmup": [2_000]}
_OMNIGLOT_MLP = {**_MLP, "dataset": ["omniglot_rebuilt"], "steps": [5_000], "warmup": [1_000]}
_CALTECH_MLP = {**_MLP, "dataset": ["caltech101_silhouettes"], "steps": [5_000], "warmup": [1_000]}
_MNIST = {**_PAPER, "dataset": ["binarized_mnist"], "steps": [312_400]}
_OMNIGLOT = {**_PAPER, "steps": [143_600]}
# A point of Table 3's search. The warm-up is stated for MNIST and OMNIGLOT alone: here it would take 780 epochs.
_CALTECH = {
    **_PAPER,
    "dataset": ["caltech101_silhouettes"],
    "steps": [25_600],
    "warmup": [0],
    "patience": [25],
    "learning_rate": [1e-4],
    "free_bits": [0.01],
    "polyak": [0.99],
    "proposal_hidden": [500],
    "seeds": [3],
}
_SEARCH = {
    "learning_rate": [3e-4, 1e-4, 5e-5, 3e-5, 1e-5],
    "free_bits": [0.0, 0.01],
    "polyak": [0.95, 0.99],
    "proposal_hidden": [500, 1024],
}
# The networks, data, batches and evaluation of the paper; one seed. The schedule was found on Caltech with one seed.
# The larger sets, which overfit less, have a higher rate.
_SHORT = {
    "architecture": ["conv"],
    "latent": [32],
    "hidden": [(450,)],
    "proposal_hidden": [500],
    "schedule": ["cosine"],
    "warmup": [1_000],
    "free_bits": [0.01],
    "polyak": [0.99],
}


def _tables_1_and_2(grid: Grid) -> list[Grid]:
    """IWAE and H-IWAE with K = 1, 2, 5 and 10; at K = 1 H-IWAE is one model for all alphas, and stands there once."""
    return [
        {**grid, "model": ["iwae", "hiwae-1"], "num_samples": [1]},
        {**grid, "model": _TABLE_MODELS, "num_samples": [2, 5, 10]},
    ]


def _table_3(
    grid: Grid, *, baselines: Sequence[int], models: Sequence[str] = ("hiwae-0", "hiwae-1", "hiwae-3"), twice: str
) -> list[Grid]:
    """IWAE and IWAE(h) with K of `baselines`, H-IWAE with K = 2 and 5, also with the encoder updated twice."""
    once = {**grid, "encoder_updates": [1]}
    return [
        {**once, "model": ["iwae", "iwae-h"], "num_samples": baselines},
        {**once, "model": models, "num_samples": [2, 5]},
        {**grid, "model": ["hiwae-1"], "num_samples": [2, 5], "encoder_updates": [2], "twice": [twice]},
    ]


def _short(dataset: str, steps: int, learning_rate: float) -> list[Grid]:
    """IWAE, IWAE(h) and H-IWAE alpha 1 with K = 2 and 5, the last one also with the encoder updated twice; K = 1."""
    grid = {**_SHORT, "dataset": [dataset], "steps": [steps], "learning_rate": [learning_rate]}
    of_one = {**grid, "encoder_updates": [1], "model": ["iwae", "iwae-h"], "num_samples": [1]}
    return [*_table_3(grid, baselines=[2, 5], models=["hiwae-1"], twice="encoder"), of_one]


SWEEPS: dict[str, list[Grid]] = {
    "mnist-mlp": _tables_1_and_2(_MNIST_MLP),
    "omniglot-mlp": _table_3(_OMNIGLOT_MLP, baselines=[2, 5], twice="proposal"),
    "caltech-mlp": _table_3(_CALTECH_MLP, baselines=[2, 5], twice="proposal"),
    "gradients-mlp": [
        {**grid, "model": ["hiwae-1"], "num_samples": [5], "gradient": PATHWISE_GRADIENTS}
        for grid in (_MNIST_MLP, _CALTECH_MLP)
    ],
    "mnist": _tables_1_and_2(_MNIST),
    "omniglot": _tables_1_and_2({**_OMNIGLOT, "dataset": ["omniglot"]}),
    "omniglot-rebuilt": _tables_1_and_2({**_OMNIGLOT, "dataset": ["omniglot_rebuilt"]}),
    "caltech": _table_3(_CALTECH, baselines=[1, 2, 5], twice="encoder"),
    # Table 3's search; the validation NLL of the finished cells decides.
    "caltech-search": [{**grid, **_SEARCH} for grid in _table_3(_CALTECH, baselines=[1, 2, 5], twice="encoder")],
    "caltech-short": _short("caltech101_silhouettes", 5_000, 2e-4),
    "mnist-short": _short("binarized_mnist", 60_000, 5e-4),
    "omniglot-short": _short("omniglot", 20_000, 5e-4),
    "omniglot-rebuilt-short": _short("omniglot_rebuilt", 20_000, 5e-4),
}
PAPERS = ("mnist", "omniglot", "caltech", "caltech-search")  # with the paper's networks and budget
SELECTED = ("dataset", "model", "num_samples", "gradient", "encoder_updates")


def expand(grids: Sequence[Grid], given: Grid) -> list[Settings]:
    """All cells of the grids, each once, in order.

    Args:
      grids: the sweep.
      given: values that replace those of the grids; for the fields of `SELECTED` that a grid ranges over or fixes, they
        choose among its cells instead.

    Raises:
      ValueError: nothing is left.
    """
    cells = []
    for grid in grids:
        selected = [name for name in SELECTED if name in grid and name in given]
        values = {**grid, **{name: value for name, value in given.items() if name not in selected}}
        values |= {name: [value for value in grid[name] if value in given[name]] for name in selected}
        cells += [Settings(**dict(zip(values, cell, strict=True))) for cell in itertools.product(*values.values())]
    if not cells:
        wanted = {name: list(values) for name, values in given.items() if name in SELECTED}
        raise ValueError(f"nothing in this sweep has {wanted}; options choose among its cells, and cannot add any")
    return list(dict.fromkeys(map(_without_idle, cells)))


def _without_idle(settings: Settings) -> Settings:
    """The settings, with the default for `twice` where there is no further update or no reverse model."""
    is_idle = settings.encoder_updates == 1 or settings.model in ("vae", "iwae")
    return settings._replace(twice=Settings().twice) if is_idle else settings
