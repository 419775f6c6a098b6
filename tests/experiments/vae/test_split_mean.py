"""The mean of a split and its errors, against figures computed by hand."""

import numpy as np
import pytest

from experiments.vae.split_mean import Figure, draws_for, mean_of_seed, over_seeds


def test_mean_standard_error_and_monte_carlo_error():
    # Mean 5; squares of the differences 9 + 1 + 1 + 9 = 20, variance 20 / 3, over 4 images 5 / 3. Monte Carlo:
    # sqrt(9 + 16 + 144 + 0) / 4 = 13 / 4.
    figure = mean_of_seed(np.array([2.0, 4.0, 6.0, 8.0]), np.array([3.0, 4.0, 12.0, 0.0]))
    assert figure == pytest.approx((5.0, np.sqrt(5 / 3), 3.25))


def test_seeds_stay_in_their_order():
    assert over_seeds([(1.0, 0.1, 0.01), (2.0, 0.2, 0.02)]) == Figure([1.0, 2.0], [0.1, 0.2], [0.01, 0.02])


@pytest.mark.parametrize(
    ("num_samples", "at_least", "draws"),
    [(5, 2_000, 400), (7, 2_000, 286), (1, 2_000, 2_000), (50, 2, 2), (3, 7, 3), (1, 2, 2)],
)
def test_draws_have_the_samples_asked_for(num_samples, at_least, draws):
    assert draws_for(num_samples, at_least=at_least) == draws
