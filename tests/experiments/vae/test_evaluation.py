"""Every figure of an evaluation against what it must be, on a model with weights of known distribution."""

import math

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.vae import evaluation, images
from experiments.vae.models import Params
from experiments.vae.settings import Settings
from tests import models
from tests.experiments.vae import known_models

SPREAD = 0.5
PIXEL_VALUES = np.array([0.9, -0.6, 0.5, 0.4, -0.3, 0.2, 0.15, 0.1])
LEVELS = np.array([-3.0, -50.0, 7.0])  # of three seeds
ALIKE = np.array([1, 0, 1, 0, 0, 0, 0, 0])  # the image that the training set has again and again


def make_data():
    """A training set of equal images, and validation and test sets of others."""
    random = np.random.default_rng(0)
    splits = np.tile(ALIKE, (300, 1)), random.integers(0, 2, (120, 8)), random.integers(0, 2, (170, 8))
    packed = [np.packbits(split.astype(np.uint8), axis=-1) for split in splits]
    return splits, images.datasets.Dataset(*packed, (1, 8), "known", "")


def mean_bound(num_samples):
    """`E[log(mean_j exp(spread z_j))]` by quadrature."""
    points, weights = models.quadrature(num_samples, 40)
    return float(jnp.sum(weights * jnp.log(jnp.mean(jnp.exp(SPREAD * points), axis=1))))


def deviation_of_bound(num_samples):
    """The standard deviation of the same."""
    points, weights = models.quadrature(num_samples, 40)
    values = jnp.log(jnp.mean(jnp.exp(SPREAD * points), axis=1)) - mean_bound(num_samples)
    return math.sqrt(float(jnp.sum(weights * values**2)))


@pytest.mark.parametrize(
    ("name", "given", "num_samples", "draws"),
    # The VAE has one sample whatever K is; 399 samples in draws of two are 200 draws.
    [("iwae", 2, 2, 200), ("vae", 2, 1, 399)],
)
def test_every_figure_is_what_it_must_be(name, given, num_samples, draws):
    splits, data = make_data()
    settings = Settings(model=name, num_samples=given, nll_samples=399, nll_images=100, seeds=3)
    model = known_models.log_normal_weights(num_samples, pixel_values=PIXEL_VALUES, spread=SPREAD)
    params = Params({}, {"level": jnp.asarray(LEVELS, jnp.float32)})
    result = evaluation.evaluate(model, settings, params, data)
    assert (result["nll_samples"], result["nll_images"]) == (draws * num_samples, [100, 100])

    for title, split in zip(("train_bound", "validation_bound", "test_bound"), splits, strict=True):
        figure, N = result[title], len(split)
        values = split @ PIXEL_VALUES
        noise = deviation_of_bound(num_samples) / math.sqrt(N)
        errors = np.array(figure["mean"]) - (LEVELS + values.mean() + mean_bound(num_samples))
        assert np.all(np.abs(errors) < 4 * noise)
        # All seeds have the same noise, so that their differences are the models' own; rounding is that of -50.
        np.testing.assert_allclose(errors, errors[0], atol=1e-5)
        # Between images: their values, and noise that differs from image to image.
        spread = math.sqrt((np.var(values) + deviation_of_bound(num_samples) ** 2) / N)
        np.testing.assert_allclose(figure["standard_error"], spread, rtol=0.15)
        assert figure["monte_carlo_error"] == [0.0] * 3

    relative_variance = math.expm1(SPREAD**2) / (draws * num_samples)  # of an estimate of one p(x)
    for title, split in zip(("validation_nll", "test_nll"), splits[1:], strict=True):
        figure = result[title]
        values = images.spread(split, 100) @ PIXEL_VALUES
        noise = math.sqrt(relative_variance / 100)  # of the mean over images that have noise of their own
        errors = np.array(figure["mean"]) + (LEVELS + values.mean() + 0.5 * SPREAD**2)
        assert np.all(np.abs(errors) < 4 * noise)
        np.testing.assert_allclose(errors, errors[0], atol=1e-5)
        np.testing.assert_allclose(figure["monte_carlo_error"], noise, rtol=0.05)
        spread = math.sqrt((np.var(values, ddof=1) + relative_variance) / 100)
        np.testing.assert_allclose(figure["standard_error"], spread, rtol=0.05)


def test_splits_of_different_sizes_are_evaluated_by_one_program_for_bounds_and_one_for_likelihoods(monkeypatch):
    _, data = make_data()
    data = data._replace(train=data.train[:140], validation=data.validation[:102], test=data.test[:120])
    programs, over_block = [], evaluation.over_block
    monkeypatch.setattr(evaluation, "over_block", lambda *given: programs.append(over_block(*given)) or programs[-1])
    model = known_models.log_normal_weights(2, pixel_values=PIXEL_VALUES, spread=SPREAD)
    params = Params({}, {"level": jnp.asarray(LEVELS[:1], jnp.float32)})
    evaluation.evaluate(model, Settings(num_samples=2, nll_samples=20), params, data)
    assert [program._cache_size() for program in programs] == [1, 1]


def test_pieces_and_other_blocks_give_the_same_numbers(tmp_path, monkeypatch):
    """Random numbers belong to images, so that K, device and interruptions do not change what is compared."""
    _, data = make_data()
    # Grey levels: of an image, pixels are drawn too.
    train, validation, test = (
        20 * np.unpackbits(split[:count], axis=-1) for split, count in zip(data[:3], (40, 30, 35), strict=True)
    )
    data = images.datasets.GreyDataset(train, validation, test, (1, 8), "grey", "")
    settings = Settings(num_samples=2, nll_samples=20, nll_images=15)
    model = known_models.log_normal_weights(2, pixel_values=PIXEL_VALUES, spread=SPREAD)
    params = Params({}, {"level": jnp.asarray(LEVELS[:1], jnp.float32)})
    whole = evaluation.evaluate(model, settings, params, data)
    assert whole["nll_images"] == [15, 15]
    monkeypatch.setattr(evaluation, "ROWS_ON_CPU", {"mlp": 2 * 25})
    found, saved, pieces = None, tmp_path / "evaluated.npz", 0
    while found is None:
        found = evaluation.evaluate(model, settings, params, data, saved=saved, deadline=0.0)
        pieces += 1
    assert pieces == 2 + 2 + 2 + 1 + 1  # a block each
    seconds = found.pop("evaluation_seconds"), whole.pop("evaluation_seconds")
    assert min(seconds) > 0.0
    chex.assert_trees_all_close(found, whole, rtol=1e-5)
    # The pixels of an image are the same in every block.
    of_block = evaluation.over_block(lambda params, x, key: (jnp.sum(x), x[0]), images.make_pixels(data), None)
    first, second = of_block(None, test[:20], np.arange(20)), of_block(None, test[10:30], 10 + np.arange(20))
    np.testing.assert_array_equal(first[0][10:], second[0][:10])
