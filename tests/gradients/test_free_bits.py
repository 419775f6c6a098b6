"""Free bits under warm-up, with samples on either side of the floor: values in closed form, and the mean gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import models

X = 0.7
LOC, SCALE, W = 0.6, 0.8, 1.3


def log_likelihood(params, x, z):
    return -0.5 * jnp.sum((x - params["w"] * z) ** 2)


def log_prior(params, x, z):
    return -0.5 * jnp.sum(z**2) - 0.5 * jnp.log(2.0 * jnp.pi)


def make_objective(num_samples, bits, gradient=None):
    proposal = hj.independent(
        lambda params, x: (params["loc"][None], params["scale"][None]), num_samples=num_samples, sampler=models.injected
    )
    return hj.make_annealed_objective(log_likelihood, log_prior, proposal, free_bits=bits, gradient=gradient)


def likelihood_and_kl(noise, *, loc=LOC, scale=SCALE, w=W):
    """`log p(x | z)` and `log q(z) - log p(z)` of each noise, in NumPy."""
    z = loc + scale * noise
    return -0.5 * (X - w * z) ** 2, -0.5 * noise**2 - np.log(scale) + 0.5 * z**2


PARAMS = {"w": W, "loc": LOC, "scale": SCALE}


@pytest.mark.parametrize(("beta", "bits"), [(1.0, 1.2), (0.5, 0.6), (0.2, 0.25), (1e-4, 1.2e-4)])
def test_samples_below_and_above_the_floor(beta, bits):
    noise = np.array([-1.5, 0.2, 1.9])
    likelihood, kl = likelihood_and_kl(noise)
    scaled = beta * (kl + np.log(3.0))  # of a mixing weight of 1/3 as well
    assert np.min(scaled) < bits < np.max(scaled)
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, PARAMS)
        value = make_objective(3, bits)(params, jnp.asarray([X]), jnp.asarray(noise)[:, None], beta)
    assert float(value) == pytest.approx(np.logaddexp.reduce(likelihood - np.maximum(scaled, bits)), abs=1e-12)


@pytest.mark.parametrize("gradient", ["reparameterized", "doubly_reparameterized"])
@pytest.mark.parametrize(("beta", "bits"), [(1.0, 0.1), (0.4, 0.04)])
def test_the_mean_gradient_is_the_derivative_of_the_mean_objective(gradient, beta, bits):
    """K = 1: both by sums over a fine grid of noise, the derivative by finite differences of the NumPy formula."""
    axis = np.linspace(-9.0, 9.0, 60_001)
    mass = np.exp(-0.5 * axis**2) / np.sum(np.exp(-0.5 * axis**2))

    def mean(**changes):
        likelihood, kl = likelihood_and_kl(axis, **changes)
        return np.sum(mass * (likelihood - np.maximum(beta * kl, bits)))

    assert 0.1 < np.sum(mass * (beta * likelihood_and_kl(axis)[1] > bits)) < 0.9  # the samples above the floor
    step = 1e-4
    expected = {
        name: (mean(**{name: value + step}) - mean(**{name: value - step})) / (2 * step)
        for name, value in PARAMS.items()
    }
    with jax.enable_x64(True):
        objective = make_objective(1, bits, gradient)
        params = jax.tree.map(jnp.asarray, PARAMS)

        @models.quick_jit
        def gradients(params, noise):
            one = jax.vmap(jax.grad(objective), in_axes=(None, None, 0, None))
            return jax.tree.map(lambda leaf: jnp.asarray(mass) @ leaf, one(params, jnp.asarray([X]), noise, beta))

        ours = gradients(params, jnp.asarray(axis)[:, None, None])
    for name, value in expected.items():
        assert float(ours[name]) == pytest.approx(value, abs=2e-4), name
