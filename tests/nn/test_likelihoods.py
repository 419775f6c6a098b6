"""The Bernoulli log-likelihood against scipy in float64, at the extremes, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from hiwae_jax import nn

LOGITS = np.concatenate([-np.logspace(4, -3, 40), [0.0], np.logspace(-3, 4, 40)]).astype(np.float32)


@pytest.mark.parametrize("pixel", [0.0, 1.0, 0.3])
def test_matches_the_closed_form_one_pixel_at_a_time(pixel: float) -> None:
    x = np.full_like(LOGITS, pixel)
    wide = LOGITS.astype(np.float64)
    expected = special.xlogy(x, 1.0) + x * special.log_expit(wide) + (1 - x) * special.log_expit(-wide)
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(nn.bernoulli_log_prob)))(LOGITS[:, None], x[:, None])
    # No absolute tolerance: a likely pixel's tiny cost is right too.
    np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-38)
    np.testing.assert_allclose(gradient[:, 0], x - special.expit(wide), rtol=1e-5, atol=1e-7)


def test_gradient_at_zero_is_exact() -> None:
    gradient = jax.grad(nn.bernoulli_log_prob)(jnp.zeros(2), jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(gradient, [-0.5, 0.5])


def test_sums_over_pixels_and_takes_bool_and_integers() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 784)).astype(np.float32) * 5
    x = rng.random((3, 784)) < 0.3
    expected = np.where(x, special.log_expit(logits), special.log_expit(-logits)).sum(axis=-1)
    for dtype in (bool, np.uint8, np.int32, np.float32):
        value = nn.bernoulli_log_prob(jnp.asarray(logits), jnp.asarray(x.astype(dtype)))
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert nn.bernoulli_log_prob(jnp.asarray(logits[0]), jnp.asarray(x[0])).shape == ()


def test_bfloat16_logits_are_summed_in_float32() -> None:
    logits = jnp.full((784,), -0.5, jnp.bfloat16)
    value = nn.bernoulli_log_prob(logits, jnp.zeros((784,), jnp.bfloat16))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 784 * special.log_expit(0.5), rtol=1e-5)


def test_nothing_is_broadcast() -> None:
    with pytest.raises(ValueError, match=r"x: expected the shape of logits \[..., P\], \(3, 4\), got \(4,\)"):
        nn.bernoulli_log_prob(jnp.zeros((3, 4)), jnp.zeros(4))
    with pytest.raises(ValueError, match=r"x: expected the shape of logits \[..., P\], \(\), got \(\)"):
        nn.bernoulli_log_prob(jnp.zeros(()), jnp.zeros(()))


def test_logits_from_mean_inverts_the_sigmoid_inside_its_margin() -> None:
    mean = np.array([0.0, 0.01, 0.5, 0.99, 1.0])
    logits = nn.logits_from_mean(jnp.asarray(mean, jnp.float32))
    np.testing.assert_allclose(special.expit(np.asarray(logits)), np.clip(mean, 1e-3, 0.999), rtol=1e-5)
    with pytest.raises(ValueError, match=r"margin: expected a number in \(0, 0.5\), got 0.5"):
        nn.logits_from_mean(jnp.asarray(mean, jnp.float32), margin=0.5)
