"""The figure of test NLL against K, ours beside the published values."""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.shared.figures import plt, save
from experiments.tables import published
from experiments.tables.cells import (
    PUBLISHED,
    Block,
    columns_of,
    make_block,
    means,
    published_nll,
    row_title,
    rows_of,
    titles,
)
from experiments.tables.collected import Result
from experiments.tables.published import Row

MARKERS = {"conv": "o", "mlp": "s"}
ROWS = list(dict.fromkeys(row for table in published.TABLES for row in table.nll))
COLORS = {row: f"C{n}" for n, row in enumerate(ROWS)}


def draw_figure(results: Sequence[Result], path: pathlib.Path) -> None:
    """Draw the data sets and rows of the paper: ours with standard deviations over seeds, published values hollow."""
    run = {result.settings.dataset for result in results}
    datasets = [name for name in titles() if name in PUBLISHED and (name in run or PUBLISHED[name].dataset == name)]
    size = {"figsize": (3.6 * len(datasets), 4.6), "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(datasets), **size)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        blocks = [make_block(results, dataset, architecture) for architecture in MARKERS]
        columns = sorted({K for block in blocks for K in columns_of(block)})
        rows = [row for row in ROWS if any(row in rows_of(block) for block in blocks)]
        for block in blocks:
            _draw_block(axis, block, rows, columns)
        axis.set_xticks(range(len(columns)), [str(K) for K in columns])
        axis.set_xlim(-0.5, len(columns) - 0.5)
        for place in range(1, len(columns)):
            axis.axvline(place - 0.5, color="black", alpha=0.15, linewidth=0.8)
        axis.set_title(titles()[dataset] + ("" if dataset in run else " (ours: not run)"), fontsize=9)
        axis.set_xlabel("K")
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].set_ylabel("test NLL in nats, lower is better")
    handles = [plt.Line2D([], [], color=color, lw=4, label=row_title(row)) for row, color in COLORS.items()]
    kinds = {"published": ("o", "none"), **{f"ours, {name}": (marker, "black") for name, marker in MARKERS.items()}}
    for label, (marker, face) in kinds.items():
        handles.append(plt.Line2D([], [], color="black", marker=marker, mfc=face, ls="none", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8)
    save(figure, path, dpi=110)


def _draw_block(axis: plt.Axes, block: Block, rows: Sequence[Row], columns: Sequence[int]) -> None:
    # The published values belong to the paper's networks and to the published images.
    comparable = block.architecture == "conv" and block.published.dataset == block.dataset
    width = 0.9 / len(rows)
    for (n, row), (column, K) in itertools.product(enumerate(rows), enumerate(columns)):
        place = column + width * (n - (len(rows) - 1) / 2)
        style = {"color": COLORS[row], "linestyle": "none", "markersize": 5, "marker": MARKERS[block.architecture]}
        theirs, result = published_nll(block, row, K), block.cells.get((row, K))
        if theirs is not None and comparable:
            axis.plot(place - 0.2 * width, theirs, markerfacecolor="none", **style)
        if result is not None:
            ours = means(result, "test_nll")
            spread = np.std(ours, ddof=1) if len(ours) > 1 else None
            axis.errorbar(place + 0.2 * width, ours.mean(), spread, capsize=2, **style)
