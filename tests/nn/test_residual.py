"""Residual blocks: two branches over weight-normed layers, and a unit variance at the start."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import integrate

from hiwae_jax import nn
from hiwae_jax.nn._weight_norm import ELU_GAIN


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def elu(u: np.ndarray) -> np.ndarray:
    return np.where(u > 0, u, np.expm1(np.minimum(u, 0)))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda rngs: nn.ResidualLinear(5, 3, gain=0.7, bias=0.2, rngs=rngs), (5,)),
        (lambda rngs: nn.ResidualConv(2, 3, stride=2, gain=0.7, bias=0.2, rngs=rngs), (7, 7, 2)),
    ],
)
def test_block_is_the_sum_of_its_branches(build: Any, shape: tuple[int, ...]) -> None:
    block = build(nnx.Rngs(0))
    x = jnp.asarray(draw(*shape))
    long_branch = block.outer(jnp.asarray(elu(np.asarray(block.inner(x)))))
    np.testing.assert_allclose(block(x), long_branch + block.skip(x), rtol=1e-5, atol=1e-6)
    # One output bias, in the skip.
    assert block.outer.bias is None
    np.testing.assert_array_equal(block.skip.bias[...], np.full(3, 0.2, np.float32))


def test_elu_gain_is_its_definition() -> None:
    density = lambda u: np.exp(-0.5 * u * u) / np.sqrt(2 * np.pi)
    second, _ = integrate.quad(lambda u: elu(np.asarray(u)) ** 2 * density(u), -12, 12, points=[0.0])
    np.testing.assert_allclose(ELU_GAIN, second**-0.5, rtol=1e-5)


@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_linear_starts_with_the_variance_asked_for(gain: float, initialise: Any) -> None:
    _, params, apply = initialise(lambda rngs: nn.ResidualLinear(100, 200, gain=gain, rngs=rngs))
    y = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(params, jnp.asarray(draw(400, 100)))
    np.testing.assert_allclose(np.mean(np.square(y)), gain**2, rtol=0.1)


def test_blocks_in_a_row_keep_their_variance(initialise: Any) -> None:
    """Neither decay nor growth through four blocks with ELU between them."""

    class Chain(nnx.Module):
        def __init__(self, *, rngs: nnx.Rngs) -> None:
            self.blocks = nnx.List(
                [nn.ResidualConv(16, 16, input_gain=ELU_GAIN if i else 1.0, rngs=rngs) for i in range(4)]
            )

        def __call__(self, x: jax.Array) -> jax.Array:
            for i, block in enumerate(self.blocks):
                x = block(jax.nn.elu(x) if i else x)
            return x[4:-4, 4:-4]  # away from the zeros at the border

    _, params, apply = initialise(lambda rngs: Chain(rngs=rngs))
    y = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(params, jnp.asarray(draw(8, 16, 16, 16)))
    assert 0.6 < np.mean(np.square(y)) < 1.7
