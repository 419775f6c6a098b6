"""Samples of a Markov chain: `E[sum_j w_j] = p(x)`, and chains whose weights are known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import models
from tests.proposals.scalar_weights import KEY, X, mean_total_weights, normal, params, powers, wide_conditional


def markov_chain(num_samples):
    def transition(params, x, z, step):
        shift = 0.2 * step.astype(z.dtype)
        return 0.6 * z + params["loc"][0] + shift, jnp.exp(params["log_scale"][:1] + 0.1 * shift)

    def reverse(params, x, z, step):
        slope, shift, log_scale = params["reverse"]
        return slope * z + shift - 0.3 * step.astype(z.dtype), jnp.exp(log_scale * jnp.ones(1))

    return hj.markov(wide_conditional, transition, reverse, num_samples=num_samples, sampler=models.leading)


@pytest.mark.parametrize("num_samples", [1, 2, 3])
def test_markov_weights_integrate_to_the_evidence(num_samples):
    weightings = [hj.uniform_weighting(), models.learned(num_samples)]
    ratios = mean_total_weights(
        markov_chain(num_samples), weightings, models.quadrature(num_samples, {1: 80, 2: 60, 3: 36}[num_samples])
    )
    np.testing.assert_allclose(ratios, 1.0, rtol=1e-6)


def test_a_power_heuristic_of_transitions_is_refused_because_it_would_not_be_valid():
    chain = markov_chain(2)
    with pytest.raises(ValueError, match="weighting: a power heuristic compares the densities of all members"):
        mean_total_weights(chain, powers(1.0), models.quadrature(2, 4))

    def pair_densities(members, z):
        """`log q_i(z_j | z_{i-1})` at [j, i], lifted so that the diagonal is the density of the whole chain."""
        members = jax.tree.map(lambda leaf: leaf[:, None], members)
        steps = jax.vmap(
            lambda z: jax.vmap(lambda loc, scale: hj.diagonal_gaussian.log_prob((loc, scale), z))(*members)
        )(z[:, None])
        own = chain.own_densities(jax.tree.map(lambda leaf: leaf[:, 0], members), z)
        return steps + (own - jnp.diagonal(steps))[:, None]

    unchecked = chain._replace(pair_densities=pair_densities)
    uniform, balance = mean_total_weights(unchecked, powers(0.0, 1.0), models.quadrature(2, 60))
    assert uniform == pytest.approx(1.0, abs=1e-7)
    assert abs(balance - 1.0) > 1e-2


def test_the_exact_reverse_chain_gives_the_weights_of_the_marginals():
    """A chain of Gaussians, its marginals by recursion and its reverse by conditioning."""
    slope, shift, noise = np.array([0.7, -0.5]), np.array([0.3, 0.9]), np.array([0.8, 1.1])
    mean, variance = [0.2], [1.3**2]
    for a, b, s in zip(slope, shift, noise, strict=True):
        mean.append(a * mean[-1] + b)
        variance.append(a**2 * variance[-1] + s**2)
    mean, variance = np.array(mean), np.array(variance)
    gain = slope * variance[:-1] / variance[1:]
    left = np.sqrt(variance[:-1] - gain * slope * variance[:-1])

    def pick(values, step):
        return jnp.asarray(values)[step][None]

    proposal = hj.markov(
        lambda params, x: (jnp.asarray(mean[:1]), jnp.sqrt(jnp.asarray(variance[:1]))),
        lambda params, x, z, step: (pick(slope, step) * z + pick(shift, step), pick(noise, step)),
        lambda params, x, z, step: (
            pick(mean[:-1], step) + pick(gain, step) * (z - pick(mean[1:], step)),
            pick(left, step),
        ),
        num_samples=3,
    )
    x = jnp.asarray(X)
    log_weights = models.quick_jit(hj.make_log_weights(models.scalar_log_joint, proposal))(params(), x, KEY)
    z = models.quick_jit(lambda key: proposal.draw(params(), x, key).z)(KEY)
    log_p = jax.vmap(models.scalar_log_joint, in_axes=(None, None, 0))(params(), x, z)
    expected = log_p - normal(z[:, 0], mean, np.sqrt(variance)) - math.log(3.0)
    np.testing.assert_allclose(log_weights, expected, atol=1e-12)


def test_a_chain_that_keeps_the_posterior_gives_the_evidence_at_every_draw():
    model = models.LinearGaussian(seed=5, latent=1)
    mean, deviation = jnp.asarray(model.posterior_mean), jnp.sqrt(jnp.asarray(model.posterior_cov[0]))

    def step(params, x, z, number):
        return mean - 0.6 * (z - mean), 0.8 * deviation

    for num_samples in (1, 4):
        chain = hj.markov(lambda params, x: (mean, deviation), step, step, num_samples=num_samples)
        value = models.quick_jit(hj.make_bound(model.log_joint, chain))(None, jnp.asarray(model.x), KEY)
        assert float(value) == pytest.approx(model.log_evidence, abs=1e-12)


def test_a_chain_of_one_sample_is_an_independent_one():
    one = hj.independent(wide_conditional, num_samples=1, sampler=models.leading)
    noise, x = jnp.array([0.4]), jnp.asarray(X)
    bounds = [hj.make_bound(models.scalar_log_joint, proposal) for proposal in (one, markov_chain(1))]
    values = models.quick_jit(lambda noise: [bound(params(), x, noise) for bound in bounds])(noise)
    assert float(values[0]) == pytest.approx(float(values[1]), abs=1e-13)
