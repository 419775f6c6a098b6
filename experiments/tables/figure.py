"""The figures of test NLL against K: the paper's networks beside the published values, and small MLPs."""

import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.shared.figures import plt, save
from experiments.tables import published
from experiments.tables.cells import (
    Block,
    columns_of,
    drawn_datasets,
    make_block,
    means,
    published_of,
    row_title,
    rows_of,
    titles,
)
from experiments.tables.collected import Result

ROWS = list(dict.fromkeys(row for table in published.TABLES for row, _ in table.cells))
COLORS = {row: f"C{n}" for n, row in enumerate(ROWS)}
SHARED = "black"  # one model for all alphas at K = 1


def draw_figure(results: Sequence[Result], path: pathlib.Path, architecture: str = "conv") -> None:
    """Draw the data sets and rows of the paper: ours with standard deviations over seeds, published values hollow.

    With other networks than the paper's, only data sets that were run, and no published values.
    """
    results = [result for result in results if result.settings.architecture == architecture]
    run, datasets = {result.settings.dataset for result in results}, drawn_datasets(results, architecture)
    size = {"figsize": (3.6 * len(datasets), 4.6), "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(datasets), **size)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        block = make_block(results, dataset, architecture)
        columns = columns_of(block)
        _draw_block(axis, block, columns)
        axis.set_xticks(range(len(columns)), [str(K) for K in columns])
        axis.set_xlim(-0.5, len(columns) - 0.5)
        for place in range(1, len(columns)):
            axis.axvline(place - 0.5, color="black", alpha=0.15, linewidth=0.8)
        axis.set_title(titles()[dataset] + ("" if dataset in run else " (ours: not run)"), fontsize=9)
        axis.set_xlabel("K")
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].set_ylabel("test NLL in nats, lower is better")
    handles = [plt.Line2D([], [], color=color, lw=4, label=row_title(row)) for row, color in COLORS.items()]
    for label, face in (("published", "none"), ("ours", "black")) if architecture == "conv" else ():
        handles.append(plt.Line2D([], [], color="black", marker="o", mfc=face, ls="none", label=label))
    if architecture != "conv":  # where three published models stand for the one of ours, their colours explain it
        handles.append(plt.Line2D([], [], color=SHARED, lw=4, label="H-IWAE, any alpha (K = 1)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    save(figure, path, dpi=110)


def _draw_block(axis: plt.Axes, block: Block, columns: Sequence[int]) -> None:
    for column, K in enumerate(columns):
        rows = rows_of(block, K)
        width = 0.9 / len(rows)
        for n, row in enumerate(rows):
            place = column + width * (n - (len(rows) - 1) / 2)
            for theirs, cell in published_of(block, row, K).items():
                style = {"color": COLORS[theirs], "linestyle": "none", "markersize": 5, "marker": "o"}
                number = cell["test_nll"]
                axis.errorbar(place - 0.2 * width, *number, capsize=2, markerfacecolor="none", **style)
            result = block.cells.get((row, K))
            if result is not None:
                ours = means(result, "test_nll")
                spread = np.std(ours, ddof=1) if len(ours) > 1 else None
                style = {"color": COLORS.get(row, SHARED), "linestyle": "none", "markersize": 5, "marker": "o"}
                axis.errorbar(place + 0.2 * width, ours.mean(), spread, capsize=2, **style)
