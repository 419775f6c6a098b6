"""Checks of images against the published ones; errors say in words what is wrong."""

import pathlib

import numpy as np


def require_shape(found: tuple[int, ...], expected: tuple[int, ...], *, what: str, path: pathlib.Path) -> None:
    """Raises a ValueError that names the path unless the shapes are equal."""
    if found == expected:
        return
    hint = ": it looks transposed" if len(expected) == 2 and found == expected[::-1] else ""
    raise ValueError(f"{path}: {what} has shape {found} where {expected} was expected{hint}")


def require_values(images: np.ndarray, *, integer: bool, what: str, path: pathlib.Path) -> None:
    """Raises a ValueError unless all values are from 0 to 1, or if integer, 0 or 1."""
    valid = (images == 0) | (images == 1) if integer else (images >= 0) & (images <= 1)
    if not valid.all():
        raise ValueError(
            f"{path}: {what} holds the value {images[~valid][0]:.6g}, and {np.count_nonzero(~valid) - 1:,} more that "
            f"are not {'0 or 1' if integer else 'from 0 to 1'}"
        )


def require_polarity(mean: float, expected: float | None, *, what: str, path: pathlib.Path) -> None:
    """Raises a ValueError if the mean pixel, 0 to 1, is closer to `1 - expected` than to `expected`.

    Nothing is checked where the expected mean is unknown.
    """
    if expected is not None and abs(mean - (1 - expected)) < abs(mean - expected):
        raise ValueError(f"{path}: {what} looks inverted: mean pixel {mean:.3f}, expected about {expected:.3f}")
