"""Weight-normed blocks with a parallel linear skip: the unit that the paper's networks are made of."""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from hiwae_jax.nn._checks import require_shape
from hiwae_jax.nn._convolve import convolve, convolve_doubled
from hiwae_jax.nn._elu import elu
from hiwae_jax.nn._weight_norm import ELU_GAIN, WeightNormConv, WeightNormLinear

Convolution = Callable[[Float[Array, "H W I"], Float[Array, "3 3 I O"]], Float[Array, "H2 W2 O"]]


class ResidualLinear(nnx.Module):
    """Residual block of weight-normed linear layers, on one example.

    `y = W_2 ELU(W_1 x + b_1) + W_s x + b`. The two branches would each have an output bias; their sum is one
    parameter, kept in the skip, since a second copy would only double its learning rate.

    Initialisation: each branch has half of the output's variance, so inputs of unit variance give outputs of
    variance `gain**2` to within the correlation of the two branches.

    Args:
      in_features: size of `x`.
      out_features: size of `y`, and of the hidden layer.
      gain: initial standard deviation of the outputs.
      bias: initial value of the output's bias.
      input_gain: factor on both layers that read `x`; `ELU_GAIN` where `x` comes out of an ELU.
      dtype: type of the computation and of `y`.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Source: Huang et al. 2019, section 6.3; the block is that of Huang et al. 2018 (Neural Autoregressive
    Flows).

    >>> block = ResidualLinear(3, 2, rngs=nnx.Rngs(0))
    >>> block(jnp.ones(3)).shape
    (2,)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        gain: float = 1.0,
        bias: float = 0.0,
        input_gain: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        def linear(features: int, *, use_bias: bool, gain: float, bias: float = 0.0) -> WeightNormLinear:
            return WeightNormLinear(
                features,
                out_features,
                use_bias=use_bias,
                gain=gain,
                bias=bias,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        half = gain / math.sqrt(2.0)
        self.in_features = in_features
        self.inner = linear(in_features, use_bias=True, gain=input_gain)
        self.outer = linear(out_features, use_bias=False, gain=half * ELU_GAIN)
        self.skip = linear(in_features, use_bias=True, gain=half * input_gain, bias=bias)

    def __call__(self, x: Shaped[Array, "I"]) -> Float[Array, "O"]:
        """Map `x` [I] to `y` [O].

        Raises:
          ValueError: `x` has another shape.
        """
        require_shape("x", x, (self.in_features,))
        kernel, bias = _side_by_side(self.inner, self.skip)
        hidden, skipped = jnp.split(x.astype(kernel.dtype) @ kernel + bias, 2)
        return self.outer(elu(hidden)) + skipped


class ResidualConv(nnx.Module):
    """Residual block of weight-normed 3x3 convolutions, on one example.

    `y = V_2 * ELU(V_1 * x + b_1) + V_s * x + b`; a stride applies to `V_1` and `V_s`. One output bias, and
    variances at the start, as in `ResidualLinear` (pixels at the border, padded with zeros, have less).

    Args:
      in_channels: channels of `x`.
      out_channels: channels of `y`, and of the hidden layer.
      stride: 2 halves the image, rounding up.
      gain: initial standard deviation of the outputs.
      bias: initial value of the output's bias.
      input_gain: factor on both layers that read `x`; `ELU_GAIN` where `x` comes out of an ELU.
      dtype: type of the computation and of `y`.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Source: Huang et al. 2019, section 6.3; the block is that of Huang et al. 2018 (Neural Autoregressive
    Flows).

    >>> import jax
    >>> block = lambda x: ResidualConv(1, 4, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(block, jnp.ones((8, 8, 1))).shape
    (4, 4, 4)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        gain: float = 1.0,
        bias: float = 0.0,
        input_gain: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        def conv(channels: int, *, stride: int, use_bias: bool, gain: float, bias: float = 0.0) -> WeightNormConv:
            return WeightNormConv(
                channels,
                out_channels,
                stride=stride,
                use_bias=use_bias,
                gain=gain,
                bias=bias,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        half = gain / math.sqrt(2.0)
        self.in_channels = in_channels
        self.stride = stride
        self.inner = conv(in_channels, stride=stride, use_bias=True, gain=input_gain)
        self.outer = conv(out_channels, stride=1, use_bias=False, gain=half * ELU_GAIN)
        self.skip = conv(in_channels, stride=stride, use_bias=True, gain=half * input_gain, bias=bias)

    def __call__(self, x: Shaped[Array, "H W I"]) -> Float[Array, "H2 W2 O"]:
        """Map `x` [H, W, I] to `y` [ceil(H / stride), ceil(W / stride), O].

        Raises:
          ValueError: `x` has another rank or number of channels.
        """
        return self._after(functools.partial(convolve, stride=self.stride), x)

    def of_doubled(self, x: Shaped[Array, "H W I"]) -> Float[Array, "2*H 2*W O"]:
        """Map `x` [H, W, I], doubled by bilinear interpolation, to `y` [2 H, 2 W, O]; the stride must be 1.

        Equal to the block of the doubled image up to rounding, at less than half of the arithmetic.

        Raises:
          ValueError: `x` has another rank or number of channels, or the stride is not 1.
        """
        if self.stride != 1:
            raise ValueError(f"stride must be 1 for a doubled image, got {self.stride}")
        return self._after(convolve_doubled, x)

    def _after(self, convolution: Convolution, x: Shaped[Array, "H W I"]) -> Float[Array, "H2 W2 O"]:
        """The block with this convolution for the layers that read `x`."""
        require_shape("x", x, ("H", "W", self.in_channels))
        kernel, bias = _side_by_side(self.inner, self.skip)
        hidden, skipped = jnp.split(convolution(x.astype(kernel.dtype), kernel) + bias[None, None, :], 2, axis=-1)
        return self.outer(elu(hidden)) + skipped


def _side_by_side(
    *layers: WeightNormLinear | WeightNormConv,
) -> tuple[Float[Array, "*fan_in outputs"], Float[Array, " outputs"]]:
    """Kernel and bias of one layer with the outputs of all: layers that read the same input become one product."""
    kernel = jnp.concatenate([layer.kernel() for layer in layers], axis=-1)
    bias = jnp.concatenate([layer.bias[...] for layer in layers if layer.bias is not None])
    return kernel, bias.astype(kernel.dtype)
