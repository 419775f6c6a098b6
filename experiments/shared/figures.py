"""Matplotlib for programs that draw into files and need no display."""

import pathlib

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # after the backend is chosen
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["Axes", "Figure", "plt", "save"]


def save(figure: Figure, path: pathlib.Path, *, dpi: int, tight: bool = False) -> None:
    """Write a figure into a file, and close it."""
    figure.savefig(path, dpi=dpi, bbox_inches="tight" if tight else None)
    plt.close(figure)
