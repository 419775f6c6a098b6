"""Matplotlib for programs that draw into files and need no display, and what all figures have in common.

A figure is `WIDTH` inches wide, whatever it shows. A page shows it 700 pixels wide, with letters of at least 8 points,
and a phone 390. Panels that do not fit side by side stand below one another. Names stand at the ends of lines where
there is room (`label_lines`). Colours are in `experiments.shared.palette`.
"""

import io
import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
import PIL.Image

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # after the backend is chosen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

__all__ = [
    "DPI",
    "WIDTH",
    "Axes",
    "Figure",
    "Line2D",
    "label_lines",
    "log_ticks",
    "num_samples_axis",
    "panels",
    "plt",
    "save",
]

WIDTH = 5.8  # inches
DPI = 170
TOGETHER = 0.1
STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.7,
    "lines.markersize": 4,
}
MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), tuple(np.arange(1.0, 9.95, 0.1)))


plt.rcParams.update(STYLE)


def panels(
    rows: int, columns: int = 1, *, height: float, grid: bool = True, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of the common width with panels of this height in inches; the axes are [rows, columns]."""
    size = (WIDTH, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    for axis in axes.ravel():
        axis.grid(visible=grid)
    return figure, axes


def num_samples_axis(axis: Axes, values: Iterable[int]) -> None:
    """A logarithmic axis of K, with a tick at each value that leaves room for the one before."""
    axis.set_xscale("log")
    known = sorted(set(values))
    shown = [K for K in known if str(K)[0] in "125" and set(str(K)[1:]) <= {"0"}] or known
    if len(shown) > 7:
        shown = [K for K in shown if str(K)[0] == "1"]
    axis.xaxis.set_major_locator(FixedLocator(shown))
    axis.xaxis.set_major_formatter(FixedFormatter([f"{K:,}" for K in shown]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("K")


def log_ticks(axis: Axes, *, at_least: int = 3) -> None:
    """A logarithmic y-axis with plain numbers at its ticks, and no fewer than three of them."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for mantissas in MANTISSAS:
        ticks = [m * 10.0**e for e, m in itertools.product(exponents, mantissas) if low <= m * 10.0**e <= high]
        if len(ticks) >= at_least:
            break
    ticks = ticks[:: 1 + (len(ticks) - 1) // 7]
    axis.yaxis.set_major_locator(FixedLocator(ticks))
    axis.yaxis.set_major_formatter(FixedFormatter([f"{tick:,.6g}" for tick in ticks]))
    axis.yaxis.set_minor_locator(NullLocator())


def label_lines(axis: Axes, lines: Sequence[Line2D]) -> None:
    """The name of each line at its right end, in its colour; names that would overlap move apart.

    The figure must have all its lines and limits. Lines that end at about the same place, within `TOGETHER` of the
    panel's width, have their names in one column: at the panel's edge, or inside where others go on.
    """
    if not lines:
        return
    axis.figure.draw_without_rendering()
    letters = plt.rcParams["legend.fontsize"]
    gap = 1.2 * letters / 72.0 * axis.figure.dpi / axis.get_window_extent().height
    to_axes = axis.transData + axis.transAxes.inverted()
    ends = {line: to_axes.transform((line.get_xdata()[-1], line.get_ydata()[-1])) for line in lines}
    edge = max(x for x, _ in ends.values())
    left = sorted(lines, key=lambda line: -ends[line][0])
    while left:
        place = ends[left[0]][0]
        column = [line for line in left if ends[line][0] > place - TOGETHER]
        left = left[len(column) :]
        outer = place > edge - TOGETHER
        heights = _moved_apart(np.array([ends[line][1] for line in column]), gap)
        if not outer and len(column) == 1:
            heights += 0.6 * gap  # above the end of the line, which others may cross
        for line, height in zip(column, heights, strict=True):
            text = axis.annotate(
                line.get_label(),
                (max(1.0, place) if outer else place, height),
                xycoords="axes fraction",
                xytext=(4 if outer else 6, 0),
                textcoords="offset points",
                va="center",
                color=line.get_color(),
                fontsize=letters,
            )
            text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _moved_apart(places: np.ndarray, gap: float) -> np.ndarray:
    """The nearest places, in least squares, that keep the order and are at least a gap apart."""
    order = np.argsort(places, kind="stable")
    shifted = places[order] - gap * np.arange(len(places))  # now they need to be in order only
    count = range(len(places))
    level = [max(min(shifted[j : k + 1].mean() for k in count[i:]) for j in range(i + 1)) for i in count]
    moved = np.empty(len(places))
    moved[order] = np.array(level) + gap * np.arange(len(places))
    return moved


def save(figure: Figure, path: pathlib.Path, *, dpi: int = DPI, tight: bool = False) -> None:
    """Write a figure into a file, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, bbox_inches="tight" if tight else None)
    plt.close(figure)
    # An image with a palette has a third of the bytes.
    PIL.Image.open(buffer).convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE).save(path, optimize=True)
