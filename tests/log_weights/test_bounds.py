"""Bounds and diagnostics on arrays of log-weights, at ordinary and at extreme values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj

INF = np.inf


def exact_iwlb(log_weights):
    """Log-mean-exp in float64 by numpy."""
    log_weights = np.asarray(log_weights, np.float64)
    largest = np.max(log_weights)
    if largest == -INF:
        return -INF
    return largest + np.log(np.mean(np.exp(log_weights - largest)))


@pytest.mark.parametrize(
    "log_weights",
    [
        [0.3],
        [0.0, -1.0, 2.5],
        [1e4, 1e4 - 1.0],
        [-1e4, -1e4 + 3.0, -2e4],
        [1e4, -1e4, 0.0],
        [-INF, 0.5, 1.0],
        [-INF, -INF],
        [50.0, -INF, -INF],
    ],
    ids=str,
)
def test_iwlb_is_log_mean_exp_with_normalised_weights_as_gradient(log_weights):
    values = jnp.asarray(log_weights, jnp.float32)
    value, gradient = jax.value_and_grad(hj.iwlb)(values)
    np.testing.assert_allclose(value, exact_iwlb(log_weights), rtol=1e-6)
    expected = np.zeros(len(log_weights))
    if value > -INF:
        expected = np.exp(np.asarray(log_weights, np.float64) - exact_iwlb(log_weights)) / len(log_weights)
    np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=1e-7)  # 1e4 in float32 has steps of 1e-3


def test_an_example_without_weight_leaves_the_others_alone():
    batch = jnp.array([[-INF, -INF], [0.0, 1.0]])
    gradient = jax.grad(lambda w: jnp.sum(jnp.where(jnp.isfinite(hj.iwlb(w)), hj.iwlb(w), 0.0)))(batch)
    np.testing.assert_array_equal(gradient[0], [0.0, 0.0])
    np.testing.assert_allclose(gradient[1], jax.nn.softmax(batch[1]), rtol=1e-6)


def test_bounds_are_ordered_and_agree_at_one_sample():
    log_weights = jnp.asarray(np.random.default_rng(0).normal(size=(100, 6)), jnp.float32)
    assert bool(jnp.all(hj.elbo(log_weights) <= hj.iwlb(log_weights)))
    np.testing.assert_allclose(hj.elbo(log_weights[:, :1]), hj.iwlb(log_weights[:, :1]), rtol=1e-6)
    np.testing.assert_allclose(hj.elbo(log_weights), np.mean(log_weights, axis=1), rtol=1e-5, atol=1e-6)


def test_axis_may_be_any():
    log_weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 5)), jnp.float32)
    for function in (hj.elbo, hj.iwlb, hj.effective_sample_size):
        np.testing.assert_allclose(function(log_weights, axis=1), function(jnp.moveaxis(log_weights, 1, -1)), rtol=1e-6)


def test_effective_sample_size_at_its_ends_and_between():
    assert float(hj.effective_sample_size(jnp.full(7, -1e4))) == pytest.approx(7.0)
    assert float(hj.effective_sample_size(jnp.array([1e4, 0.0, -1e4]))) == 1.0
    assert float(hj.effective_sample_size(jnp.array([-INF, -INF]))) == 0.0
    weights = np.array([0.1, 0.2, 0.7])
    assert float(hj.effective_sample_size(jnp.log(weights))) == pytest.approx(1.0 / np.sum(weights**2), rel=1e-5)
    assert np.all(np.isfinite(jax.grad(hj.effective_sample_size)(jnp.array([-INF, -INF]))))


@pytest.mark.parametrize("function", [hj.elbo, hj.iwlb, hj.effective_sample_size])
def test_errors_name_the_argument(function):
    with pytest.raises(TypeError, match=r"log_weights: expected a floating-point array, got dtype int32"):
        function(jnp.arange(3))
    with pytest.raises(ValueError, match=r"axis: log_weights has shape \(3,\), which has no axis 1"):
        function(jnp.zeros(3), axis=1)
    with pytest.raises(ValueError, match=r"log_weights: shape \(2, 0\) has no samples along axis -1"):
        function(jnp.zeros((2, 0)))


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_alpha_must_be_a_finite_number_of_at_least_zero(alpha):
    with pytest.raises(ValueError, match="alpha: expected a finite number of at least 0"):
        hj.power_heuristic(alpha)


def test_alpha_zero_is_the_uniform_weighting():
    assert hj.power_heuristic(0) == hj.uniform_weighting()
