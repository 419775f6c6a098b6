"""The mean of a figure over the images of a split, and its two errors."""

from typing import NamedTuple

import numpy as np


class Figure(NamedTuple):
    """A mean over a split, in nats, of each seed.

    Attributes:
      mean: the mean over the examples, [seeds].
      standard_error: of that mean, from the spread between examples, [seeds].
      monte_carlo_error: of that mean, from the samples of z alone, the examples being given, [seeds].
    """

    mean: list[float]
    standard_error: list[float]
    monte_carlo_error: list[float]


def draws_for(num_samples: int, *, at_least: int) -> int:
    """The number of draws of `num_samples` samples that makes `at_least` samples; at least two, for an error."""
    return max(2, -(-at_least // num_samples))


def mean_of_seed(values: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """The entries of a `Figure` for one seed, from the values [N] of independent images and their errors [N].

    The standard error is `std(values) / sqrt(N)`, with N - 1 in the variance; the Monte Carlo error of a mean of N
    values that are independent of one another is `sqrt(sum(errors^2)) / N`.
    """
    N = len(values)
    return (
        float(np.mean(values)),
        float(np.std(values, ddof=1) / np.sqrt(N)),
        float(np.sqrt(np.sum(errors**2)) / N),
    )


def over_seeds(of_seeds: list[tuple[float, float, float]]) -> Figure:
    """The entries of all seeds, in their order."""
    return Figure(*map(list, zip(*of_seeds, strict=True)))
