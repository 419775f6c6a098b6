"""Clipping, Adam and the average of parameters, against figures computed by hand."""

import chex
import jax.numpy as jnp
import pytest

from experiments.vae import optimizer


@pytest.mark.parametrize(
    ("largest_norm", "factor"),
    [(26.0, 1.0), (13.0, 1.0), (6.5, 0.5), (1.0, 1.0 / 13.0)],  # the norm over both leaves is 13
)
def test_a_long_gradient_is_shortened_and_keeps_its_direction(largest_norm, factor):
    gradient = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([[12.0]])}
    expected = {"a": jnp.array([3.0, 4.0]) * factor, "b": jnp.array([[12.0]]) * factor}
    chex.assert_trees_all_close(optimizer.clip(gradient, largest_norm=largest_norm), expected, rtol=1e-6)


def test_two_steps_of_adam_downhill():
    # Step 1: both corrected moments are those of the gradient, g / |g| = 1. Step 2, gradients 3 and then -1: the
    # corrected moments are (0.1 * 0.9 * 3 - 0.1) / 0.19 = 0.894737 and (0.999 * 9 + 1) 0.001 / 0.001999 = 4.997999.
    params, state = jnp.array([2.0]), optimizer.init(jnp.array([2.0]))
    params, state = optimizer.descend(params, state, jnp.array([3.0]), jnp.float32(0.5))
    chex.assert_trees_all_close(params, jnp.array([1.5]), rtol=1e-5)  # to the rounding of 1 - 0.999
    params, state = optimizer.descend(params, state, jnp.array([-1.0]), jnp.float32(0.5))
    chex.assert_trees_all_close(params, jnp.array([1.5 - 0.5 * 0.894737 / 2.235621]), rtol=1e-5)
    assert int(state.count) == 2


def test_the_average_moves_towards_the_parameters():
    average, params = {"a": jnp.array([10.0])}, {"a": jnp.array([20.0])}
    moved = optimizer.moving_average(average, params, decay=jnp.float32(0.9))
    chex.assert_trees_all_close(moved, {"a": jnp.array([11.0])}, rtol=1e-6)
