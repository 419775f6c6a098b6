"""Scales stay positive and finite with finite gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hiwae_jax import nn

RAW = np.concatenate([-np.logspace(4, -3, 50), [0.0], np.logspace(-3, 4, 50)])


@pytest.mark.parametrize("function", [nn.positive_scale, nn.scale_from_log_variance])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_scales_are_positive_and_finite_with_finite_gradients(function: Any, dtype: Any) -> None:
    raw = jnp.asarray(RAW, dtype)
    scale, gradient = jax.jit(jax.vmap(jax.value_and_grad(function)))(raw)
    assert scale.dtype == jnp.float32
    assert gradient.dtype == dtype
    for array in (scale, jnp.log(scale), 1 / jnp.square(scale), gradient):
        assert np.all(np.isfinite(np.asarray(array, np.float32)))
    assert np.all(np.asarray(scale) >= 4e-5)
    assert np.all(np.asarray(gradient, np.float32) >= 0)


def test_positive_scale_is_softplus_above_its_floor() -> None:
    raw = RAW.astype(np.float32)
    scale, gradient = jax.vmap(jax.value_and_grad(nn.positive_scale))(jnp.asarray(raw))
    np.testing.assert_allclose(scale, np.logaddexp(0, raw.astype(np.float64)) + 1e-4, rtol=1e-6)
    sigmoid = np.exp(-np.logaddexp(0, -raw.astype(np.float64)))
    np.testing.assert_allclose(gradient, sigmoid, rtol=1e-5, atol=1e-30)


def test_log_variance_is_exact_near_zero_and_bounded_far_away() -> None:
    near = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(nn.scale_from_log_variance(jnp.asarray(near, jnp.float32)), np.exp(near / 2), rtol=0.02)
    far = nn.scale_from_log_variance(jnp.array([-1e4, 1e4]))
    np.testing.assert_allclose(far, np.exp([-10.0, 10.0]), rtol=1e-4)
