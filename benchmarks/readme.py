"""The two tables of the README, from result files: the paper's numbers beside ours, and a step beside other libraries.

`benchmarks.pages` writes them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.shared.markdown import table as markdown
from experiments.tables.cells import PUBLISHED, make_block, means, published_of, row_title, titles
from experiments.tables.collected import Result
from experiments.vae.models import alpha_of

FIGURE = "test_nll"
Cells = dict[tuple[str, str, str], dict[int, str]]  # data set, model, and seeds with steps: K -> numbers
CONTESTANTS = {  # names of `benchmarks.peers`, and how the README calls them
    "hiwae-dreg-scanned": "hiwae_jax, DReG gradient, steps scanned",
    "hiwae-dreg-chunks": "hiwae_jax, DReG gradient",
    "numpyro": "NumPyro",
    "tfp": "TensorFlow Probability on JAX",
    "torch-compiled": "PyTorch by hand, compiled",
}


def paper_table(results: Sequence[Result]) -> str:
    """A row for each model with the paper's networks, and a column for each K, of cells with a published number."""
    rows = _paper_cells(results)
    counts = sorted({K for cells in rows.values() for K in cells})
    header = ["test NLL, ours (published)", "model", "seeds, steps", *(f"K = {K}" for K in counts)]
    return markdown(header, [[*row, *(cells.get(K, "") for K in counts)] for row, cells in rows.items()])


def _paper_cells(results: Sequence[Result]) -> Cells:
    rows: Cells = {}
    for dataset, name in titles().items():
        if dataset not in PUBLISHED:
            continue
        block = make_block(results, dataset, "conv")
        for (row, K), result in sorted(block.cells.items(), key=lambda cell: (_order(cell[0][0]), cell[0][1])):
            for theirs, numbers in published_of(block, row, K).items():
                ours = means(result, FIGURE)
                spread = f" +- {np.std(ours, ddof=1):.2f}" if len(ours) > 1 else ""
                number, length = numbers[FIGURE], int(np.max(result.content["steps"]))
                cells = rows.setdefault((name, row_title(theirs), f"{len(ours)}, {length:,}"), {})
                cells[K] = f"{np.mean(ours):.2f}{spread} ({number.mean:.2f} +- {number.deviation:.2f})"
    return rows


def _order(row: tuple[str, int]) -> tuple[float, int]:
    alpha = alpha_of(row[0]) if row[0].startswith("hiwae-") else -1.0
    return (-1.0 if alpha is None else alpha, row[1])


def peers_table(contents: Sequence[dict[str, Any]]) -> str:
    """CPU time of a step over that of plain JAX: the range of the medians of several runs."""
    counts = sorted(set.intersection(*({cell["num_samples"] for cell in content["cells"]} for content in contents)))
    lines = [
        f"| CPU time of a step / plain JAX | {' | '.join(f'K = {K}' for K in counts)} |",
        f"| --- |{' --- |' * len(counts)}",
    ]
    for name, title in CONTESTANTS.items():
        columns = []
        for K in counts:
            medians = [_median(content, K, name) for content in contents]
            low, high = (f"{bound(medians):.2f}" for bound in (min, max))
            columns.append(low if low == high else f"{low} to {high}")
        lines.append(f"| {title} | {' | '.join(columns)} |")
    return "\n".join(lines)


def _median(content: dict[str, Any], K: int, name: str) -> float:
    (cell,) = (cell for cell in content["cells"] if cell["num_samples"] == K)
    ratio: float = cell["contestants"][name]["cpu_ratio"][1]
    return ratio
