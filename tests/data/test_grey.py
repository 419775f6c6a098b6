"""Dynamic binarization: the frequencies of ones, and what must never and what must always happen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hiwae_jax.data import binarize

LEVELS = np.arange(256, dtype=np.uint8)
NUM_DRAWS = 2**13


def misfit(counts, probabilities):
    """The sum of squares and the sum of counts, both as z, if the counts are binomial with these probabilities."""
    mean, variance = NUM_DRAWS * probabilities, NUM_DRAWS * probabilities * (1 - probabilities)
    degrees = len(counts)
    z_of_squares = (np.sum((counts - mean) ** 2 / variance) - degrees) / np.sqrt(2 * degrees)
    return abs(z_of_squares), abs(np.sum(counts - mean)) / np.sqrt(np.sum(variance))


def test_frequencies_under_vmap_over_keys():
    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    images = np.asarray(jax.jit(jax.vmap(binarize, in_axes=(0, None)))(keys, LEVELS))
    assert images.dtype == np.float32
    assert images.shape == (NUM_DRAWS, 256)
    assert np.all((images == 0) | (images == 1))
    counts = images.sum(axis=0, dtype=np.float64)
    assert counts[0] == 0
    assert counts[255] == NUM_DRAWS
    inner = slice(1, 255)
    assert max(misfit(counts[inner], LEVELS[inner] / 255)) < 3.3
    assert max(misfit(counts[inner], LEVELS[inner] / 256)) > 5  # a wrong scale would be seen

    # Pixels of one image are independent: the correlations of neighbours have mean 0 and variance 1 / n.
    centred = (images - LEVELS / 255)[:, inner]
    scaled = centred / np.sqrt(LEVELS[inner] / 255 * (1 - LEVELS[inner] / 255))
    z = (scaled[:, 1:] * scaled[:, :-1]).mean(axis=0) * np.sqrt(NUM_DRAWS)
    assert abs(z.mean() * np.sqrt(z.size)) < 3.3


def test_one_key_one_image():
    levels = np.tile(LEVELS, (2, 3, 1))
    keys = jax.random.split(jax.random.key(1), 2)
    image, other = (np.asarray(binarize(key, levels)) for key in keys)
    assert image.shape == levels.shape
    np.testing.assert_array_equal(jax.jit(binarize)(keys[0], jnp.asarray(levels)), image)
    np.testing.assert_array_equal(jax.vmap(binarize)(keys, np.stack([levels, levels])), [image, other])
    assert np.any(image != other)
    assert np.any(image[0, 0] != image[1, 2])


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(np.float32(1), np.float32(0))], ids=["least", "greatest"])
def test_the_ends_are_exact(monkeypatch, uniform):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.full(shape, uniform, dtype))
    levels = np.array([0, 255], np.uint8)
    np.testing.assert_array_equal(binarize(jax.random.key(0), levels), [0, 1])
    np.testing.assert_array_equal(jax.jit(binarize)(jax.random.key(0), levels), [0, 1])


def test_other_than_levels_is_refused():
    with pytest.raises(ValueError, match=r"expects grey levels 0 to 255 as uint8 .*, got float32"):
        binarize(jax.random.key(0), np.full((2, 784), 0.5, np.float32))
