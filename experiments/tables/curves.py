"""The figure of learning curves: how the cells of the tables with the paper's networks were trained."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.shared import palette
from experiments.shared.figures import Axes, Line2D, panels, save
from experiments.tables.cells import Block, drawn_datasets, make_block, published_of, row_title, titles
from experiments.tables.collected import Result
from experiments.tables.figure import ROWS

SHOWN_NATS = 14.0  # at least, above the lowest point; the first steps are far higher


def draw_curves(results: Sequence[Result], path: pathlib.Path) -> None:
    """Training and validation bound against steps: a panel for each data set and K, a colour for each model.

    Bounds are negated, as in the tables, and are means over seeds. A square is the published validation bound, and
    hollow where the encoder was updated twice.
    """
    blocks = [make_block(results, dataset, "conv") for dataset in drawn_datasets(results, "conv")]
    shown = [(block, K) for block in blocks for K in sorted({K for _, K in block.cells})]
    figure, axes = panels(math.ceil(len(shown) / 2), 2, height=2.1)
    lines: dict[str, Line2D] = {}
    for axis, (block, K) in zip(axes.ravel(), shown, strict=False):
        lines |= _draw_panel(axis, block, K)
    for axis in axes.ravel()[len(shown) :]:
        axis.set_axis_off()
    handles = [lines[row_title(row)] for row in ROWS if row_title(row) in lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    save(figure, path)


def _draw_panel(axis: Axes, block: Block, K: int) -> dict[str, Line2D]:
    """The curves of one data set and K; returns a line for each model, by its name."""
    lines: dict[str, Line2D] = {}
    ends: list[float] = []
    for row in (row for row, of_K in block.cells if of_K == K):
        curves = block.cells[row, K].content["curves"]
        validation, training = (-np.mean(curves[name], axis=0) for name in ("validation_bound", "train_bound"))
        steps = np.asarray(curves["step"]) / 1_000
        style = {"color": palette.of_model(row[0]), "linestyle": "--" if row[1] > 1 else "-"}
        (lines[row_title(row)],) = axis.plot(steps, validation, label=row_title(row), **style)
        axis.plot(steps, training, alpha=0.4, **style)
        ends += [validation.min(), validation[-1], training.min()]
        for theirs, numbers in published_of(block, row, K).items():
            face = "white" if row[1] > 1 else palette.of_model(theirs[0])
            bound = numbers["validation_bound"].mean
            axis.plot(steps[-1] * 1.05, bound, "s", color=style["color"], markerfacecolor=face)
            ends.append(bound)
    axis.set_ylim(min(ends) - 0.5, max(min(ends) + SHOWN_NATS, max(ends) + 1.0))
    axis.set_title(f"{titles()[block.dataset]}, K = {K}")
    axis.set_xlabel("thousand steps")
    return lines
