"""Fully connected encoder and decoder, as in the IWAE paper."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from hiwae_jax.nn._checks import require_shape


def _glorot_linear(
    in_features: int, out_features: int, *, dtype: DTypeLike, param_dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Linear:
    """Linear layer with the initial weights that Burda et al. use for tanh units."""
    return nnx.Linear(
        in_features,
        out_features,
        kernel_init=jax.nn.initializers.glorot_uniform(),
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )


class MLPEncoder(nnx.Module):
    """Hidden features of one example: linear layers, each followed by tanh.

    `h_0 = x`, `h_i = tanh(W_i h_{i-1} + b_i)`; Glorot-uniform weights, zero biases.

    Args:
      in_features: size P of `x`.
      hidden_features: sizes of the layers, at least one.
      dtype: type of the computation and of the features.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Raises:
      ValueError: `hidden_features` is empty.

    Source: Burda, Grosse and Salakhutdinov 2016, section 5.

    >>> MLPEncoder(6, (8, 8), rngs=nnx.Rngs(0))(jnp.zeros(6)).shape
    (8,)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int] = (200, 200),
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if not hidden_features:
            raise ValueError("hidden_features must name at least one layer, got none")
        self.in_features = in_features
        sizes = (in_features, *hidden_features)
        self.layers = nnx.List(
            [
                _glorot_linear(fan_in, fan_out, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
                for fan_in, fan_out in itertools.pairwise(sizes)
            ]
        )

    def __call__(self, x: Shaped[Array, "P"]) -> Float[Array, "H"]:
        """Map `x` [P], of any number type or bool, to features [H], H the last of `hidden_features`.

        Raises:
          ValueError: `x` has another shape.
        """
        require_shape("x", x, (self.in_features,))
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


class MLPDecoder(nnx.Module):
    """Logits of one example: tanh layers as in `MLPEncoder`, then a linear layer.

    Args:
      latent_features: dimension D of `z`.
      out_features: number P of logits.
      hidden_features: sizes of the tanh layers, at least one.
      output_bias: initial bias of the logits [P]; `logits_from_mean` of the training mean is the usual
        choice, and `None` starts at zero.
      dtype: type of the computation and of the logits.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Raises:
      ValueError: `output_bias` has another shape, or `hidden_features` is empty.

    Source: Burda, Grosse and Salakhutdinov 2016, section 5.

    >>> MLPDecoder(2, 6, (8, 8), rngs=nnx.Rngs(0))(jnp.zeros(2)).shape
    (6,)
    """

    def __init__(
        self,
        latent_features: int,
        out_features: int,
        hidden_features: Sequence[int] = (200, 200),
        *,
        output_bias: Float[Array, "P"] | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.latent_features = latent_features
        self.hidden = MLPEncoder(latent_features, hidden_features, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.output = _glorot_linear(hidden_features[-1], out_features, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        if output_bias is not None:
            require_shape("output_bias", output_bias, (out_features,))
            self.output.bias = nnx.Param(jnp.asarray(output_bias, param_dtype))

    def __call__(self, z: Shaped[Array, "D"]) -> Float[Array, "P"]:
        """Map `z` [D] to logits [P].

        Raises:
          ValueError: `z` has another shape.
        """
        require_shape("z", z, (self.latent_features,))
        return self.output(self.hidden(z))
