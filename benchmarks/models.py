"""The short tables of docs/results.md and docs/faq.md, of the small MLPs of `experiments.vae`.

`benchmarks.pages` writes them. `benchmarks.measured` takes numbers in text from `mean`.
"""

from collections.abc import Sequence

import numpy as np

from experiments.shared.markdown import table as markdown
from experiments.tables.cells import GRADIENT, Block, make_block, means, shown_row
from experiments.tables.collected import Result
from experiments.tables.document import paired_text

MNIST, CALTECH = "binarized_mnist", "caltech101_silhouettes"
DATASETS = {MNIST: "MNIST", CALTECH: "Caltech101"}
FIGURES = {"test_bound": "test bound", "test_nll": "test NLL"}
GRADIENTS = ("reparameterized", "refilled", "path_squared", "authors")
COMPARED = ("hiwae-1", 5)  # the model and K whose gradients are compared


def cell(block: Block, model: str, K: int, *, updates: int = 1) -> Result:
    """The result of a model with one or two updates of the encoder.

    Raises:
      ValueError: it was not run.
    """
    key = shown_row((model, updates), K), K
    if key not in block.cells:
        raise ValueError(f"results/tables has no {model} with K = {K} and {updates} encoder updates on {block.dataset}")
    return block.cells[key]


def mean(results: Sequence[Result], dataset: str, model: str, K: int, figure: str, *, updates: int = 1) -> float:
    """The mean over seeds of a figure of a small MLP, lower is better."""
    return float(np.mean(means(cell(make_block(results, dataset, "mlp"), model, K, updates=updates), figure)))


def with_gradient(results: Sequence[Result], dataset: str, gradient: str) -> Result:
    """The result of `COMPARED` with a gradient."""
    model, K = COMPARED
    wanted = {"dataset": dataset, "architecture": "mlp", "model": model, "num_samples": K, "gradient": gradient}
    found = [result for result in results if wanted.items() <= result.settings._asdict().items()]
    (result,) = (result for result in found if result.settings.encoder_updates == 1)
    return result


def gradients_table(results: Sequence[Result]) -> str:
    """Differences from the default gradient, seed by seed, with standard errors in brackets."""
    columns = [(dataset, figure) for dataset in DATASETS for figure in FIGURES]
    rows = [
        [
            gradient,
            *(
                paired_text(
                    with_gradient(results, dataset, gradient), with_gradient(results, dataset, GRADIENT), figure
                )
                for dataset, figure in columns
            ),
        ]
        for gradient in GRADIENTS
    ]
    return markdown(["gradient", *(f"{DATASETS[dataset]} {FIGURES[figure]}" for dataset, figure in columns)], rows)


def num_samples_table(results: Sequence[Result]) -> str:
    """The test NLL of the IWAE on MNIST against K."""
    block = make_block(results, MNIST, "mlp")
    counts = sorted(K for row, K in block.cells if row == ("iwae", 1))
    numbers = [f"{np.mean(means(cell(block, 'iwae', K), 'test_nll')):.2f}" for K in counts]
    return markdown(["IWAE on MNIST", *(f"K = {K}" for K in counts)], [["test NLL", *numbers]])
