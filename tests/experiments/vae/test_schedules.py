"""Beta, learning rate and decay of the average by step, against figures computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.vae import schedules


@pytest.mark.parametrize(
    ("step", "warmup", "beta"),
    [
        *[(0, 4, 0.25), (1, 4, 0.5), (2, 4, 0.75), (3, 4, 1.0), (4, 4, 1.0), (99, 4, 1.0)],  # (step + 1) / 4, at most 1
        *[(0, 50_000, 1e-4), (4, 50_000, 1e-4), (9, 50_000, 2e-4), (24_999, 50_000, 0.5)],  # at least 1e-4
        *[(0, 0, 1.0), (7, 0, 1.0)],  # no warm-up
    ],
)
def test_beta_of_the_warm_up(step, warmup, beta):
    assert float(schedules.warmup_beta(jnp.int32(step), warmup=warmup)) == pytest.approx(beta, rel=1e-6)


@pytest.mark.parametrize(
    ("step", "rate"),
    # 100 steps: constant for 50, then 0.2 (0.01 + 0.99 (1 + cos(pi t)) / 2), t = 0, 1/4, 1/2, 3/4 and 1.
    [(0, 0.2), (49, 0.2), (50, 0.2), (75, 0.101), (90, 0.2 * (0.01 + 0.99 * 0.0954915)), (100, 0.002), (120, 0.002)],
)
def test_learning_rate_of_the_cosine(step, rate):
    schedule = schedules.learning_rate("cosine", first=0.2, steps=100)
    assert float(schedule(jnp.int32(step))) == pytest.approx(rate, rel=1e-5)


def test_learning_rate_that_is_constant():
    schedule = schedules.learning_rate("constant", first=0.2, steps=100)
    np.testing.assert_allclose([schedule(jnp.int32(step)) for step in (0, 50, 99)], 0.2)


@pytest.mark.parametrize(
    ("step", "longest", "decay"),
    # (step + 1) / (step + 10): 1/10, 2/11, 10/19 and 91/100, then no longer than asked for.
    [
        *[(0, 0.998, 0.1), (1, 0.998, 0.1818182), (9, 0.998, 0.5263158), (90, 0.998, 0.91), (10_000, 0.998, 0.998)],
        *[(0, 0.0, 0.0), (90, 0.5, 0.5)],
    ],
)
def test_decay_of_the_average(step, longest, decay):
    assert float(schedules.polyak_decay(jnp.int32(step), longest=longest)) == pytest.approx(decay, rel=1e-6)
