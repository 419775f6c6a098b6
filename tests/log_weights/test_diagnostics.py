"""Diagnostics against numpy and arviz-stats, at ordinary and at extreme weights."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats

import hiwae_jax as hj
from hiwae_jax._log_weights.diagnostics import (
    coefficient_of_variation,
    gradient_signal_to_noise,
    log_weight_variance,
    weight_correlation,
)
from hiwae_jax._log_weights.pareto import pareto_khat
from tests import models

INF = np.inf
khat = jax.jit(pareto_khat)
variation = jax.jit(coefficient_of_variation)
correlation = jax.jit(weight_correlation)


def normal(seed, *shape):
    """Standard normal log-weights in float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_log_weight_variance_is_the_unbiased_sample_variance():
    rows = normal(0, 4, 3, 5) - 1e4
    result = jax.jit(lambda rows: log_weight_variance(rows, axis=1))(jnp.asarray(rows))
    np.testing.assert_allclose(result, np.var(rows.astype(float), axis=1, ddof=1), rtol=1e-5)


def test_log_weight_variance_is_infinite_with_a_weight_of_zero():
    rows = jnp.array([[0.0, -INF, 1.0], [-INF, -INF, -INF], [1e4, -1e4, 0.0]])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(log_weight_variance)))(rows)
    np.testing.assert_allclose(values, [INF, INF, 1e8], rtol=1e-6)
    np.testing.assert_array_equal(gradients[:2], 0.0)
    np.testing.assert_allclose(gradients[2], [1e4, -1e4, 0.0], rtol=1e-6, atol=1e-2)
    assert np.isnan(log_weight_variance(jnp.array([0.0, -INF, jnp.nan])))


def test_coefficient_of_variation_is_deviation_over_mean():
    rows = normal(1, 3, 8) * 2.0
    weights = np.exp(rows.astype(float))
    expected = np.std(weights, axis=1) / np.mean(weights, axis=1)
    for shift in (0.0, 1e4, -1e4):
        result = variation(jnp.asarray(rows + np.float32(shift)))
        np.testing.assert_allclose(result, expected, rtol=1e-5 if shift == 0.0 else 5e-3)  # 1e4 has steps of 1e-3
    sizes = hj.effective_sample_size(jnp.asarray(rows))
    np.testing.assert_allclose(8.0 / (1.0 + expected**2), sizes, rtol=1e-5)


def test_coefficient_of_variation_at_its_ends():
    rows = jnp.array([[3.0, 3.0, 3.0, 3.0], [1e4, 0.0, -1e4, 0.0], [2.0, -INF, -INF, -INF], [-INF] * 4])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(coefficient_of_variation)))(rows)
    np.testing.assert_allclose(values, [0.0, np.sqrt(3.0), np.sqrt(3.0), INF], rtol=1e-6)
    np.testing.assert_allclose(gradients, 0.0, atol=1e-6)
    assert float(coefficient_of_variation(jnp.zeros(1))) == 0.0


def test_weight_correlation_is_that_of_numpy_whatever_the_scale_of_a_column():
    log_weights = normal(2, 50, 4)
    log_weights[:, 1] = -log_weights[:, 0] + 0.3 * log_weights[:, 1]
    log_weights[:5, 3] = -INF
    expected = np.corrcoef(np.exp(log_weights.astype(float)), rowvar=False)
    assert expected[0, 1] < -0.3
    np.testing.assert_allclose(correlation(jnp.asarray(log_weights)), expected, atol=2e-6)
    shifted = log_weights + np.array([0.0, 1e4, -1e4, 500.0], np.float32)
    np.testing.assert_allclose(correlation(jnp.asarray(shifted)), expected, atol=5e-3)  # 1e4 has steps of 1e-3


def test_a_constant_weight_has_no_correlation():
    log_weights = normal(3, 50, 4)
    log_weights[:, 1], log_weights[:, 2] = 0.3, -INF
    result = correlation(jnp.asarray(log_weights))
    is_nan = np.zeros((4, 4), bool)
    is_nan[1:3], is_nan[:, 1:3] = True, True
    np.testing.assert_array_equal(np.isnan(result), is_nan)
    # The correlations of the others have their gradients.
    gradient = jax.grad(lambda log_weights: correlation(log_weights)[0, 3])
    ours, alone = gradient(jnp.asarray(log_weights)), gradient(jnp.asarray(log_weights[:, [0, 0, 3, 3]]))
    np.testing.assert_array_equal(ours[:, 1:3], 0.0)
    np.testing.assert_allclose(ours[:, [0, 3]], alone[:, [0, 3]], rtol=1e-5, atol=1e-7)


def test_signal_to_noise_is_mean_over_deviation_of_every_entry():
    gradients = {"loc": normal(4, 9, 3) + 0.5, "scale": (1e30 * normal(5, 9, 2, 2), 1e-30 * normal(6, 9))}
    result = jax.jit(gradient_signal_to_noise)(jax.tree.map(jnp.asarray, gradients))
    expected = jax.tree.map(
        lambda leaf: np.abs(np.mean(leaf.astype(float), axis=0)) / np.std(leaf.astype(float), axis=0, ddof=1), gradients
    )
    chex.assert_trees_all_close(result, expected, rtol=1e-5)


def test_signal_to_noise_without_noise():
    gradients = jnp.array([[0.3, 0.0, -1e30], [0.3, 0.0, -1e30], [0.3, 0.0, -1e30]])
    np.testing.assert_array_equal(jax.jit(gradient_signal_to_noise)(gradients), [INF, 0.0, INF])


def reference_khat(log_weights):
    """By arviz-stats, which takes log-likelihoods: the log-ratios negated."""
    return array_stats.psislw(-np.asarray(log_weights, np.float64))[1]


@pytest.mark.parametrize("samples", [30, 1_000])
def test_pareto_khat_agrees_with_arviz_stats(samples):
    random = np.random.default_rng(samples)
    rows = np.stack(
        [
            random.normal(size=samples),
            20.0 * random.normal(size=samples),
            150.0 * random.normal(size=samples),  # beside the largest, most of the tail underflows in float32
            0.3 * random.exponential(size=samples) - 1e3,  # the shape is 0.3
            2.0 * random.exponential(size=samples) + 1e3,
            np.log(random.uniform(size=samples)),  # bounded weights: negative shape
            np.where(random.uniform(size=samples) < 0.5, random.normal(size=samples), -INF),
        ]
    ).astype(np.float32)
    expected = np.array([reference_khat(row) for row in rows])
    assert expected.min() < 0.5 < 10.0 < expected.max()
    with jax.enable_x64(True):
        np.testing.assert_allclose(khat(jnp.asarray(rows, jnp.float64)), expected, rtol=1e-9, atol=1e-9)
    if samples == 1_000:
        np.testing.assert_allclose(khat(jnp.asarray(rows)), expected, rtol=1e-5, atol=1e-5)
        shifted = khat(jnp.asarray(rows - np.float32(1e4)))  # 1e4 has steps of 1e-3
        np.testing.assert_allclose(shifted, expected, rtol=1e-2, atol=1e-2)


def test_pareto_khat_where_there_is_no_tail_to_fit():
    one_of_many = np.where(np.arange(50) == 7, 3.0, -INF)
    half_at_a_bound = np.where(np.arange(50) % 2 == 0, 0.0, normal(8, 50) - 9.0)
    rows = np.stack([np.zeros(50), half_at_a_bound, one_of_many, np.full(50, -INF), np.full(50, np.nan)])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(pareto_khat)))(jnp.asarray(rows, jnp.float32))
    np.testing.assert_array_equal(values, [-INF, -INF, INF, INF, np.nan])
    np.testing.assert_array_equal(gradients, 0.0)


def test_pareto_khat_takes_weights_that_differ_by_rounding_for_equal():
    """One unit in the last place apart they were `inf`, which says that a few samples carry everything."""
    for level in (-135.0, -3.0, 0.0, 900.0):
        row = np.full(1000, level, np.float32)
        row[0] = np.nextafter(row[0], np.float32(INF))
        assert float(khat(jnp.asarray(row))) == -INF
    # Steps of 1e-5 about zero: the rounding of log-weights near -135 from which a constant was taken.
    steps = np.random.default_rng(3).integers(-2, 3, 1000).astype(np.float32) * np.float32(1.5e-5)
    assert float(khat(jnp.asarray(steps))) < 0.5
    # A heavy tail in the last places is rounding all the same; ten thousand times as long it is a tail.
    places = np.round(1.0 / (1.0 - (np.arange(1000) + 0.5) / 1000) ** 0.5)
    assert float(khat(jnp.asarray(-135.0 + places * 1.5258789e-5, jnp.float32))) == -INF
    assert 0.3 < float(khat(jnp.asarray(-135.0 + places * 0.15, jnp.float32))) < 2.0
    # In steps: two thirds of the tail are at the cutoff, so there is nothing to fit. A step of 1e-4 is none that
    # matters; with one of 10 a few samples carry everything.
    for step, expected in ((1e-4, -INF), (10.0, INF)):
        in_steps = np.repeat([2.0, 1.0, 0.0], [15, 200, 785]) * step
        assert float(khat(jnp.asarray(in_steps, jnp.float32))) == expected
    # A tail that can be told from rounding is one.
    heavy = -0.9 * np.log((np.arange(1000) + 0.5) / 1000)
    np.testing.assert_allclose(khat(jnp.asarray(heavy - 135.0, jnp.float32)), 0.87, atol=0.03)


def test_pareto_khat_believes_exact_posteriors():
    """Of 100 proposals that are the posterior, 62 were called unreliable: their weights differ by rounding alone."""
    model = models.LinearGaussian(seed=8)
    mean, deviation = jnp.asarray(model.posterior_mean, jnp.float32), np.linalg.cholesky(model.posterior_cov)

    def log_weights(key, x):
        z = mean + jnp.asarray(deviation, jnp.float32) @ jax.random.normal(key, mean.shape)
        log_q = hj.full_rank_gaussian.log_prob((mean, jnp.asarray(deviation, jnp.float32)), z)
        return model.log_joint(None, x, z) - log_q - 120.0

    keys = jax.random.split(jax.random.key(0), 100 * 1000).reshape(100, 1000)
    x = jnp.asarray(model.x, jnp.float32)
    rows = jax.jit(jax.vmap(jax.vmap(log_weights, in_axes=(0, None)), in_axes=(0, None)))(keys, x)
    assert 0.0 < float(np.ptp(rows)) < 1e-3
    assert np.max(khat(rows)) < 0.5


@pytest.mark.parametrize("bad", [np.nan, INF])
def test_what_cannot_be_computed_is_not_hidden(bad):
    """A summary of weights that are no numbers is none either."""
    row = np.append(normal(5, 49), bad).astype(np.float32)
    for place in (0, 20, 49):
        row = jnp.asarray(np.roll(row, place))
        for function in (pareto_khat, hj.effective_sample_size, log_weight_variance, coefficient_of_variation):
            assert np.isnan(function(row)), function
    both = jnp.stack([row, jnp.zeros(50)], axis=1)
    assert np.all(np.isnan(weight_correlation(both)[0]))


@pytest.mark.parametrize("function", [log_weight_variance, coefficient_of_variation, pareto_khat])
def test_axis_may_be_any(function):
    rows = jnp.asarray(normal(9, 2, 30, 3))
    first, second = jax.jit(lambda rows: (function(rows, axis=1), function(jnp.moveaxis(rows, 1, 2))))(rows)
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_errors_name_the_argument():
    for function in (log_weight_variance, coefficient_of_variation, pareto_khat):
        with pytest.raises(TypeError, match=r"log_weights: expected a floating-point array, got dtype int32"):
            function(jnp.arange(30))
        with pytest.raises(ValueError, match=r"axis: log_weights has shape \(30,\), which has no axis 1"):
            function(jnp.zeros(30), axis=1)
        with pytest.raises(TypeError, match=r"axis: expected one integer, .* got None"):
            function(jnp.zeros(30), axis=None)
    with pytest.raises(ValueError, match=r"log_weights: expected at least 2 samples .* got shape \(4, 1\)"):
        log_weight_variance(jnp.zeros((4, 1)))
    with pytest.raises(ValueError, match=r"log_weights: expected at least 25 samples along axis -1, got shape \(24,\)"):
        pareto_khat(jnp.zeros(24))
    for shape in ((5,), (1, 5)):
        with pytest.raises(ValueError, match=r"log_weights: expected shape \[N, K\] of N >= 2 draws, got shape"):
            weight_correlation(jnp.zeros(shape))
    for gradients in ([], jnp.zeros(()), jnp.zeros((1, 3)), [jnp.zeros((2, 3)), jnp.zeros((3, 3))]):
        with pytest.raises(ValueError, match=r"gradients: expected leaves with one leading axis of N >= 2 estimates"):
            gradient_signal_to_noise(gradients)
