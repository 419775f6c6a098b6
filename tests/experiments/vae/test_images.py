"""Rows as binary pixels: unpacked, or drawn anew from grey levels; and which rows of a split are looked at."""

import jax
import numpy as np

from experiments.vae import images


def test_grey_levels_are_binarized_afresh_by_each_key():
    grey = np.array([[0, 255, 128, 128] * 50], np.uint8)
    data = images.datasets.GreyDataset(grey, grey, grey, (10, 20), "grey", "")
    pixels = images.make_pixels(data)
    first, second = (np.asarray(pixels(grey, jax.random.key(seed))) for seed in (0, 1))
    assert set(np.unique(first)) == {0.0, 1.0}
    assert np.any(first != second)
    np.testing.assert_array_equal(first.reshape(50, 4)[:, :2], np.tile([0.0, 1.0], (50, 1)))
    np.testing.assert_allclose(images.pixel_mean(data), grey[0] / 255.0)


def test_rows_are_spread_over_the_whole_split():
    split = np.arange(100)[:, None]
    np.testing.assert_array_equal(images.spread(split, 3)[:, 0], [0, 50, 99])
    assert images.spread(split, 0) is split
    assert images.spread(split, 1_000) is split
