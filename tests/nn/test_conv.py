"""The convolutional networks at full size: one draw of the parameters, many assertions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hiwae_jax import nn


@pytest.fixture(scope="module")
def decoder(initialise: Any) -> Any:
    _, params, apply = initialise(lambda rngs: nn.ConvDecoder(32, rngs=rngs))
    return params, jax.jit(jax.vmap(apply, in_axes=(None, 0)))


@pytest.fixture(scope="module")
def encoder(initialise: Any) -> Any:
    _, params, apply = initialise(lambda rngs: nn.ConvEncoder(rngs=rngs))
    return params, jax.jit(jax.vmap(apply, in_axes=(None, 0)))


def test_pixels_start_dark(decoder: Any) -> None:
    params, decode = decoder
    z = jnp.asarray(np.random.default_rng(0).standard_normal((32, 32)), jnp.float32)
    logits = np.asarray(decode(params, z))
    assert logits.shape == (32, 784)
    probability = np.mean(1 / (1 + np.exp(-logits)))
    # One random output channel adds an offset of its own to all pixels; ten draws stayed within 0.024.
    assert abs(probability - 1 / (1 + np.exp(3.0))) < 0.03
    # The latent variable is seen by all the image, its last row and column included.
    assert np.all(logits.std(axis=0) > 1e-3)


def test_output_bias_shifts_every_logit(decoder: Any) -> None:
    params, decode = decoder
    z = jnp.ones((32, 32))
    at_minus_three = decode(params, z)
    params["at_28"]["skip"]["bias"][...] = params["at_28"]["skip"]["bias"][...] + 4.0
    np.testing.assert_allclose(decode(params, z), at_minus_three + 4.0, rtol=1e-5, atol=1e-5)
    params["at_28"]["skip"]["bias"][...] = params["at_28"]["skip"]["bias"][...] - 4.0
    other = jax.jit(lambda: nn.ConvDecoder(32, output_bias=1.0, rngs=nnx.Rngs(0)).at_28.skip.bias[...])
    np.testing.assert_array_equal(other(), np.ones(1))


def test_decoder_is_the_chain_of_its_blocks(decoder: Any) -> None:
    """The order of blocks, the crop and the ELUs, written out once more."""
    params, decode = decoder
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: nn.ConvDecoder(32, rngs=nnx.Rngs(0))), nnx.Param)

    def chain(params: Any, z: jax.Array) -> jax.Array:
        decoder = nnx.merge(graphdef, params)
        double = lambda x: jax.image.resize(x, (2 * x.shape[0], 2 * x.shape[1], x.shape[2]), "linear")
        elu = jax.nn.elu
        h8 = double(elu(decoder.second(elu(decoder.first(z)))).reshape(4, 4, 32))
        h7 = elu(decoder.at_8[1](elu(decoder.at_8[0](h8))))[:7, :7, :]
        h14 = elu(decoder.at_14[1](elu(decoder.at_14[0](double(h7)))))
        return decoder.at_28(double(h14))[:, :, 0].ravel()

    # As many as in the test above, of which the program is there.
    z = jnp.asarray(np.random.default_rng(1).standard_normal((32, 32)), jnp.float32)
    wanted = jax.jit(chain)(params, z[0])
    np.testing.assert_allclose(decode(params, z)[0], wanted, rtol=1e-5, atol=1e-5)


def test_contexts_do_not_depend_on_the_type_of_the_pixels(encoder: Any) -> None:
    params, encode = encoder
    x = jnp.asarray(np.random.default_rng(0).random((8, 784)) < 0.15)
    context = np.asarray(encode(params, x))
    assert context.shape == (8, 450)
    as_floats = encode(params, x.astype(jnp.float32))
    np.testing.assert_array_equal(as_floats, context)
    np.testing.assert_array_equal(encode(params, x.astype(jnp.uint8)), context)


def test_every_pixel_reaches_the_context_in_reading_order(encoder: Any) -> None:
    """A pixel near the corner changes less of the image than one in the middle, and none is ignored."""
    params, encode = encoder
    blank = np.zeros((784,), np.float32)
    pixels = [0, 27, 14 * 28 + 14, 27 * 28, 783]
    images = np.stack([blank, *[np.eye(784, dtype=np.float32)[p] for p in pixels], blank, blank])
    context = np.asarray(encode(params, images))
    changes = np.linalg.norm(context[1:6] - context[:1], axis=1)
    assert np.all(changes > 1e-3)
    assert changes[2] > changes[0]
    assert changes[2] > changes[4]


def test_an_image_that_is_not_flat_is_an_error(encoder: Any) -> None:
    params, encode = encoder
    with pytest.raises(ValueError, match=r"x must have shape \[784\] for one example, got \[28, 28\]"):
        encode(params, jnp.zeros((1, 28, 28)))
