"""Resampling: expected counts by exact integration, weights of zero, and the posterior of a linear Gaussian model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hiwae_jax._log_weights.resampling import posterior_resample, systematic_indices, systematic_resample
from tests import models

INF = np.inf
LAST_UNIFORM = np.float32(1.0 - 2.0**-24)  # larger than any that jax.random.uniform gives


@pytest.mark.parametrize("num_samples", [1, 6])
def test_systematic_counts_are_unbiased_and_within_one_of_their_mean(num_samples):
    """With weights in 64ths a count is constant between multiples of 1/64: midpoints integrate it exactly."""
    weights = np.array([5, 0, 17, 1, 0, 30, 11, 0]) / 64.0
    uniforms = (np.arange(64) + 0.5) / 64.0
    indices = jax.vmap(
        lambda uniform: systematic_indices(uniform, jnp.asarray(weights, jnp.float32), num_samples=num_samples)
    )(jnp.asarray(uniforms, jnp.float32))
    counts = np.stack([np.bincount(row, minlength=8) for row in np.asarray(indices)])
    np.testing.assert_array_equal(counts.mean(axis=0), num_samples * weights)
    assert np.all(np.abs(counts - num_samples * weights) < 1.0)
    np.testing.assert_array_equal(indices, np.sort(indices, axis=1))


def test_systematic_resampling_does_not_see_the_scale_of_the_weights():
    weights = np.array([0.2, 0.0, 0.5, 0.3])
    for scale in (1e-30, 1.0, 1e30):
        indices = systematic_indices(jnp.float32(0.4), jnp.asarray(scale * weights, jnp.float32), num_samples=10)
        np.testing.assert_array_equal(np.bincount(indices, minlength=4), [2, 0, 5, 3])


@pytest.mark.parametrize("samples", [3, 20_000])
def test_a_weight_of_zero_is_never_picked_whatever_the_rounding(samples):
    """A parallel cumulative sum of so many float32 weights is not even monotone."""
    random = np.random.default_rng(samples)
    weights = np.where(random.uniform(size=samples) < 0.5, 0.0, random.exponential(size=samples)).astype(np.float32)
    weights[[0, -1]] = 0.0
    weights[1] = 1.0
    for uniform in (0.0, 0.3, LAST_UNIFORM):
        indices = systematic_indices(jnp.float32(uniform), jnp.asarray(weights), num_samples=64 * samples)
        assert np.all(weights[indices] > 0.0)


def test_resampling_without_any_weight_stays_in_range():
    zeros = jnp.zeros(4)
    np.testing.assert_array_equal(systematic_resample(jax.random.key(0), zeros, num_samples=4), [0, 1, 2, 3])
    z = jnp.arange(4.0)
    drawn = posterior_resample(jax.random.key(0), jnp.full(4, -INF), z, num_samples=400)
    counts = np.bincount(np.asarray(drawn, int), minlength=4)
    assert np.all(np.abs(counts - 100.0) < 5.0 * np.sqrt(75.0))


def test_systematic_resampling_uses_one_uniform_of_the_key():
    weights, key = jnp.array([0.1, 0.4, 0.5]), jax.random.key(3)
    expected = systematic_indices(jax.random.uniform(key), weights, num_samples=7)
    np.testing.assert_array_equal(systematic_resample(key, weights, num_samples=7), expected)


@pytest.mark.parametrize("shift", [0.0, -1e4])
def test_samples_are_drawn_in_proportion_to_their_weights(shift):
    probabilities, draws = np.array([0.5, 0.0, 0.125, 0.375]), 20_000
    with np.errstate(divide="ignore"):
        log_weights = jnp.asarray(np.log(probabilities) + shift, jnp.float32)
    z = {"z": jnp.arange(4), "z0": jnp.arange(8.0).reshape(4, 2)}
    sample = jax.jit(lambda key: posterior_resample(key, log_weights, z, num_samples=draws))
    drawn = jax.tree.map(np.asarray, sample(jax.random.key(1)))
    np.testing.assert_array_equal(drawn["z0"], np.stack([2.0 * drawn["z"], 2.0 * drawn["z"] + 1.0], axis=1))
    counts = np.bincount(drawn["z"], minlength=4)
    assert counts[1] == 0
    deviation = np.sqrt(draws * probabilities * (1.0 - probabilities))
    assert np.all(np.abs(counts - draws * probabilities) <= 4.0 * deviation)
    # Independent draws, in no order: neighbours are equal as often as their probabilities say.
    equal = np.mean(drawn["z"][1:] == drawn["z"][:-1])
    assert abs(equal - np.sum(probabilities**2)) < 4.0 * 0.5 / np.sqrt(draws)


def test_resampled_prior_samples_follow_the_posterior():
    model = models.LinearGaussian(seed=3, latent=2)
    z = np.random.default_rng(0).normal(size=(50_000, 2))
    log_weights = -0.5 * np.sum(((model.x - z @ model.A.T) / model.noise) ** 2, axis=1)
    resample = jax.jit(lambda *a: posterior_resample(jax.random.key(1), *a, num_samples=4_000))
    drawn = resample(jnp.asarray(log_weights, jnp.float32), jnp.asarray(z, jnp.float32))
    deviations = np.sqrt(np.diag(model.posterior_cov))
    assert np.all(np.abs(np.mean(drawn, axis=0) - model.posterior_mean) < 5.0 * deviations / np.sqrt(4_000))
    np.testing.assert_allclose(np.cov(drawn, rowvar=False), model.posterior_cov, atol=0.1 * np.max(deviations) ** 2)


def test_gradients_run_through_the_samples_only():
    def total(log_weights, z):
        return jnp.sum(posterior_resample(jax.random.key(2), log_weights, z, num_samples=5))

    log_weights, z = jnp.array([0.0, -INF, 1.0]), jnp.array([1.0, 2.0, 3.0])
    to_weights, to_samples = jax.jit(jax.grad(total, argnums=(0, 1)))(log_weights, z)
    np.testing.assert_array_equal(to_weights, 0.0)
    assert float(to_samples[1]) == 0.0
    assert float(jnp.sum(to_samples)) == 5.0


def test_a_log_weight_of_nan_is_not_hidden():
    log_weights, z = jnp.array([jnp.nan, 0.0, -jnp.inf]), {"z": jnp.arange(3.0), "place": jnp.arange(3)}
    drawn = posterior_resample(jax.random.key(0), log_weights, z, num_samples=4)
    assert np.all(np.isnan(drawn["z"]))
    assert drawn["place"].dtype == jnp.int32


def test_errors_name_the_argument():
    key, zeros = jax.random.key(0), jnp.zeros(3)
    with pytest.raises(TypeError, match=r"key: expected a typed key from jax.random.key"):
        systematic_resample(jax.random.PRNGKey(0), zeros, num_samples=2)
    with pytest.raises(ValueError, match=r"key: expected one key"):
        posterior_resample(jax.random.split(key, 3), zeros, zeros, num_samples=2)
    with pytest.raises(ValueError, match=r"z: expected leaves with leading axis 3.*got shape \(2, 4\)"):
        posterior_resample(key, zeros, [zeros, jnp.zeros((2, 4))], num_samples=2)
    with pytest.raises(ValueError, match=r"log_weights: expected shape \[K\] for one example, got shape \(3, 2\)"):
        posterior_resample(key, jnp.zeros((3, 2)), zeros, num_samples=2)
    with pytest.raises(TypeError, match=r"weights: expected a floating-point array, got dtype int32"):
        systematic_resample(key, jnp.arange(3), num_samples=2)
    with pytest.raises(ValueError, match=r"num_samples: expected an integer of at least 1, got 0"):
        systematic_resample(key, zeros, num_samples=0)
