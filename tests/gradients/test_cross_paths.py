"""The limit on ratios of densities in the default gradient: it is never met where alpha is at least 1."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from tests import models


def one(name):
    return lambda params, x: (params[name][:1], jnp.exp(params[name][1:]))


PROPOSAL = hj.defensive(one("narrow"), one("broad"), num_samples=3, sampler=models.leading)


@functools.cache
def compiled(alpha):
    """`(params, noise) -> gradient`, of whatever precision the arguments have."""
    bound = hj.make_bound(
        lambda params, x, z: -0.5 * jnp.sum((z - params["w"]) ** 2),
        PROPOSAL,
        weighting=hj.power_heuristic(alpha),
        gradient="doubly_reparameterized",
    )
    return models.quick_jit(
        lambda params, noise: ravel_pytree(jax.grad(bound)(params, jnp.zeros((), noise.dtype), noise))[0]
    )


def gradient(alpha, distance, dtype, noise):
    """At one draw, of members `distance` standard deviations of the narrow one apart."""
    values = {"w": 0.2, "narrow": [0.1 * distance, np.log(0.1)], "broad": [0.0, np.log(0.8)]}
    params = {key: jnp.asarray(value, dtype) for key, value in values.items()}
    return np.asarray(compiled(alpha)(params, jnp.asarray(noise, dtype)), np.float64)


USUAL, FAR_OUT = (0.3, -0.8, 0.5), (7.0, -0.8, 0.5)


@pytest.mark.parametrize(
    ("alpha", "distance", "noise"),
    [
        *[(3.0, distance, USUAL) for distance in (2.0, 40.0, 300.0)],
        (3.0, 0.0, FAR_OUT),
        *[(0.5, distance, USUAL) for distance in (2.0, 40.0)],
        (0.5, 0.0, FAR_OUT),  # where kappa is about e^11
    ],
)
def test_single_precision_has_the_gradient_of_double_precision(alpha, distance, noise):
    """The limit is 1e9 in single precision and 1e77 in double: what depends on it would differ between the two.

    At alpha = 3 `kappa = q_j q_i^2 / sum q^3` is at most 1 however far the members are apart. At alpha = 1/2 it is
    `(q_j / q_i)^(1/2)` in the tails of q_i, and up to 1e9 taken as it is.
    """
    with jax.enable_x64(True):
        exact = gradient(alpha, distance, jnp.float64, noise)
        rough = gradient(alpha, distance, jnp.float32, noise)
    assert np.all(np.isfinite(exact))
    assert np.max(np.abs(rough - exact)) < 2e-5 * np.max(np.abs(exact))


def test_below_alpha_one_the_limit_keeps_gradients_finite():
    """A sample 30 standard deviations out in its own member is common in the broad one: `kappa` is about e^200."""
    assert np.all(np.isfinite(gradient(0.5, 0.0, jnp.float32, (30.0, -30.0, 0.5))))
