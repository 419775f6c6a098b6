"""The streaming estimate of log p(x): against one pass over all weights, closed form, and with constant memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from hiwae_jax._log_weights.pareto import pareto_khat, tail_shape
from tests import models


def setup(num_samples=3):
    model = models.LinearGaussian(seed=8)
    mean, deviation = jnp.asarray(model.posterior_mean), jnp.sqrt(jnp.diag(jnp.asarray(model.posterior_cov)))
    proposal = hj.independent(
        lambda params, x: (mean.astype(x.dtype) + 0.05, 1.2 * deviation.astype(x.dtype)), num_samples=num_samples
    )
    return model, hj.make_log_weights(model.log_joint, proposal), jnp.asarray(model.x, jnp.float32)


def improbable(params, x, key):
    """Two log-weights near -1000, where float32 has steps of 6e-5."""
    return jax.random.normal(key, (2,)) - 1000.0


@functools.cache
def streamed(draws, chunk_size):
    """The compiled estimate."""
    log_evidence = hj.make_log_evidence(improbable, num_draws=draws, chunk_size=chunk_size)
    return jax.jit(log_evidence).lower(None, None, jax.random.key(0)).compile()


def all_log_estimates(key, draws):
    """The logarithms of the independent estimates, all in memory."""

    def log_estimate(draw):
        return jax.nn.logsumexp(improbable(None, None, jax.random.fold_in(key, draw)))

    return jax.jit(jax.vmap(log_estimate))(jnp.arange(draws))


@pytest.mark.parametrize(
    ("draws", "chunk_size"),
    [
        (60, 1),
        (20, 31),  # a chunk longer than all draws, and too few for a tail
        (30_000, 999),  # a short last chunk, and more draws than the tail has room for: the 512 largest are kept
    ],
)
def test_streamed_equals_all_at_once(draws, chunk_size):
    """Summed as logarithms near -1000, each of the later draws would fall below the rounding of the sum."""
    key = jax.random.key(0)
    result = streamed(draws, chunk_size)(None, None, key)
    log_estimates = all_log_estimates(key, draws)
    totals = np.asarray(log_estimates, np.float64)
    values = np.exp(totals + 1000.0)
    assert float(result.estimate) == pytest.approx(np.log(values.mean()) - 1000.0, abs=1e-4)
    assert float(result.standard_error) == pytest.approx(
        np.std(values, ddof=1) / values.mean() / np.sqrt(draws), rel=1e-4
    )
    assert float(result.effective_draws) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-5)
    if draws == 60:
        expected = float(pareto_khat(log_estimates))
    elif draws == 20:
        expected = np.inf
    else:
        expected = float(tail_shape(jnp.sort(log_estimates)[-513:]))  # and the next as the cutoff
    assert float(result.pareto_khat) == pytest.approx(expected, abs=1e-5)


def test_gradients_of_the_estimate_are_those_of_all_at_once():
    def log_weights(params, x, key):
        return params * jax.random.normal(key, (3,)) - params**2

    def all_at_once(params):
        keys = jax.vmap(lambda draw: jax.random.fold_in(key, draw))(jnp.arange(30))
        return jax.nn.logsumexp(jax.vmap(lambda key: log_weights(params, None, key))(keys))

    def estimate(params):
        result = log_evidence(params, None, key)
        return result.estimate + result.pareto_khat  # which has none

    key = jax.random.key(3)
    log_evidence = jax.jit(hj.make_log_evidence(log_weights, num_draws=30, chunk_size=7))
    np.testing.assert_allclose(jax.jit(jax.grad(estimate))(0.7), jax.jit(jax.grad(all_at_once))(0.7), rtol=1e-5)


def test_equal_and_impossible_draws():
    def values(params, constant):
        equal = hj.make_log_evidence(lambda params, x, key: constant[None] + params, num_draws=20)
        result = jax.jit(equal)(params, None, jax.random.key(0))
        return jnp.stack(result), result

    function = jax.jit(jax.jacrev(values, has_aux=True))
    gradients, result = function(0.7, jnp.zeros(()))
    np.testing.assert_allclose(result, [0.7, 0.0, 20.0, np.inf], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(gradients, [1.0, 0.0, 0.0, 0.0], atol=1e-5)
    gradients, result = function(0.7, -jnp.asarray(jnp.inf))
    np.testing.assert_array_equal(result, [-np.inf, np.inf, 0.0, np.inf])
    np.testing.assert_array_equal(gradients, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_cannot_be_computed_is_not_hidden(bad):
    for place in (0, 1):
        one_bad = lambda params, x, key: jnp.where(jnp.arange(2) == place, bad, 0.0)  # noqa: B023
        for independent in (False, True):
            result = hj.make_log_evidence(one_bad, num_draws=30, independent_samples=independent)(
                None, None, jax.random.key(0)
            )
            assert np.all(np.isnan(result[1:]))
            assert not np.isfinite(result.estimate)


def tail_at_point_nine(K):
    """K independent weights with `P(w > t) = t^(-1 / 0.9)`, numbered by the noise that made them."""
    return lambda params, x, key: -0.9 * jnp.log(1.0 - jax.random.uniform(key, (K,)))


def test_the_shape_of_independent_weights_does_not_depend_on_how_they_are_grouped():
    """Of 40 runs with a true shape of 0.9, those below 0.7 rose from 0 to 34 with K at the same number of samples."""
    keys = jax.random.split(jax.random.key(5), 40)
    for K in (1, 50):
        options = {"num_draws": 10_000 // K, "chunk_size": 10_000 // K}
        estimate = hj.make_log_evidence(tail_at_point_nine(K), independent_samples=True, **options)

        @models.quick_jit
        def results(keys, estimate=estimate, K=K):
            of_one = lambda draw: tail_at_point_nine(K)(None, None, jax.random.fold_in(keys[0], draw))
            every = jax.vmap(of_one)(jnp.arange(10_000 // K))
            return jax.vmap(estimate, in_axes=(None, None, 0))(None, None, keys).pareto_khat, pareto_khat(every.ravel())

        shapes, of_all_at_once = results(keys)
        assert np.sum(np.asarray(shapes) < 0.7) <= 4
        assert abs(float(np.mean(shapes)) - 0.9) < 0.08
        # To the bit that of all weights at once.
        np.testing.assert_allclose(shapes[0], of_all_at_once, rtol=1e-5)
    grouped = hj.make_log_evidence(tail_at_point_nine(50), num_draws=200, chunk_size=200)
    shapes = models.quick_jit(jax.vmap(grouped, in_axes=(None, None, 0)))(None, None, keys).pareto_khat
    assert np.sum(np.asarray(shapes) < 0.7) > 15  # the control


def test_proposals_say_whether_their_samples_are_independent():
    one, rows = lambda p, x, *_: (x, jnp.ones_like(x)), lambda p, x, *_: (jnp.zeros((3, 2)), jnp.ones((3, 2)))
    covariance = lambda p, x: (jnp.zeros((3, 2)), jnp.broadcast_to(jnp.eye(3), (2, 3, 3)))
    sampler = lambda key, shape, dtype: jax.random.normal(key, shape, dtype)
    expected = [
        (hj.independent(one, num_samples=3), True),
        (hj.independent(one, num_samples=3, sampler=sampler), False),
        (hj.defensive(one, one, num_samples=3), True),
        (hj.hierarchical(one, rows, rows, shared=False), True),
        (hj.hierarchical(one, rows, rows), False),
        (hj.antithetic(one, num_samples=2), False),
        (hj.joint_gaussian(covariance), False),
        (hj.markov(one, one, one, num_samples=2), False),
        (hj.flow_chain(one, [hj.affine_map(lambda p, x: (x, jnp.ones_like(x)))]), False),
    ]
    for proposal, is_independent in expected:
        log_weights = hj.make_log_weights(lambda p, x, z: jnp.sum(z), proposal)
        assert log_weights.independent_samples is is_independent
    with pytest.raises(TypeError, match="independent_samples: expected True or False, got 'no'"):
        hj.make_log_evidence(log_weights, num_draws=2, independent_samples="no")


def test_the_evidence_is_met_within_its_standard_error():
    model, log_weights, x = setup()
    estimate = models.quick_jit(
        jax.vmap(hj.make_log_evidence(log_weights, num_draws=500, chunk_size=50), in_axes=(None, None, 0))
    )
    results = estimate(None, x, jax.random.split(jax.random.key(1), 50))
    z = (results.estimate - model.log_evidence) / results.standard_error
    assert abs(float(jnp.mean(z))) < 4.0 / np.sqrt(50)
    assert 0.7 < float(jnp.std(z)) < 1.4


def test_memory_does_not_grow_with_the_number_of_draws():
    few, many = (streamed(draws, 999).memory_analysis().temp_size_in_bytes for draws in (30_000, 50_000_000))
    assert few == many < 2**16


@pytest.mark.parametrize("counts", [{"num_draws": 1}, {"num_draws": 2.0}, {"num_draws": 2, "chunk_size": 0}])
def test_errors_name_the_argument(counts):
    with pytest.raises(ValueError, match=list(counts)[-1]):
        hj.make_log_evidence(lambda params, x, key: jnp.zeros(1), **counts)
    with pytest.raises(ValueError, match="log_weights: expected an array with an axis of samples, got a scalar"):
        hj.make_log_evidence(lambda params, x, key: jnp.zeros(()), num_draws=2)(None, None, jax.random.key(0))
