"""The worked example of CONTRIBUTING.md, "Add a proposal": Latin hypercube samples against a linear Gaussian model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_the_weights_are_unbiased_and_vary_less_than_those_of_independent_samples(proposal):
    """Each sample alone has density q, so `E[sum_j w_j] = p(x)`."""
    independent = hj.independent(conditional, num_samples=K)
    keys = jax.random.split(jax.random.key(1), 20_000)

    @models.quick_jit
    def ratios(keys):
        log_evidences = [
            jax.vmap(hj.make_bound(MODEL.log_joint, one), in_axes=(None, None, 0))(jnp.float32(0.0), X, keys)
            for one in (proposal, independent)
        ]
        return [jnp.exp(values - float(MODEL.log_evidence)) for values in log_evidences]

    stratified, plain = map(np.asarray, ratios(keys))
    assert abs(stratified.mean() - 1.0) < 4.0 * stratified.std() / np.sqrt(len(keys))
    assert stratified.std() < 0.9 * plain.std()


def test_the_plain_rule_alone_is_valid(proposal):
    bound = hj.make_bound(MODEL.log_joint, proposal, gradient="reparameterized")
    assert np.isfinite(bound(jnp.float32(0.0), X, jax.random.key(0)))
    for gradient in set(hj.GRADIENTS) - {"reparameterized"}:
        with pytest.raises(ValueError, match=f"'{gradient}' is not valid .* Latin hypercube"):
            hj.make_bound(MODEL.log_joint, proposal, gradient=gradient)
