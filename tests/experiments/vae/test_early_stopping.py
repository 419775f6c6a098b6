"""What is kept of a row of validation bounds, and when it is over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.vae import early_stopping
from experiments.vae.early_stopping import Best

BOUNDS = np.array(
    [
        [-9.0, -7.0, -7.5, -7.0, -1.0, -0.5],  # out of patience after the fourth: what comes later no longer counts
        [-9.0, -9.5, -7.0, -8.0, -6.0, -7.0],  # never two in a row that are no better
    ]
)


def test_one_seed_runs_out_of_patience_and_the_other_goes_on():
    best = Best(jnp.zeros(2), jnp.full(2, -jnp.inf), jnp.zeros(2, jnp.int32))
    kept, bounds, stale, over = [], [], [], []
    for number, row in enumerate(BOUNDS.T, start=1):
        params = jnp.full(2, float(number))  # of a call are its number
        best = jax.vmap(lambda *one: early_stopping.update(*one, patience=2))(best, params, jnp.asarray(row))
        kept.append(np.asarray(best.params))
        bounds.append(np.asarray(best.bound))
        stale.append(np.asarray(best.stale))
        over.append(early_stopping.is_over(best.stale, patience=2))
    np.testing.assert_array_equal(np.transpose(kept), [[1, 2, 2, 2, 2, 2], [1, 1, 3, 3, 5, 5]])
    np.testing.assert_array_equal(np.transpose(bounds), [[-9, -7, -7, -7, -7, -7], [-9, -9, -7, -7, -6, -6]])
    np.testing.assert_array_equal(np.transpose(stale), [[0, 0, 1, 2, 3, 4], [0, 1, 0, 1, 0, 1]])
    assert over == [False] * 6


@pytest.mark.parametrize(("stale", "over"), [([2, 1], False), ([2, 2], True), ([1, 5], False), ([3, 2], True)])
def test_it_is_over_when_every_seed_is_out_of_patience(stale, over):
    assert early_stopping.is_over(jnp.array(stale), patience=2) == over
