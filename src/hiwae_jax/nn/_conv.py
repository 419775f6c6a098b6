"""The paper's convolutional encoder and decoder for images of 28x28 pixels."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from hiwae_jax.nn._checks import require_shape
from hiwae_jax.nn._elu import elu
from hiwae_jax.nn._residual import ResidualConv, ResidualLinear
from hiwae_jax.nn._weight_norm import ELU_GAIN

_SIDE = 28
_PIXELS = _SIDE * _SIDE
_SMALL = (4, 4, 32)  # the image that both networks reach: 512 numbers
_SMALL_SIZE = 512

# (channels in, channels out, stride) of the encoder's blocks: 28, 14, 14, 7, 7, 4 pixels a side.
_ENCODER_PLAN = ((1, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 2))

# The last block's logits start at -3 +- 0.5: dark, as the images are, yet with some contrast to learn from.
_OUTPUT_GAIN = 0.5


class ConvEncoder(nnx.Module):
    """Residual convolutional encoder of one 28x28 image.

    `ResidualConv` blocks, each followed by ELU, with channels 1-16 (stride 2), 16-16, 16-32 (stride 2),
    32-32, 32-32 (stride 2); the 4x4x32 result is flattened, and `context = ELU(ResidualLinear(512, C))`.

    Args:
      context_features: size C of the context.
      dtype: type of the computation and of the context.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Source: Huang et al. 2019, section 6.3 and the authors' code; Huang et al. 2018 (Neural Autoregressive
    Flows).

    >>> import jax
    >>> encode = lambda x: ConvEncoder(8, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(encode, jnp.zeros(784)).shape
    (8,)
    """

    def __init__(
        self,
        context_features: int = 450,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.blocks = nnx.List(
            [
                ResidualConv(
                    channels_in,
                    channels_out,
                    stride=stride,
                    # The pixels have not been through an ELU, all else has.
                    input_gain=1.0 if channels_in == 1 else ELU_GAIN,
                    dtype=dtype,
                    param_dtype=param_dtype,
                    rngs=rngs,
                )
                for channels_in, channels_out, stride in _ENCODER_PLAN
            ]
        )
        self.output = ResidualLinear(
            _SMALL_SIZE,
            context_features,
            input_gain=ELU_GAIN,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, x: Shaped[Array, "784"]) -> Float[Array, "C"]:
        """Map pixels `x` [784], row by row, of any number type or bool, to the context [C].

        Raises:
          ValueError: `x` has another shape.
        """
        require_shape("x", x, (_PIXELS,))
        image = x.reshape(_SIDE, _SIDE, 1)
        for block in self.blocks:
            image = elu(block(image))
        return elu(self.output(image.reshape(_SMALL_SIZE)))


class ConvDecoder(nnx.Module):
    """Residual convolutional decoder to the logits of one 28x28 image.

    `ELU(ResidualLinear(D, C))`, `ELU(ResidualLinear(C, 512))`, reshaped to 4x4x32; doubled; `ResidualConv`
    32-32, 32-32; last row and column dropped (8 to 7); doubled; 32-16, 16-16; doubled; 16-1. ELU after
    every block but the last. Doubling is bilinear, and part of the convolutions that follow it.

    Args:
      latent_features: dimension D of `z`.
      context_features: size C of the first hidden layer.
      output_bias: initial bias of the logits; -3 makes pixels on with probability 0.05.
      dtype: type of the computation and of the logits.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Source: Huang et al. 2019, section 6.3 and the authors' code; Huang et al. 2018 (Neural Autoregressive
    Flows).

    >>> import jax
    >>> decode = lambda z: ConvDecoder(2, 8, rngs=nnx.Rngs(0))(z)
    >>> jax.eval_shape(decode, jnp.zeros(2)).shape
    (784,)
    """

    def __init__(
        self,
        latent_features: int,
        context_features: int = 450,
        *,
        output_bias: float = -3.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        def conv(channels_in: int, channels_out: int, *, gain: float = 1.0, bias: float = 0.0) -> ResidualConv:
            return ResidualConv(
                channels_in,
                channels_out,
                gain=gain,
                bias=bias,
                input_gain=ELU_GAIN,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        def linear(features_in: int, features_out: int, *, input_gain: float) -> ResidualLinear:
            return ResidualLinear(
                features_in,
                features_out,
                input_gain=input_gain,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        self.latent_features = latent_features
        self.first = linear(latent_features, context_features, input_gain=1.0)
        self.second = linear(context_features, _SMALL_SIZE, input_gain=ELU_GAIN)
        self.at_8 = nnx.List([conv(32, 32), conv(32, 32)])
        self.at_14 = nnx.List([conv(32, 16), conv(16, 16)])
        self.at_28 = conv(16, 1, gain=_OUTPUT_GAIN, bias=output_bias)

    def __call__(self, z: Shaped[Array, "D"]) -> Float[Array, "784"]:
        """Map `z` [D] to logits [784], in the encoder's order of pixels.

        Raises:
          ValueError: `z` has another shape.
        """
        require_shape("z", z, (self.latent_features,))
        image = elu(self.second(elu(self.first(z)))).reshape(_SMALL)
        image = elu(self.at_8[1](elu(self.at_8[0].of_doubled(image))))
        image = elu(self.at_14[1](elu(self.at_14[0].of_doubled(image[:-1, :-1]))))
        return self.at_28.of_doubled(image).reshape(_PIXELS)
