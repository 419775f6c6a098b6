"""The worked example of CONTRIBUTING.md, "Add a proposal": Latin hypercube samples against a linear Gaussian model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import hiwae_jax as hj
from tests import models
from tests.worked_examples import example

K = 8
MODEL = models.LinearGaussian(seed=2)
X = jnp.asarray(MODEL.x, jnp.float32)
EXAMPLE = example("Add a proposal")
SPREAD = 1.3 * np.sqrt(np.diag(MODEL.posterior_cov))


def conditional(params, x):
    return jnp.asarray(MODEL.posterior_mean + 0.1, jnp.float32) + params, jnp.asarray(SPREAD, jnp.float32)


@pytest.fixture(scope="module")
def proposal():
    return EXAMPLE["stratified"](conditional, num_samples=K)


def test_every_stratum_of_every_dimension_has_one_sample():
    noise = jax.jit(lambda key: EXAMPLE["latin_hypercube"](key, (K, 3), jnp.float32))(jax.random.key(0))
    strata = np.floor(K * np.asarray(jax.scipy.special.ndtr(noise))).astype(int)
    np.testing.assert_array_equal(np.sort(strata, axis=0), np.tile(np.arange(K)[:, None], 3))


def test_each_sample_alone_is_standard_normal():
    draw = lambda key: EXAMPLE["latin_hypercube"](key, (K, 1), jnp.float32)[0, 0]
    first = models.quick_jit(jax.vmap(draw))(jax.random.split(jax.random.key(2), 100_000))
    assert scipy.stats.kstest(np.asarray(first), "norm").pvalue > 1e-3


def test_the_weights_are_unbiased_and_the_samples_balanced(proposal):
    """Each sample alone has density q, so `E[sum_j w_j] = p(x)`; the mean of all K moves little."""
    keys = jax.random.split(jax.random.key(1), 20_000)

    @models.quick_jit
    def weigh(keys):
        log_weights = hj.make_log_weights(MODEL.log_joint, proposal)
        draws = jax.vmap(proposal.draw, in_axes=(None, None, 0))(jnp.float32(0.0), X, keys)
        return jax.vmap(log_weights, in_axes=(None, None, 0))(jnp.float32(0.0), X, keys), jnp.mean(draws.z, axis=1)

    log_weights, means = (np.asarray(rows, float) for rows in weigh(keys))
    ratios = np.exp(log_weights - MODEL.log_evidence).sum(axis=1)
    assert abs(ratios.mean() - 1.0) < 4.0 * ratios.std() / np.sqrt(len(keys))
    assert np.all(means.std(axis=0) < 0.5 * SPREAD / np.sqrt(K))  # that of independent samples, halved


def test_the_plain_rule_alone_is_valid(proposal):
    bound = hj.make_bound(MODEL.log_joint, proposal, gradient="reparameterized")
    assert np.isfinite(bound(jnp.float32(0.0), X, jax.random.key(0)))
    for gradient in set(hj.GRADIENTS) - {"reparameterized"}:
        with pytest.raises(ValueError, match=f"'{gradient}' is not valid .* Latin hypercube"):
            hj.make_bound(MODEL.log_joint, proposal, gradient=gradient)
