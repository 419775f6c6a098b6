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


@functools.cache
def off_by(offset):
    """The linear Gaussian model, and log-weights of a defensive proposal whose q is off by so many deviations."""
    model = models.LinearGaussian(seed=8, latent=1)
    deviation = np.sqrt(model.posterior_cov[0])
    narrow = lambda params, x: (jnp.float32(model.posterior_mean + offset * deviation), jnp.float32(deviation))
    proposal = hj.defensive(narrow, lambda params, x: (jnp.zeros(1), jnp.ones(1)), num_samples=3)
    return model, hj.make_log_weights(model.log_joint, proposal, weighting=hj.power_heuristic(1.0))


def test_with_control_variates_the_evidence_is_unbiased_less_noisy_and_calibrated():
    """Over 4,000 runs; 95 % intervals cover 93 to 97 %, and as the control: not those of half the standard error."""
    model, log_weights = off_by(0.1)
    x, keys = jnp.asarray(model.x, jnp.float32), jax.random.split(jax.random.key(1), 4_000)

    @jax.jit
    def results(keys):
        estimates = [
            hj.make_log_evidence(log_weights, num_draws=81, chunk_size=81, control_variates=chosen)
            for chosen in (False, True)
        ]
        return [jax.vmap(estimate, in_axes=(None, None, 0))(None, x, keys) for estimate in estimates]

    plain, result = results(keys)
    relative = np.exp(np.asarray(result.estimate) - model.log_evidence)
    assert abs(np.mean(relative) - 1.0) < 3.0 * np.std(relative) / np.sqrt(len(keys))
    z = (np.asarray(result.estimate) - model.log_evidence) / np.asarray(result.standard_error)
    assert 0.93 < np.mean(np.abs(z) < 1.96) < 0.97
    assert np.mean(np.abs(2.0 * z) < 1.96) < 0.75
    assert np.var(result.estimate) < 0.6 * np.var(plain.estimate)
    np.testing.assert_array_equal(result.effective_draws, plain.effective_draws)
    np.testing.assert_array_equal(result.pareto_khat, plain.pareto_khat)


def crossed(values, variates):
    """The same in float64 with all draws in memory: regressions on one half, applied to the other."""
    halves = [slice(0, None, 2), slice(1, None, 2)]
    mean, variance = 0.0, 0.0
    for here, there in (halves, halves[::-1]):
        centred = variates[there] - variates[there].mean(axis=0)
        coefficients = np.linalg.lstsq(centred, values[there] - values[there].mean(), rcond=1e-6)[0]
        left = values[here] - (variates[here] - 1.0) @ coefficients
        mean += left.sum() / len(values)
        variance += len(left) * left.var(ddof=1) / len(values) ** 2
    return np.log(mean), np.sqrt(variance) / mean


def test_control_variates_equal_two_regressions_in_memory():
    """Members of a hierarchical proposal, whose shares come from other densities than the log-weights' own."""
    offsets = jnp.array([[-1.0, 0.3], [0.2, 0.5], [0.9, -0.6]])
    base, reverse = lambda p, x: (jnp.zeros(1), jnp.ones(1)), lambda p, x, z: (z[:, :1], jnp.ones((len(z), 1)))
    conditionals = lambda p, x, z0: (offsets + p * z0[None], jnp.array([[1.0], [0.8], [1.3]]) * jnp.ones((3, 2)))
    log_joint = lambda p, x, z: -0.5 * jnp.sum((z - 0.3) ** 2) - 700.0
    of_logits = hj.learned_weighting(lambda p, x, z, z0: offsets @ z)
    cases = [(True, hj.uniform_weighting(), None), (True, of_logits, 2), (False, hj.power_heuristic(2.0), 2)]
    key, params, draws = jax.random.key(4), 0.4, 51

    @models.quick_jit
    def everything(params):
        found = []
        for shared, weighting, chunk_size in cases:
            proposal = hj.hierarchical(base, conditionals, reverse, shared=shared)
            log_weights = hj.make_log_weights(log_joint, proposal, weighting=weighting, chunk_size=chunk_size)
            streamed = hj.make_log_evidence(log_weights, num_draws=draws, chunk_size=7, control_variates=True)
            keys = jax.vmap(lambda draw: jax.random.fold_in(key, draw))(jnp.arange(draws))
            log_w = jax.vmap(log_weights, in_axes=(None, None, 0))(params, None, keys)
            drawn = jax.vmap(proposal.draw, in_axes=(None, None, 0))(params, None, keys)
            pairs = jax.vmap(proposal.pair_densities)(drawn.parameters, drawn.z)
            found.append((streamed(params, None, key), log_w, pairs))
        return found

    for result, log_w, pairs in everything(params):
        log_estimates = np.logaddexp.reduce(np.asarray(log_w, np.float64), axis=1)
        densities = np.exp(np.asarray(pairs, np.float64))
        shares = np.sum(densities / densities.sum(axis=2, keepdims=True), axis=1)
        estimate, error = crossed(np.exp(log_estimates + 700.0), shares)
        assert float(result.estimate) == pytest.approx(estimate - 700.0, abs=2e-4)
        assert float(result.standard_error) == pytest.approx(error, rel=1e-3)


def test_where_a_member_is_the_posterior_control_variates_leave_no_variance():
    model, log_weights = off_by(0.0)
    for num_draws in (12, 13):
        estimate = hj.make_log_evidence(log_weights, num_draws=num_draws, control_variates=True)
        result = models.quick_jit(estimate)(None, jnp.asarray(model.x, jnp.float32), jax.random.key(0))
        assert float(result.estimate) == pytest.approx(model.log_evidence, abs=1e-5)
        assert float(result.standard_error) < 1e-3 / np.sqrt(num_draws)


def test_control_variates_of_extreme_log_weights():
    """Zero weights, what cannot be computed, and gradients: v over R times the estimate of p(x)."""
    proposal = hj.joint_gaussian(lambda p, x: (jnp.array([[0.0], [1.0]]), jnp.eye(2)[None]))

    def estimate(p, constant, chosen=True):
        log_weights = hj.make_log_weights(lambda p, x, z: p * z[0] + constant, proposal)
        return hj.make_log_evidence(log_weights, num_draws=30, control_variates=chosen)(p, None, jax.random.key(0))

    @models.quick_jit
    def all_of(p, constants):
        of_one = lambda constant: jax.value_and_grad(lambda p: estimate(p, constant).estimate)(p)
        plain = jax.value_and_grad(lambda p: estimate(p, constants[0], chosen=False).estimate)(p)
        return jax.vmap(of_one)(constants), jax.vmap(lambda constant: estimate(p, constant))(constants), plain

    (values, slopes), results, (plain, plain_slope) = all_of(0.5, jnp.array([-300.0, -jnp.inf, jnp.nan, jnp.inf]))
    assert float(slopes[0]) == pytest.approx(float(plain_slope * jnp.exp(plain - values[0])), rel=3e-4)
    np.testing.assert_array_equal([leaf[1] for leaf in results], [-np.inf, np.inf, 0.0, np.inf])
    assert slopes[1] == 0.0
    assert np.all(np.isnan(results.estimate[2:]))
    assert np.all(np.isnan(results.standard_error[2:]))


def test_control_variates_are_refused_where_they_are_none():
    one, rows = lambda p, x, *_: (x, jnp.ones_like(x)), lambda p, x, *_: (jnp.zeros((3, 2)), jnp.ones((3, 2)))
    single = lambda p, x, *_: (jnp.zeros((1, 2)), jnp.ones((1, 2)))
    weights_of = lambda proposal: hj.make_log_weights(lambda p, x, z: jnp.sum(z), proposal)
    refused = [
        (improbable, "log_weights is a function that does not give them"),
        (weights_of(hj.independent(one, num_samples=3)), "each has the constant share 1"),
        (weights_of(hj.antithetic(one, num_samples=2)), "each has the constant share 1"),
        (weights_of(hj.hierarchical(one, single, rows, num_samples=3)), "each has the constant share 1"),
        (weights_of(hj.markov(one, one, one, num_samples=2)), "does not have the densities of all members"),
    ]
    for log_weights, reason in refused:
        with pytest.raises(ValueError, match=f"control_variates: .*{reason}"):
            hj.make_log_evidence(log_weights, num_draws=40, control_variates=True)
    few = hj.make_log_evidence(weights_of(hj.hierarchical(one, rows, rows)), num_draws=11, control_variates=True)
    with pytest.raises(ValueError, match="num_draws: expected at least 12, 4 for each of 3 members"):
        few(None, jnp.zeros(2), jax.random.key(0))
    alone = hj.make_log_evidence(weights_of(hj.hierarchical(one, single, single)), num_draws=40, control_variates=True)
    with pytest.raises(ValueError, match="one member alone has the constant share 1"):
        alone(None, jnp.zeros(2), jax.random.key(0))


def test_control_variates_evaluate_neither_model_nor_densities_again():
    """Beside the densities of 8 x 8 pairs in 400 dimensions, sums over 8 numbers cost nothing."""
    K, D = 8, 400
    narrow, wide = (lambda p, x, scale=scale: (p * jnp.ones(D), jnp.full(D, scale)) for scale in (1.0, 2.0))
    proposal = hj.defensive(narrow, wide, num_samples=K)
    log_joint = lambda p, x, z: -jnp.sum((x @ z) ** 2)

    def flops(alpha, chosen):
        log_weights = hj.make_log_weights(log_joint, proposal, weighting=hj.power_heuristic(alpha))
        estimate = hj.make_log_evidence(log_weights, num_draws=32, control_variates=chosen)
        # Before any optimization, so that nothing is merged.
        return jax.jit(estimate).lower(0.1, jnp.ones((D, D)), jax.random.key(0)).cost_analysis()["flops"]

    of_pairs = 4 * K * K * D
    assert flops(1.0, True) - flops(1.0, False) < 0.15 * of_pairs
    # The uniform weighting needs the densities of all pairs for this, once.
    assert 0.5 * of_pairs < flops(0.0, True) - flops(0.0, False) < 1.15 * of_pairs
