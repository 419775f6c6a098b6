"""What the numbers in the text of pages are computed from: functions that read the result files.

The expressions in the comments `<!-- numbers` call them (`benchmarks.numbers`). `value` reads any entry of a file. The
others are short for what several pages name. A new one is a function with `@in_pages`.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from benchmarks import models
from experiments.tables import collected, published
from experiments.tables.cells import best, make_block, means, published_of
from experiments.tables.collected import Result

Function = TypeVar("Function", bound=Callable[..., Any])
DREG = "doubly_reparameterized"
NETS = {"conv": "conv 450/1,920", "mlp": "mlp 100/100"}
DATASETS = {"MNIST": "binarized_mnist", "OMNIGLOT": "omniglot_rebuilt", "Caltech101": "caltech101_silhouettes"}
TRAINING_IMAGES = {"MNIST": 50_000, "OMNIGLOT": 23_000, "Caltech101": 4_100}
NAMES: dict[str, Any] = {  # what expressions may call or name
    "DREG": DREG,
    "PLAIN": "reparameterized",
    "ONE_SAMPLE": "one backward sample",
    "ONE_HEAD": "H-IWLB offsets",
    "PROPOSAL": "proposal networks",
    "SECOND": "peers_second/peers.json",
    "NO_DRAW": "overhead_no_draw/overhead.json",
}
RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"


def in_pages(function: Function) -> Function:
    """A function that expressions may call."""
    NAMES[function.__name__] = function
    return function


@functools.cache
def content(file: str) -> Any:
    """A result file, by its path below `results/`.

    Raises:
      ValueError: there is none.
    """
    path = RESULTS / file
    if not path.exists():
        raise ValueError(f"results/{file} does not exist")
    return json.loads(path.read_text())


@in_pages
def value(file: str, *path: str | int | dict[str, Any]) -> Any:
    """An entry of a result file: names of entries, places in a list, or a dict that one cell of a list agrees with.

    Raises:
      ValueError: there is no such file, entry, place or cell, or several such cells.
    """
    found = content(file)
    for step in path:
        if isinstance(step, dict):
            cells = found.values() if isinstance(found, dict) else found
            chosen = [cell for cell in cells if all(cell.get(name) == wanted for name, wanted in step.items())]
            if len(chosen) != 1:
                raise ValueError(f"results/{file}: expected one cell with {step}, got {len(chosen)}")
            found = chosen[0]
            continue
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            there = list(found) if isinstance(found, dict) else f"a list of {len(found)}"
            raise ValueError(f"results/{file}: there is no {step!r} in {there}") from None
    return found


@in_pages
def peers(name: str, K: int, run: str = "peers.json") -> float:
    """CPU time of a step of a contestant of `benchmarks.peers` over that of plain JAX, the median over rounds."""
    ratio: float = value(run, "cells", {"num_samples": K}, "contestants", name, "cpu_ratio", 1)
    return ratio


@in_pages
def span(values: Iterable[float]) -> tuple[float, float]:
    """The smallest and the largest; in an expression, `*span(...)` stands for two numbers."""
    listed = list(values)
    return min(listed), max(listed)


@in_pages
def scaling(what: str, K: int, bound: str = "IWLB", alpha: float = 0.0, **others: str) -> float:
    """An entry of a cell of `benchmarks.k_scaling`: DReG, MLP, float32, as recommended, or with other settings."""
    file = others.pop("file", "k_scaling_cpu.json")
    usual = {"task": "train", "decoder": "mlp", "gradient": DREG, "precision": "float32", "way": "recommended"}
    cell = {"bound": bound, "alpha": alpha, "num_samples": K, **usual, **others}
    number: float = value(file, "cells", cell, what)
    return number


@in_pages
def on_h200(what: str, K: int, precision: str) -> float:
    """An entry of the IWLB with DReG and MLP on one NVIDIA H200."""
    return scaling(what, K, precision=precision, file="k_scaling_nvidia-h200.json")


@in_pages
def evidence(what: str, bound: str, num_samples: int) -> float:
    """The same of the estimate of log p(x) with a million samples, by draws of so many."""
    cell = {"task": "evaluate", "bound": bound, "num_samples": num_samples}
    number: float = value("k_scaling_cpu.json", "cells", cell, what)
    return number


@in_pages
def step(nets: str, name: str, K: int, what: str = "cpu", file: str = "overhead.json") -> float:
    """Of a step of `benchmarks.overhead` with "conv" or "mlp" networks: the median ratio to the IWLB, or an entry."""
    found = value(file, "cells", f"{NETS[nets]}, K = {K}", "steps", name, what)
    number: float = found[0] if isinstance(found, list) else found
    return number


@in_pages
def part(nets: str, name: str, K: int, which: str, what: str = "cpu") -> float:
    """Of a part of such a step, over the whole step of the IWLB."""
    found = value("overhead.json", "cells", f"{NETS[nets]}, K = {K}", "parts", f"{name} {DREG}", which, what)
    number: float = found[0] if isinstance(found, list) else found
    return number


@in_pages
def contest(way: str, K: int, what: str = "cpu") -> float:
    """CPU time of a way of this library over the PyTorch port, or another entry."""
    found = value("overhead.json", "contests", f"{NETS['conv']}, K = {K}", "ways", way, what)
    number: float = found[0] if isinstance(found, list) else found
    return number


@in_pages
def share(K: int, *parts: str) -> float:
    """The share of some parts of a step, in percent (`benchmarks.step_parts`)."""
    return 100.0 * sum(value("step_parts.json", "cells", {"num_samples": K}, "shares", name) for name in parts)


@in_pages
def fastest(K: int, run: str = "peers.json") -> float:
    """The smallest ratio to plain JAX of the other libraries."""
    return min(
        peers(name, K, run) for name in ("numpyro", "tfp", "tfp-dreg", "torch", "torch-compiled", "pyro", "pythae")
    )


@in_pages
def of_plain(K: int) -> float:
    """A whole step over one of plain JAX, as `benchmarks.step_parts` measured it."""
    ratio: float = value("step_parts.json", "cells", {"num_samples": K}, "whole step / plain JAX")
    return ratio


@in_pages
def in_bfloat16(K: int, what: str, way: str = "products") -> float:
    """An entry of the step of `benchmarks.step_parts` with its products, or its networks, in bfloat16."""
    entry: float = value("step_parts.json", "cells", {"num_samples": K}, "bfloat16", f"{way} in bfloat16", what)
    return entry


@in_pages
def of_one_device(work: str, cells: str) -> tuple[float, float]:
    """The time of "training" or "evaluation" with a device for each core over that with one, in cells of this name."""
    rows = value("cpu_devices.json", "cells")
    return span(row[work]["ratio"] for row in rows if row["cell"].startswith(cells))


@in_pages
def grown(bound: str, K: int = 5_000, what: str = "temp_bytes", **others: str) -> float:
    """By how much an entry of a cell of `benchmarks.k_scaling` is larger at this K than at K = 50."""
    return scaling(what, K, bound, **others) / scaling(what, 50, bound, **others)


@in_pages
def part_of_refilled(K: int) -> float:
    """The FLOPs that refilling adds to a step of the convolutional networks, over those of the IWLB."""
    steps = (f"H-IWLB 1 {gradient}" for gradient in ("refilled", DREG))
    with_refills, without = (step("conv", name, K, "flops_ratio") for name in steps)
    return with_refills - without


@in_pages
def compile_seconds(nets: str) -> list[float]:
    """Of all steps of `benchmarks.overhead` with these networks."""
    cells = [cell for cell in value("overhead.json", "cells").values() if cell["nets"] == NETS[nets]]
    return [entry["compile_seconds"] for cell in cells for entry in cell["steps"].values()]


@in_pages
def nll(dataset: str, model: str, K: int, figure: str = "test_nll", updates: int = 1) -> float:
    """The mean over seeds of a figure of a small MLP on "MNIST", "OMNIGLOT" or "Caltech101", lower is better."""
    return models.mean(_trained(), DATASETS[dataset], model, K, figure, updates=updates)


@in_pages
def paired(dataset: str, gradient: str, figure: str = "test_nll") -> float:
    """By how much this gradient is worse than the default one, for H-IWAE with alpha = 1 and K = 5."""
    ours, default = (models.with_gradient(_trained(), DATASETS[dataset], name) for name in (gradient, DREG))
    return float(np.mean(means(ours, figure) - means(default, figure)))


@in_pages
def published_nll(dataset: str, model: str, K: int, figure: str = "test_nll", *, updates: int = 1) -> float:
    """The published mean for the paper's networks."""
    (table,) = (table for table in published.TABLES if DATASETS[dataset] in (table.dataset, f"{table.dataset}_rebuilt"))
    return table.cells[(model, updates), K][figure].mean


@in_pages
def num_results(architecture: str = "mlp") -> int:
    """How many results of `experiments.vae` there are."""
    return len([result for result in _trained() if result.settings.architecture == architecture])


@in_pages
def trained_steps(dataset: str, *, epochs: bool = False) -> float:
    """The steps of the small MLPs on a data set, or the epochs in them."""
    (steps,) = {
        r.content["steps"] for r in _trained() if (r.settings.dataset, r.settings.architecture) == _mlp(dataset)
    }
    return float(steps * 64 / TRAINING_IMAGES[dataset] if epochs else steps)


def _mlp(dataset: str) -> tuple[str, str]:
    return DATASETS[dataset], "mlp"


@in_pages
def paper_networks(
    dataset: str, model: str, K: int, what: str = "test_nll", *, updates: int = 1, gradient: str = DREG, **settings: Any
) -> Any:
    """The mean of a figure of the result with the paper's networks, or another entry, such as "train_seconds".

    Of several results it is the one that the tables show. `settings` are further fields of `Settings`, which narrow the
    choice.
    """
    wanted = {
        **{"dataset": DATASETS[dataset], "architecture": "conv", "model": model, "num_samples": K},
        **{"encoder_updates": updates, "gradient": gradient},
        **settings,
    }
    found = [result for result in _trained() if wanted.items() <= result.settings._asdict().items()]
    if not found:
        raise ValueError(f"results/tables has no result with the paper's networks with {wanted}")
    entry = best(found).content[what]
    return float(np.mean(entry["mean"])) if isinstance(entry, dict) and "mean" in entry else entry


@in_pages
def published_cells(*, above: bool = False) -> int:
    """How many results with the paper's networks have a published test NLL, or one that is lower than ours."""
    blocks = [make_block(_trained(), dataset, "conv") for dataset in DATASETS.values()]
    differences = [
        np.mean(means(result, "test_nll")) - numbers["test_nll"].mean
        for block in blocks
        for (row, K), result in block.cells.items()
        for numbers in published_of(block, row, K).values()
    ]
    return sum(difference > 0.0 for difference in differences) if above else len(differences)


@in_pages
def of_trained_cell(model: str, K: int, what: str = "difference", *, updates: int = 1) -> float:
    """An entry of `benchmarks.trained_cells` on Caltech101: by default how much more samples lower the NLL."""
    cell = {"dataset": "caltech101_silhouettes", "model": model, "num_samples": K, "encoder_updates": updates}
    return float(value("trained_cells.json", "cells", cell, what))


@in_pages
def gap(dataset: str, K: int, *, model: str = "hiwae-1") -> float:
    """By how much the test NLL of the IWAE with the paper's networks is above that of another model."""
    return float(paper_networks(dataset, "iwae", K) - paper_networks(dataset, model, K))


@functools.cache
def _trained() -> list[Result]:
    return collected.read([RESULTS / "tables"])


@in_pages
def toy(
    z0: str, alpha: float, steps: int, what: str = "gap", figure: str = "figure 3", *, networks: str = "small"
) -> float:
    """The mean over seeds of an entry of the fits of a figure of the toy target; a correlation is one of pairs."""
    return float(np.mean(toy_seeds(z0, alpha, steps, what, figure, networks=networks)))


@in_pages
def toy_seeds(
    z0: str, alpha: float, steps: int, what: str = "gap", figure: str = "figure 3", *, networks: str = "small"
) -> list[float]:
    """The same for each seed; `networks` are the small ones or those of the "paper"."""
    file = {"small": "toy_figures.json", "paper": "toy_paper.json"}[networks]
    return _seeds(content(file)[figure]["results"], what, z0=z0, alpha=alpha, steps=steps)


@in_pages
def mixture(z0: str, gradient: str = DREG) -> float:
    """The mean gap of a fit in toy_mixture.json."""
    return float(np.mean(_seeds(content("toy_mixture.json")["results"], "gap", z0=z0, gradient=gradient)))


@in_pages
def short_training(z0: str, reverse: str, gradient: str, *, decay: bool = False) -> float:
    """The mean gap of a fit of 5,000 steps in toy_training.json."""
    wanted = {"z0": z0, "reverse": reverse, "gradient": gradient, "decay": decay, "steps": 5_000}
    return float(np.mean(_seeds(content("toy_training.json")["results"], "gap", **wanted)))


def _seeds(results: list[dict[str, Any]], what: str, **settings: Any) -> list[float]:
    found = [result for result in results if settings.items() <= result["settings"].items()]
    if len(found) != 1:
        raise ValueError(f"expected one fit with {settings}, got {len(found)}")
    values = np.asarray(found[0][what])
    if what == "weight_correlation":
        values = values[:, *np.triu_indices(values.shape[-1], 1)].mean(-1)
    return [float(number) for number in values]


@in_pages
def gap_at(dataset: str, model: str, step: int, what: str = "gap") -> float:
    """An entry of `benchmarks.gap` after so many steps."""
    cell = value("gap.json", "cells", {"dataset": dataset, "model": model})
    number: float = cell[what][cell["steps"].index(step)]
    return number


@in_pages
def gap_ratios(dataset: str, over: str = "half_log_variance", since: int = 1_500) -> list[float]:
    """An entry over the gap, of all models of a data set and all points from a step on."""
    cells = [cell for cell in content("gap.json")["cells"] if cell["dataset"] == dataset]
    return [
        above / below
        for cell in cells
        for step, above, below in zip(cell["steps"], cell[over], cell["gap"], strict=True)
        if step >= since
    ]


@in_pages
def quality(problem: str | None = None, *alphas: float) -> list[dict[str, Any]]:
    """The cells of `benchmarks.gradient_quality`: of a problem, and of these alphas."""
    cells: list[dict[str, Any]] = content("gradient_quality.json")["cells"]
    return [c for c in cells if problem in (None, c["problem"]) and (not alphas or c["alpha"] in alphas)]


@in_pages
def biased(*gradients: str) -> tuple[int, int]:
    """In how many comparisons a bias is seen, and how many there are."""
    rows = [row for _, row in _rows(gradients)]
    return sum(row["bias_is_seen"] for row in rows), len(rows)


@in_pages
def largest_z(*gradients: str, what: str = "largest_z", without_toy_of_50: bool = False) -> float:
    """The largest z-score of a bias, or another entry of the comparison that has it."""
    rows = [
        row
        for cell, row in _rows(gradients)
        if not without_toy_of_50 or (cell["problem"], cell["alpha"], cell["num_samples"]) != ("toy", 0.0, 50)
    ]
    number: float = max(rows, key=lambda row: row["largest_z"])[what]
    return number


def _rows(gradients: Iterable[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [
        (c, stage[name]) for c in quality() for stage in c["quality"].values() for name in gradients if name in stage
    ]


@in_pages
def variances(gradient: str, over: str, *alphas: float) -> list[float]:
    """The variance of one gradient over that of another after training, in all cells that have both."""
    trained = [cell["quality"]["trained"] for cell in quality(None, *alphas)]
    both = [stage for stage in trained if gradient in stage and over in stage]
    return [stage[gradient]["variance_ratio"] / stage[over]["variance_ratio"] for stage in both]


@in_pages
def gained(gradient: str, over: str, cells: Iterable[dict[str, Any]], at: str = "equal_steps") -> list[float]:
    """By how many nats the bound with one gradient is above that with another, in all cells that have both."""
    bounds = [cell["bound"] for cell in cells if gradient in cell["bound"]]
    return [float(np.mean(bound[gradient][at]) - np.mean(bound[over][at])) for bound in bounds]


@in_pages
def slower(cells: Iterable[dict[str, Any]], gradient: str = DREG) -> list[float]:
    """The time of a step with a gradient over that with the plain one, in these cells."""
    return [cell["cost"][gradient]["time_ratio"] for cell in cells]


@in_pages
def on_digits(model: str) -> float:
    """The mean bound of a model of `benchmarks.proposals` at equal steps."""
    return float(np.mean(value("proposals.json", "cells", {"model": model}, "equal_steps")))


@in_pages
def objective(problem: str, name: str, at: str = "equal_steps") -> float:
    """The mean bound after training with an objective of `benchmarks.objectives`."""
    return float(np.mean(value("objectives.json", "cells", {"problem": problem}, "bound", name, at)))
