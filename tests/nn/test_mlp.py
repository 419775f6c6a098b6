"""The fully connected networks against their formulas."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hiwae_jax import nn


def dense(layer: Any, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...], np.float64)


def test_encoder_and_decoder_are_their_formulas() -> None:
    rng = np.random.default_rng(0)
    encoder = nn.MLPEncoder(9, (8, 5), rngs=nnx.Rngs(0))
    x = rng.random(9) < 0.5
    expected = np.tanh(dense(encoder.layers[1], np.tanh(dense(encoder.layers[0], x))))
    np.testing.assert_allclose(encoder(jnp.asarray(x)), expected, rtol=1e-5)
    bias = rng.standard_normal(9).astype(np.float32)
    decoder = nn.MLPDecoder(2, 9, (8,), output_bias=jnp.asarray(bias), rngs=nnx.Rngs(0))
    z = rng.standard_normal(2).astype(np.float32)
    hidden = np.tanh(dense(decoder.hidden.layers[0], z))
    expected = hidden @ np.asarray(decoder.output.kernel[...]) + bias
    np.testing.assert_allclose(decoder(jnp.asarray(z)), expected, rtol=1e-5, atol=1e-6)


def test_default_sizes_are_those_of_the_iwae_paper() -> None:
    encoder = nnx.eval_shape(lambda: nn.MLPEncoder(784, rngs=nnx.Rngs(0)))
    decoder = nnx.eval_shape(lambda: nn.MLPDecoder(50, 784, rngs=nnx.Rngs(0)))
    assert [layer.kernel.shape for layer in encoder.layers] == [(784, 200), (200, 200)]
    assert [layer.kernel.shape for layer in decoder.hidden.layers] == [(50, 200), (200, 200)]
    assert decoder.output.kernel.shape == (200, 784)


def test_output_bias_from_the_training_mean_starts_at_that_mean() -> None:
    mean = jnp.array([0.1, 0.5, 0.9])
    decoder = nn.MLPDecoder(2, 3, (4,), output_bias=nn.logits_from_mean(mean), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(1 / (1 + np.exp(-decoder(jnp.zeros(2)))), mean, rtol=1e-5)


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(ValueError, match=r"output_bias must have shape \[3\]"):
        nn.MLPDecoder(2, 3, (4,), output_bias=jnp.zeros(4), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="at least one layer"):
        nn.MLPEncoder(3, (), rngs=nnx.Rngs(0))
