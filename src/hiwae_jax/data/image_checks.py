"""What is wrong with images that are not the published ones, in words."""

import pathlib

import numpy as np


def require_shape(found: tuple[int, ...], expected: tuple[int, ...], *, what: str, path: pathlib.Path) -> None:
    """ValueError, naming the path and what it is about, unless the shapes are equal."""
    if found == expected:
        return
    hint = ": it looks transposed" if len(expected) == 2 and found == expected[::-1] else ""
    raise ValueError(f"{path}: {what} has shape {found} where {expected} was expected{hint}")


def require_values(images: np.ndarray, *, integer: bool, what: str, path: pathlib.Path) -> None:
    """ValueError unless all values are from 0 to 1, and if integer none is between; naming what is wrong."""
    valid = (images == 0) | (images == 1) if integer else (images >= 0) & (images <= 1)
    if not valid.all():
        raise ValueError(
            f"{path}: {what} holds the value {images[~valid][0]:.6g}, and {np.count_nonzero(~valid) - 1:,} more that "
            f"are not {'0 or 1' if integer else 'from 0 to 1'}"
        )


def require_polarity(mean: float, expected: float | None, *, what: str, path: pathlib.Path) -> None:
    """ValueError if the mean pixel, 0 to 1, is closer to that of the negatives than to the expected one.

    Nothing is checked where the expected mean is unknown.
    """
    if expected is not None and abs(mean - (1 - expected)) < abs(mean - expected):
        raise ValueError(f"{path}: {what} looks inverted: mean pixel {mean:.3f}, expected about {expected:.3f}")
