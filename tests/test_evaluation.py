"""The streaming estimate of log p(x): against one pass over all weights, closed form, and with constant memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import models


def setup(num_samples=3):
    model = models.LinearGaussian(seed=8)
    mean, deviation = jnp.asarray(model.posterior_mean), jnp.sqrt(jnp.diag(jnp.asarray(model.posterior_cov)))
    proposal = hj.independent(
        lambda params, x: (mean.astype(x.dtype) + 0.05, 1.2 * deviation.astype(x.dtype)), num_samples=num_samples
    )
    return model, hj.make_log_weights(model.log_joint, proposal), jnp.asarray(model.x, jnp.float32)


def test_streamed_equals_all_at_once():
    _, log_weights, x = setup()
    key, draws = jax.random.key(0), 500
    result = jax.jit(hj.make_log_evidence(log_weights, num_draws=draws))(None, x, key)
    keys = jax.vmap(lambda draw: jax.random.fold_in(key, draw))(jnp.arange(draws))
    totals = np.asarray(jax.nn.logsumexp(jax.vmap(lambda key: log_weights(None, x, key))(keys), axis=-1), np.float64)
    values = np.exp(totals - totals.max())
    assert float(result.estimate) == pytest.approx(np.log(values.mean()) + totals.max(), abs=1e-5)
    assert float(result.standard_error) == pytest.approx(
        np.std(values, ddof=1) / values.mean() / np.sqrt(draws), rel=1e-3
    )
    assert float(result.effective_draws) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-4)


def test_the_evidence_is_met_within_its_standard_error():
    model, log_weights, x = setup()
    estimate = jax.jit(jax.vmap(hj.make_log_evidence(log_weights, num_draws=2_000), in_axes=(None, None, 0)))
    results = estimate(None, x, jax.random.split(jax.random.key(1), 50))
    z = (results.estimate - model.log_evidence) / results.standard_error
    assert abs(float(jnp.mean(z))) < 4.0 / np.sqrt(50)
    assert 0.7 < float(jnp.std(z)) < 1.4


def test_memory_does_not_grow_with_the_number_of_draws():
    _, log_weights, x = setup()

    def temporaries(draws):
        function = jax.jit(hj.make_log_evidence(log_weights, num_draws=draws))
        return function.lower(None, x, jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(100_000) == temporaries(100)


def test_an_impossible_observation_has_log_evidence_minus_infinity():
    _, log_weights, x = setup()
    result = hj.make_log_evidence(lambda *a: log_weights(*a) - jnp.inf, num_draws=4)(None, x, jax.random.key(0))
    assert float(result.estimate) == -np.inf
    assert float(result.effective_draws) == 0.0
