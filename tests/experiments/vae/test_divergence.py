"""What counts as diverged, and how many images have importance weights that are all zero."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.vae import divergence, images, training
from experiments.vae.settings import Settings

UNTRAINED = -25.0


def row(**changes):
    figures = {"step": 500.0, "objective": -20.0, "train_bound": -26.0, "validation_bound": -27.0}
    figures["effective_sample_size"] = 3.0
    assert list(figures) == list(training.CURVES)
    columns = {name: np.array([value] * 3) for name, value in figures.items()}
    for name, value in changes.items():
        columns[name][1] = value
    return columns


@pytest.mark.parametrize(
    ("changes", "settled", "expected"),
    [
        ({}, True, None),
        # The deepest that recovered, and twice as deep.
        ({"objective": -25.9, "train_bound": -79.0, "validation_bound": -79.0}, True, None),
        ({"objective": -240.0}, False, None),
        ({"validation_bound": -249.0}, True, None),
        # Under warm-up the bounds may be anything, and the objective may not.
        ({"train_bound": -1e6, "validation_bound": -1e6}, False, None),
        ({"objective": -30_941.0}, False, "the objective of seed 1 is -30,941.0 at step 500, far below the -25.0 of"),
        (
            {"validation_bound": -251.0},
            True,
            "the validation bound of seed 1 is -251.0 at step 500, far below the -25.0",
        ),
        ({"train_bound": -251.0}, True, "the training bound of seed 1 is -251.0 at step 500, far below the -25.0 of"),
        ({"objective": np.nan}, False, r"the objective of seed 1 is not finite at step 500 \(nan\)"),
        ({"validation_bound": -np.inf}, False, r"the validation bound of seed 1 is not finite at step 500 \(-inf\)"),
        ({"train_bound": np.inf}, False, r"the training bound of seed 1 is not finite at step 500 \(inf\)"),
        ({"effective_sample_size": np.nan}, False, r"the effective sample size of seed 1 is not finite"),
    ],
)
def test_what_counts_as_diverged(changes, settled, expected):
    found = divergence.fault(row(**changes), UNTRAINED, settled=settled)
    if expected is None:
        assert found is None
    else:
        seed, reason = found
        assert seed == 1
        assert re.match(expected, reason)


def test_bounds_are_judged_when_the_average_has_forgotten_the_warm_up():
    settings = Settings(warmup=500, polyak=0.99)
    assert [divergence.is_settled(settings, step) for step in (500, 599, 601)] == [False, False, True]
    assert divergence.is_settled(settings._replace(warmup=0, polyak=0.0), 2)


def test_independent_pixels_against_every_image(digits):
    train, validation = (np.unpackbits(split, axis=-1, count=64).astype(float) for split in digits[:2])
    mean = np.clip(train.mean(0), 1e-3, 1 - 1e-3)
    expected = np.mean([np.sum(np.where(image == 1, np.log(mean), np.log(1 - mean))) for image in validation])
    assert divergence.independent_pixels(digits) == pytest.approx(expected, rel=1e-5)
    # Grey levels: the mean over the images that they are binarized to.
    grey = images.datasets.GreyDataset(
        *(51 * part.astype(np.uint8) for part in (train, validation)), train, (8, 8), "", ""
    )
    mean = np.clip(0.2 * train.mean(0), 1e-3, 1 - 1e-3)
    expected = np.mean(np.sum(0.2 * validation * np.log(mean) + (1 - 0.2 * validation) * np.log(1 - mean), axis=1))
    assert divergence.independent_pixels(grey) == pytest.approx(expected, rel=1e-5)


def test_images_whose_weights_are_all_zero_are_counted():
    x = jnp.array([[0.0], [1.0], [2.0], [3.0]])

    def log_weights(params, x, key):
        noise = jax.random.uniform(key, (3,))
        return jnp.where((x[0] < params) | ((x[0] < 2.0) & (jnp.arange(3) == 1)), noise, -jnp.inf)

    found = divergence.bounds(log_weights, 1.0, x, jax.random.key(0))
    assert np.isneginf(found).tolist() == [False, False, True, True]
    noise = jax.random.uniform(jax.random.split(jax.random.key(0), 4)[0], (3,))
    assert found[0] == pytest.approx(float(np.log(np.sum(np.exp(noise)))), rel=1e-6)


@pytest.mark.parametrize(
    ("title", "values", "errors", "message"),
    [
        ("test_bound", [-1.0, -np.inf, -np.inf], [0.0] * 3, "2 of 3 images have importance weights that are all zero$"),
        ("test_nll", [1.0, np.inf, 2.0], [0.0] * 3, "1 of 3 images have importance weights that are all zero$"),
        ("test_nll", [1.0, np.nan, -np.inf], [0.0] * 3, "2 of 3 images have a value that is NaN or infinite$"),
        (
            "test_nll",
            [1.0, np.inf, 2.0],
            [0.0, np.nan, np.inf],
            "zero; 1 of 3 images have a Monte Carlo error",
        ),
    ],
)
def test_figures_that_are_not_finite_are_counted(title, values, errors, message):
    with pytest.raises(FloatingPointError, match=f"^{title.replace('_', ' ')} of seed 4: .*{message}"):
        divergence.require_finite(title, 4, np.array(values), np.array(errors))
    divergence.require_finite(title, 4, np.ones(3), np.zeros(3))
