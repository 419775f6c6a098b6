"""Weight normalisation against its formula, its invariance, and its initial statistics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import signal

from hiwae_jax import nn
from hiwae_jax.nn._weight_norm import weight_norm


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unit(direction: Any) -> np.ndarray:
    v = np.asarray(direction, np.float64)
    return v / np.sqrt((v**2).sum(axis=tuple(range(v.ndim - 1)), keepdims=True))


def test_linear_is_its_formula() -> None:
    layer = nn.WeightNormLinear(5, 3, gain=2.0, bias=-1.0, rngs=nnx.Rngs(0))
    layer.gain[...] = jnp.array([0.5, 1.0, -2.0])
    x = draw(5)
    expected = x @ unit(layer.direction[...]) * [0.5, 1.0, -2.0] - 1.0
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)


def test_initial_gain_and_bias_are_the_ones_asked_for() -> None:
    layer = nn.WeightNormLinear(5, 3, gain=2.0, bias=-1.0, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer.gain[...], np.full(3, 2.0))
    np.testing.assert_array_equal(layer.bias[...], np.full(3, -1.0))
    assert nn.WeightNormLinear(5, 3, use_bias=False, rngs=nnx.Rngs(0)).bias is None


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 8])
def test_conv_is_a_padded_correlation(stride: int, side: int) -> None:
    layer = nn.WeightNormConv(2, 3, stride=stride, gain=1.5, bias=0.25, rngs=nnx.Rngs(0))
    x = draw(side, side, 2)
    kernel = unit(layer.direction[...])
    expected = np.stack(
        [
            1.5 * sum(signal.correlate2d(x[:, :, i], kernel[:, :, i, o], mode="same") for i in range(2)) + 0.25
            for o in range(3)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected[::stride, ::stride], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e3])
def test_output_ignores_the_length_of_the_direction(scale: float) -> None:
    plain = nn.WeightNormLinear(5, 3, rngs=nnx.Rngs(0))
    conditional = nn.ConditionalWeightNormLinear(5, 3, 4, rngs=nnx.Rngs(0))
    conv = nn.WeightNormConv(2, 3, rngs=nnx.Rngs(0))
    x, context, image = jnp.asarray(draw(5)), jnp.asarray(draw(4)), jnp.asarray(draw(4, 4, 2))
    for layer, inputs in ((plain, (x,)), (conditional, (x, context)), (conv, (image,))):
        before = layer(*inputs)
        layer.direction[...] = layer.direction[...] * scale
        np.testing.assert_allclose(layer(*inputs), before, rtol=1e-5, atol=1e-6)


def test_gradient_is_orthogonal_to_the_direction_and_finite_at_zero() -> None:
    graphdef, params = nnx.split(nn.WeightNormLinear(5, 3, rngs=nnx.Rngs(0)), nnx.Param)
    x = jnp.asarray(draw(5))
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(nnx.merge(graphdef, p)(x)))))
    v, g = params["direction"][...], gradient(params)["direction"][...]
    np.testing.assert_allclose(np.sum(v * g, axis=0), 0.0, atol=1e-6)
    params["direction"][...] = jnp.zeros((5, 3))
    for leaf in jax.tree.leaves(gradient(params)):
        assert np.all(np.isfinite(leaf))


def test_derivatives_of_the_kernel_are_those_of_its_formula() -> None:
    """JAX's own, of `g * v / |v|` as it is written, in both modes and twice."""

    def function(kernel_of: Any) -> Any:
        return lambda v, g: jnp.sum(jnp.sin(kernel_of(v, g)) * jnp.arange(54.0).reshape(3, 3, 2, 3))

    def plain(v: Any, g: Any) -> Any:
        return g[None, None, None] * v / jnp.sqrt(jnp.sum(v**2, axis=(0, 1, 2), keepdims=True))

    ours, theirs = function(weight_norm), function(plain)
    arguments = jnp.asarray(draw(3, 3, 2, 3)), jnp.array([0.0, 2.0, -0.5])
    along = jnp.asarray(draw(3, 3, 2, 3, seed=1)), jnp.asarray(draw(3, seed=2))
    derivatives = [
        lambda f: jax.value_and_grad(f, argnums=(0, 1))(*arguments),
        lambda f: jax.jvp(f, arguments, along),
        lambda f: jax.jvp(jax.grad(f, argnums=(0, 1)), arguments, along),
    ]
    for derivative in derivatives:
        for one, other in zip(*(jax.tree.leaves(derivative(f)) for f in (ours, theirs)), strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def test_conditional_is_its_formula_and_depends_on_the_context() -> None:
    layer = nn.ConditionalWeightNormLinear(5, 3, 4, gain=0.5, bias=2.0, rngs=nnx.Rngs(0))
    x = draw(5)
    outputs = []
    for context in draw(2, 4, seed=1):
        gain = context @ np.asarray(layer.gain.kernel[...]) + 0.5
        bias = context @ np.asarray(layer.bias.kernel[...]) + 2.0
        outputs.append(layer(jnp.asarray(x), jnp.asarray(context)))
        np.testing.assert_allclose(outputs[-1], gain * (x @ unit(layer.direction[...])) + bias, rtol=1e-5)
    assert np.all(np.abs(outputs[0] - outputs[1]) > 1e-3)
    # The gain, not only the bias, answers to the context.
    ones, minus = (layer(jnp.asarray(s * x), jnp.ones(4)) for s in (1.0, -1.0))
    zeros, minus_zeros = (layer(jnp.asarray(s * x), jnp.zeros(4)) for s in (1.0, -1.0))
    assert np.all(np.abs((ones - minus) - (zeros - minus_zeros)) > 1e-4)


@pytest.mark.parametrize("in_features", [4, 300])
def test_outputs_start_with_the_variance_of_the_inputs(in_features: int, initialise: Any) -> None:
    x = jnp.asarray(draw(400, in_features))
    context = jnp.asarray(draw(400, 20, seed=1))
    _, params, apply = initialise(lambda rngs: nn.WeightNormLinear(in_features, 300, rngs=rngs))
    plain = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(params, x)
    np.testing.assert_allclose(np.mean(np.square(plain)), 1.0, atol=0.05)
    _, params, apply = initialise(lambda rngs: nn.ConditionalWeightNormLinear(in_features, 300, 20, rngs=rngs))
    conditional = jax.jit(jax.vmap(apply, in_axes=(None, 0, 0)))(params, x, context)
    # (1 + 0.1^2) for the gain's variance, and 0.1^2 for the bias's.
    np.testing.assert_allclose(np.mean(np.square(conditional)), 1.02, atol=0.05)


def test_initial_gains_of_the_conditional_layer_spread_by_a_tenth(initialise: Any) -> None:
    _, params, _ = initialise(lambda rngs: nn.ConditionalWeightNormLinear(3, 200, 50, gain=2.0, rngs=rngs))
    contexts = draw(200, 50)
    gains = contexts @ np.asarray(params["gain"]["kernel"][...]) + np.asarray(params["gain"]["bias"][...])
    biases = contexts @ np.asarray(params["bias"]["kernel"][...]) + np.asarray(params["bias"]["bias"][...])
    np.testing.assert_allclose([gains.mean(), gains.std()], [2.0, 0.2], atol=0.01)
    np.testing.assert_allclose([biases.mean(), biases.std()], [0.0, 0.1], atol=0.01)
