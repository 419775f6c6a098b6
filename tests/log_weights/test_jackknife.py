"""The jackknife against all its subsets by enumeration, in values and gradients, at ordinary and at extreme weights."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom

import hiwae_jax as hj
from hiwae_jax._log_weights.jackknife import jackknife

INF = np.inf


def coefficient(samples, order, left_out):
    """Sharot's coefficient of the subsets that leave out so many samples."""
    sign_and_power = (-1) ** left_out * (samples - left_out) ** order
    return sign_and_power / (math.factorial(order - left_out) * math.factorial(left_out))


def enumerated(log_weights, order):
    """Value and gradient in extended precision, from every subset."""
    log_weights = np.asarray(log_weights, np.longdouble)
    samples = len(log_weights)
    value, gradient = np.longdouble(0), np.zeros(samples, np.longdouble)
    for left_out in range(order + 1):
        subsets = list(itertools.combinations(range(samples), samples - left_out))
        kept = log_weights[np.array(subsets)]
        largest = kept.max(axis=1, keepdims=True)
        weights = np.exp(kept - largest)
        factor = np.longdouble(coefficient(samples, order, left_out)) / len(subsets)
        value += factor * np.sum(np.log(weights.mean(axis=1)) + largest[:, 0])
        np.add.at(gradient, np.array(subsets), factor * weights / weights.sum(axis=1, keepdims=True))
    return value, gradient


@pytest.mark.parametrize("order", [1, 2, 4])  # 3 is below, in float32
def test_it_is_the_combination_of_all_subsets(order):
    random = np.random.default_rng(order)
    rows = np.concatenate(
        [
            random.normal(size=(2, 6)),
            4.0 * random.normal(size=(2, 6)),
            np.zeros((1, 6)),
            [[0.0, 30.0, 1.0, -1.0, 0.3, 2.0]],  # one dominates
            [[0.0, -INF, 1.0, -2.0, 3.0, 0.5]],
            -25.0 * np.arange(6.0)[None],  # each dominates all that follow
        ]
    )
    with jax.enable_x64(True):
        function = jax.jit(jax.vmap(jax.value_and_grad(lambda row: jackknife(row, order=order))))
        values, gradients = function(jnp.asarray(rows))
    for row, value, gradient in zip(rows, values, gradients, strict=True):
        expected, expected_gradient = enumerated(row, order)
        np.testing.assert_allclose(value, float(expected), rtol=2e-13, atol=2e-13)
        np.testing.assert_allclose(gradient, expected_gradient.astype(float), rtol=1e-10, atol=1e-12)


def test_all_but_one_sample_may_be_left_out():
    row = np.random.default_rng(5).normal(size=5)
    with jax.enable_x64(True):
        value = jackknife(jnp.asarray(row), order=4)
    np.testing.assert_allclose(value, float(enumerated(row, 4)[0]), rtol=1e-12)


def test_float32_keeps_its_digits_at_the_largest_order():
    """At K = 50 the coefficients reach a million: their plain combination in float32 is off by about 0.005."""
    log_weights = np.random.default_rng(0).normal(size=50).astype(np.float32)
    weights = np.exp(log_weights.astype(np.longdouble))
    expected = np.longdouble(0)
    for left_out in range(5):
        subsets = np.array(list(itertools.combinations(range(50), left_out)), int)
        remaining = weights.sum() - weights[subsets].sum(axis=1)
        expected += coefficient(50, 4, left_out) * np.mean(np.log(remaining / (50 - left_out)))
    function = functools.partial(jackknife, order=4)
    assert abs(float(function(jnp.asarray(log_weights))) - float(expected)) < 3e-5
    assert abs(float(function(jnp.asarray(log_weights - 1e4))) + 1e4 - float(expected)) < 2e-3  # steps of 1e-3 there


EXTREME = np.array(
    [
        [1e4, -1e4, 5e3, 0.0, 1.0, -5e3],
        [-1e4, -1e4, -1e4 + 3.0, -1e4, -1e4, -1e4],
        [-INF, 1e4, 0.0, 1.0, 2.0, -1e4],
        [0.0, 1.0, np.nan, -1.0, 2.0, -2.0],
        [0.0, np.nan, -INF, -INF, -INF, -INF],
        *[np.where(np.arange(6) < positive, 1.0, -INF) for positive in range(6)],
    ]
)


@functools.cache
def in_float32():
    """Values and gradients at the extreme weights."""
    function = jax.jit(jax.vmap(jax.value_and_grad(lambda row: jackknife(row, order=3))))
    return function(jnp.asarray(EXTREME, jnp.float32))


@pytest.mark.parametrize("row", [0, 1, 2])
def test_extreme_weights_in_float32(row):
    expected, expected_gradient = enumerated(EXTREME[row], 3)
    value, gradient = (array[row] for array in in_float32())
    np.testing.assert_allclose(value, float(expected), rtol=2e-6)
    np.testing.assert_allclose(gradient, expected_gradient.astype(float), atol=1e-2)  # 1e4 has steps of 1e-3
    np.testing.assert_allclose(np.sum(gradient), 1.0, rtol=1e-4)


def test_not_a_number_stays_one():
    np.testing.assert_array_equal(in_float32()[0][3:5], np.nan)


@pytest.mark.parametrize("positive", range(6))
def test_too_few_weights_give_the_limit_and_no_gradient(positive):
    row, value, gradient = EXTREME[5 + positive], *(array[5 + positive] for array in in_float32())
    assert np.all(np.isfinite(gradient))
    if positive > 3:
        np.testing.assert_allclose(value, float(enumerated(row, 3)[0]), rtol=1e-5)
    else:
        nearly = float(enumerated(np.where(row == -INF, -1e6, row), 3)[0])
        assert abs(nearly) > 1e4
        assert float(value) == np.sign(nearly) * INF
        np.testing.assert_array_equal(gradient, 0.0)


def test_the_second_order_removes_two_powers_of_the_bias_and_is_no_bound():
    """Weights of 1 and 2, seven to three: the mean over all outcomes is exact."""
    biases = []
    with jax.enable_x64(True):
        for samples in (16, 32):
            number = np.arange(samples + 1)
            rows = np.log(np.where(np.arange(samples)[None] < number[:, None], 2.0, 1.0))
            values = np.asarray(jackknife(jnp.asarray(rows), order=2))
            biases.append(binom.pmf(number, samples, 0.3) @ values - np.log(1.3))
    assert np.log2(biases[0] / biases[1]) == pytest.approx(3.0, abs=0.2)
    assert biases[0] > 0.0


def test_order_zero_is_the_bound_to_the_last_bit():
    rows = jnp.asarray(np.random.default_rng(4).normal(size=(5, 7)), jnp.float32)
    np.testing.assert_array_equal(jackknife(rows, order=0), hj.iwlb(rows))


def test_axis_may_be_any():
    rows = np.random.default_rng(5).normal(size=(2, 4, 3)).astype(np.float32)
    function = functools.partial(jackknife, order=2, axis=1)
    expected = [[float(enumerated(rows[i, :, j], 2)[0]) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(function(jnp.asarray(rows)), expected, rtol=1e-5, atol=1e-6)


def test_no_array_grows_faster_than_the_number_of_samples():
    def largest(samples):
        program = jax.make_jaxpr(lambda row: jackknife(row, order=4))(jnp.zeros(samples))
        (inner,) = [equation.params["jaxpr"] for equation in program.eqns if "jaxpr" in equation.params][-1:]
        return max(np.prod(variable.aval.shape) for equation in inner.eqns for variable in equation.outvars)

    assert largest(400) < 4.5 * largest(100)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"order: expected less than the number of samples, got order 2 for .* \(2,\)"):
        jackknife(jnp.zeros(2), order=2)
    for order in (-1, 5, 1.0, True):
        with pytest.raises(ValueError, match=r"order: expected an integer from 0 to 4"):
            jackknife(jnp.zeros(9), order=order)
    with pytest.raises(TypeError, match=r"log_weights: expected a floating-point array, got dtype int32"):
        jackknife(jnp.arange(3), order=1)
