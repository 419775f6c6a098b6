"""The figures of test NLL against K: the paper's networks beside the published values, and small MLPs."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.shared import palette
from experiments.shared.figures import Axes, Line2D, label_lines, panels, save
from experiments.tables import published
from experiments.tables.cells import (
    Block,
    columns_of,
    comparable,
    drawn_datasets,
    make_block,
    means,
    published_of,
    row_title,
    shown_row,
    titles,
)
from experiments.tables.collected import Result
from experiments.tables.published import Row

ROWS = list(dict.fromkeys(row for table in published.TABLES for row, _ in table.cells))
Point = tuple[int, float, float]  # K, mean and standard deviation
APART = 0.055  # places between neighbouring rows at one K, where 1 is the distance to the next K


def draw_figure(results: Sequence[Result], path: pathlib.Path, architecture: str = "conv") -> None:
    """Draw the data sets and rows of the paper, a line for each row: means with standard deviations over seeds.

    With the paper's networks the lines are the published values, and ours are diamonds beside them. With others the
    lines are ours, only data sets that were run are shown, and a nat has the same height in all panels.
    """
    results = [result for result in results if result.settings.architecture == architecture]
    datasets = drawn_datasets(results, architecture)
    blocks = [make_block(results, dataset, architecture) for dataset in datasets]
    columns = sorted({K for block in blocks for K in columns_of(block)})
    figure, axes = panels(len(blocks), height=2.5, sharex=True)
    lines = [_draw_block(axis, block, columns) for axis, block in zip(axes[:, 0], blocks, strict=True)]
    if architecture != "conv":
        _equal_heights(list(axes[:, 0]))
    else:
        for axis in axes[:, 0]:
            _draw_nat(axis)
    for axis, block, of_block in zip(axes[:, 0], blocks, lines, strict=True):
        axis.set_xticks(range(len(columns)), [f"K = {K}" for K in columns])
        axis.tick_params(labelbottom=True)
        axis.set_title(f"{titles()[block.dataset]}: test NLL in nats{_what(block)}")
        label_lines(axis, of_block)
    save(figure, path)


def _what(block: Block) -> str:
    if not comparable(block):
        return ""
    return ", published" + (" (diamonds: ours)" if block.cells else " (ours: not run)")


def _draw_block(axis: Axes, block: Block, columns: Sequence[int]) -> list[Line2D]:
    """The lines of one data set, and ours as diamonds where the lines are published."""
    points_of = _published if comparable(block) else _ours
    shown = {row: points for row in ROWS if (points := list(points_of(block, row)))}
    lines = []
    for number, (row, points) in enumerate(shown.items()):
        shift = APART * (number - (len(shown) - 1) / 2)
        lines.append(_draw_row(axis, row, [(columns.index(K) + shift, mean, spread) for K, mean, spread in points]))
        for K, mean, _ in _ours(block, row) if comparable(block) else ():
            style = {"color": palette.of_model(row[0]), "markeredgecolor": "black", "markersize": 8}
            axis.plot(columns.index(K) + shift + APART / 2, mean, "D", **style)
    return lines


def _draw_row(axis: Axes, row: Row, points: Sequence[tuple[float, float, float]]) -> Line2D:
    """A line with standard deviations; dashed, with squares, where the encoder was updated twice."""
    twice = row[1] > 1
    style = {"linestyle": "--" if twice else "-", "linewidth": 1.2, "marker": "s" if twice else "o"}
    places, middles, spreads = zip(*points, strict=True)
    color = palette.of_model(row[0])
    line: Line2D = axis.errorbar(places, middles, spreads, color=color, elinewidth=0.9, **style).lines[0]
    name = row_title(row)
    # The whole name would have no room.
    line.set_label(name.removeprefix("H-IWAE ").replace("encoder twice", "two updates") if twice else name)
    return line


def _published(block: Block, row: Row) -> Iterator[Point]:
    for K in columns_of(block):
        number = published_of(block, shown_row(row, K), K).get(row)
        if number is not None:
            yield (K, *number["test_nll"])


def _ours(block: Block, row: Row) -> Iterator[Point]:
    """The points of a row; at K = 1 one model stands for all alphas."""
    for K in columns_of(block):
        result = block.cells.get((shown_row(row, K), K))
        if result is not None:
            ours = means(result, "test_nll")
            yield K, float(ours.mean()), float(np.std(ours, ddof=1)) if len(ours) > 1 else 0.0


def _draw_nat(axis: Axes) -> None:
    """A bar of one nat, as the panels have different scales."""
    low, high = axis.get_ylim()
    axis.set_xlim(left=-0.5)
    middle = low + 0.3 * (high - low)
    axis.plot([-0.4, -0.4], [middle - 0.5, middle + 0.5], color="black", linewidth=3, solid_capstyle="butt")
    axis.annotate("1 nat", (-0.4, middle), xytext=(5, 0), textcoords="offset points", va="center")


def _equal_heights(axes: Sequence[Axes]) -> None:
    """The same span of nats in all panels."""
    limits = [axis.get_ylim() for axis in axes]
    half = max(high - low for low, high in limits) / 2
    for axis, (low, high) in zip(axes, limits, strict=True):
        axis.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
