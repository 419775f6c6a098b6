"""Initial statistics within a factor of 1.2 of what the networks' formulas give.

Every number on the right is worked out from the documented initialisation: directions uniform on the sphere, gains of
one, of a tenth at the heads, a context that moves gains by a tenth and biases by 0.1. For the convolutional encoder a
second implementation in NumPy, with ordinary Gaussian kernels of variance `gain^2 / fan_in`, stands for the formula.
The decoder's one output channel makes the spread of its logits a matter of luck; of it the gains are compared.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hiwae_jax import nn

FACTOR = 1.2
ELU_GAIN = 1.2452
SLOPE_OF_SCALE = 1.0 - np.exp(-1.0)  # of softplus where it is one
HEAD = 0.1
# Of gains and biases that a context moves by a tenth.
MOVED = 1.0 + 0.1**2


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_within_factor(got: Any, expected: Any) -> None:
    ratio = np.asarray(got, np.float64) / np.asarray(expected)
    assert np.all((ratio > 1 / FACTOR) & (ratio < FACTOR)), f"got {got} where {expected} was expected"


@pytest.mark.parametrize("head", [nn.GaussianHead, nn.LinearGaussianHead])
def test_heads(head: Any, initialise: Any) -> None:
    _, params, apply = initialise(lambda rngs: head(100, 32, rngs=rngs))
    loc, scale = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(params, draw(300, 100))
    assert abs(np.mean(loc)) < 0.02
    assert abs(np.mean(scale) - 1.0) < 0.02
    assert_within_factor([np.std(loc), np.std(scale)], [HEAD, HEAD * SLOPE_OF_SCALE])


def test_conditionals_and_reverse_model(initialise: Any) -> None:
    sizes = {"context_features": 50, "latent_features": 16, "base_features": 12, "hidden_features": 100}
    contexts, z0, z = (jnp.asarray(draw(200, *s, seed=i)) for i, s in enumerate([(50,), (12,), (3, 16)]))
    # The hidden units' inputs have the second moment 1.01 + 0.01; after ELU and the gain that makes up for it about the
    # same. Squares of what a head adds up: from the hidden units, the bias, and in loc the skip as well.
    raw = np.sqrt(HEAD**2 * (MOVED + 0.1**2) * MOVED + 0.1**2)
    loc = np.sqrt(raw**2 + HEAD**2 * MOVED)
    builds = [
        (lambda rngs: nn.HierarchicalConditionals(num_samples=3, **sizes, rngs=rngs), z0, SLOPE_OF_SCALE),
        (lambda rngs: nn.ReverseModel(**sizes, rngs=rngs), z, 0.5),  # the scale is exp(raw / 2)
    ]
    for build, given, slope in builds:
        _, params, apply = initialise(build)
        got_loc, scale = jax.jit(jax.vmap(apply, in_axes=(None, 0, 0)))(params, contexts, given)
        assert abs(np.mean(got_loc)) < 0.05
        assert abs(np.mean(scale) - 1.0) < 0.05
        assert_within_factor([np.std(got_loc), np.std(scale)], [loc, raw * slope])


def test_weights_of_the_fully_connected_networks() -> None:
    """Burda et al. (2016): uniform in +- sqrt(6 / (fan_in + fan_out)), whose variance is 2 / (fan_in + fan_out)."""
    encoder = nn.MLPEncoder(300, (200, 100), rngs=nnx.Rngs(0))
    decoder = nn.MLPDecoder(50, 300, (100, 200), rngs=nnx.Rngs(1))
    for layer in [*encoder.layers, *decoder.hidden.layers, decoder.output]:
        kernel = np.asarray(layer.kernel[...])
        assert_within_factor(np.var(kernel), 2.0 / sum(kernel.shape))
        assert np.max(np.abs(kernel)) <= np.sqrt(6.0 / sum(kernel.shape))
        np.testing.assert_array_equal(layer.bias[...], np.zeros(kernel.shape[1]))


class Plain:
    """The convolutional encoder in NumPy, with ordinary kernels that are drawn as they are needed."""

    def __init__(self, seed: int) -> None:
        """The generator of the kernels."""
        self.random = np.random.default_rng(seed)

    def elu(self, u: np.ndarray) -> np.ndarray:
        return np.where(u > 0, u, np.expm1(np.minimum(u, 0)))

    def kernel(self, fan_in: int, out: int, gain: float) -> np.ndarray:
        return self.random.standard_normal((fan_in, out)) * gain / np.sqrt(fan_in)

    def patches(self, x: np.ndarray, stride: int = 1) -> np.ndarray:
        side = x.shape[1]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [padded[:, i : i + side : stride, j : j + side : stride] for i in range(3) for j in range(3)]
        return np.concatenate(shifted, axis=-1)

    def block(self, x: np.ndarray, out: int, *, input_gain: float, gain: float = 1.0, stride: int = 1) -> np.ndarray:
        """Two branches with half of the output's variance each; images [N, H, H, C] or vectors [N, C]."""
        columns = self.patches if x.ndim == 4 else lambda x, stride=1: x
        first, half = columns(x, stride), gain / np.sqrt(2.0)
        hidden = columns(self.elu(first @ self.kernel(first.shape[-1], out, input_gain)))
        long_branch = hidden @ self.kernel(hidden.shape[-1], out, half * ELU_GAIN)
        return long_branch + first @ self.kernel(first.shape[-1], out, half * input_gain)

    def encode(self, x: np.ndarray) -> np.ndarray:
        image = x.reshape(-1, 28, 28, 1)
        for number, (out, stride) in enumerate([(16, 2), (16, 1), (32, 2), (32, 1), (32, 2)]):
            image = self.elu(self.block(image, out, stride=stride, input_gain=ELU_GAIN if number else 1.0))
        return self.elu(self.block(image.reshape(len(x), -1), 450, input_gain=ELU_GAIN))


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))


def spread(values: Any) -> float:
    """Over the pixels of an image, or the units of a context."""
    return float(np.sqrt(np.mean(np.var(np.asarray(values, np.float64), axis=-1))))


@pytest.fixture(scope="module")
def encoder() -> Any:
    """A compiled function that draws the parameters, and one that applies them to images."""
    build = lambda rngs: nn.ConvEncoder(rngs=rngs)
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param)
    initial = jax.jit(lambda key: nnx.split(build(nnx.Rngs(key)), nnx.Param)[1])
    return initial, jax.jit(jax.vmap(lambda params, x: nnx.merge(graphdef, params)(x), in_axes=(None, 0)))


def test_contexts_of_the_convolutional_encoder(encoder: Any) -> None:
    initial, encode = encoder
    x = (np.random.default_rng(0).random((8, 784)) < 0.15).astype(np.float32)
    keys = [jax.random.key(seed, impl="unsafe_rbg") for seed in range(8)]
    ours = np.stack([np.asarray(encode(initial(key), x)) for key in keys])
    plain = np.stack([Plain(seed).encode(x) for seed in range(8)])
    assert_within_factor([rms(ours), spread(ours)], [rms(plain), spread(plain)])
    # What tells images apart.
    assert_within_factor(rms(ours - ours.mean(1, keepdims=True)), rms(plain - plain.mean(1, keepdims=True)))


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_gains_and_biases_of_every_block(network: str, initialise: Any) -> None:
    """Two branches of half the variance each; what comes out of an ELU is multiplied by what makes up for it."""
    build = {"encoder": lambda rngs: nn.ConvEncoder(rngs=rngs), "decoder": lambda rngs: nn.ConvDecoder(32, rngs=rngs)}
    _, params, _ = initialise(build[network])
    if network == "encoder":
        blocks = [*params["blocks"].values(), params["output"]]
        first = blocks[0]
    else:
        first, last = params["first"], params["at_28"]
        blocks = [first, params["second"], *params["at_8"].values(), *params["at_14"].values(), last]
    assert len(blocks) == (6 if network == "encoder" else 7)
    for block in blocks:
        is_last = network == "decoder" and block is last
        # The pixels, or z, have not been through an ELU. Logits start at -3 +- 0.5.
        input_gain, half = 1.0 if block is first else ELU_GAIN, (0.5 if is_last else 1.0) / np.sqrt(2.0)
        gains = {"inner": input_gain, "outer": half * ELU_GAIN, "skip": half * input_gain}
        for name, gain in gains.items():
            np.testing.assert_allclose(block[name]["gain"][...], gain, rtol=1e-5)
            direction = np.asarray(block[name]["direction"][...], np.float64)
            norms = np.sqrt(np.sum(direction**2, axis=tuple(range(direction.ndim - 1))))
            assert_within_factor(rms(norms), 1.0)
        np.testing.assert_array_equal(block["inner"]["bias"][...], 0.0)
        np.testing.assert_array_equal(block["skip"]["bias"][...], -3.0 if is_last else 0.0)
        assert "bias" not in block["outer"]
