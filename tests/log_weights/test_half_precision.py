"""Sums over samples are taken in float32 at least, whatever the precision of the log-weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj

ENTRYWISE = {
    "elbo": hj.elbo,
    "iwlb": hj.iwlb,
    "jackknife": functools.partial(hj.jackknife, order=1),
    "renyi_bound": functools.partial(hj.renyi_bound, alpha=0.5),
    "chi_square": hj.chi_square,
    "wake_phase": lambda log_w: hj.wake_phase(log_w, log_w),
    "vimco": lambda log_w: hj.vimco(log_w, log_w),
    "effective_sample_size": hj.effective_sample_size,
    "pareto_khat": hj.pareto_khat,
    "log_weight_variance": hj.log_weight_variance,
    "coefficient_of_variation": hj.coefficient_of_variation,
    "weight_correlation": lambda log_w: hj.weight_correlation(log_w.reshape(-1, 2)),
    "gradient_signal_to_noise": hj.gradient_signal_to_noise,
}
NARROW = [jnp.float16, jnp.bfloat16]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", ENTRYWISE)
def test_the_result_is_that_of_the_same_numbers_in_float32(name, dtype):
    log_w = jnp.asarray(np.random.default_rng(2).normal(size=600), dtype)
    result, expected = (ENTRYWISE[name](array) for array in (log_w, log_w.astype(jnp.float32)))
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, expected)
    if name == "pareto_khat":
        return
    # The derivative reaches the narrow array, which can hold it.
    of_sum = lambda log_w: jnp.sum(ENTRYWISE[name](log_w))
    gradient, expected = (jax.grad(of_sum)(array) for array in (log_w, log_w.astype(jnp.float32)))
    assert gradient.dtype == dtype
    np.testing.assert_allclose(gradient.astype(jnp.float32), expected, rtol=0.01, atol=2e-5)


@pytest.mark.parametrize("dtype", NARROW)
def test_more_samples_than_the_type_can_count(dtype):
    """float16 ends at 65,504, and bfloat16 adds no one to 256: the bound was NaN, and the sample size 0 and 256."""
    zeros = jnp.zeros(100_000, dtype)
    np.testing.assert_allclose(hj.iwlb(zeros), 0.0, atol=1e-5)
    np.testing.assert_allclose(hj.elbo(zeros - 1.0), -1.0, rtol=1e-5)
    np.testing.assert_allclose(hj.effective_sample_size(zeros), 1e5, rtol=1e-5)
    np.testing.assert_allclose(hj.renyi_bound(zeros, alpha=0.5), 0.0, atol=1e-5)
    np.testing.assert_allclose(hj.chi_square(zeros), 0.0, atol=1e-5)
    np.testing.assert_allclose(hj.wake_phase(zeros, zeros - 2.0), -2.0, rtol=1e-5)
    alternating = jnp.where(jnp.arange(100_000) % 2 == 0, 1.0, -1.0).astype(dtype)
    np.testing.assert_allclose(hj.log_weight_variance(alternating), 1.0, rtol=1e-4)
    one_of_many = jnp.where(jnp.arange(100_000) == 5, 0.0, -jnp.inf).astype(dtype)
    np.testing.assert_allclose(hj.coefficient_of_variation(one_of_many), np.sqrt(99_999.0), rtol=1e-4)


@pytest.mark.parametrize("dtype", NARROW)
def test_the_evidence_of_narrow_log_weights(dtype):
    def log_weights(params, x, key):
        return jax.random.normal(key, (4,)).astype(dtype)

    result = hj.make_log_evidence(log_weights, num_draws=30)(None, None, jax.random.key(0))
    assert {value.dtype for value in result} == {jnp.dtype(jnp.float32)}
    assert 1.0 < float(result.estimate) < 3.0
