"""Layers whose kernels are a direction and a gain (Salimans and Kingma 2016), plain and conditional."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from hiwae_jax._checks import at_least_float32
from hiwae_jax.nn._checks import require_shape
from hiwae_jax.nn._convolve import convolve

# 1 / sqrt(E[ELU(u)^2]) for u ~ N(0, 1): the gain that restores a unit second moment after an ELU.
ELU_GAIN = 1.24520

# Standard deviation that a context of unit second moment gives, at the start, to gains (relative) and biases.
CONTEXT_STRENGTH = 0.1

# Squared norms below this are treated as constant, so that a zero direction has a finite gradient.
_SMALLEST_SQUARED_NORM = 1e-12


def unit(direction: Float[Array, "*fan_in out"]) -> Float[Array, "*fan_in out"]:
    """Scale each output's slice to norm one: `v / |v|`, with a finite gradient at `v = 0`."""
    return weight_norm(direction, jnp.ones(direction.shape[-1:], direction.dtype))


def weight_norm(direction: Float[Array, "*fan_in out"], gain: Float[Array, "out"]) -> Float[Array, "*fan_in out"]:
    """The kernel `g * v / |v|`, in float32 or wider, with a finite gradient at `v = 0`."""
    # A norm that is summed in bfloat16 loses its small terms, so it never is.
    kernel: jax.Array = _weight_norm(at_least_float32(direction), at_least_float32(gain))
    return kernel


Direction = Float[Array, "*fan_in out"]
PerOutput = Float[Array, " out"]


@jax.custom_jvp
def _weight_norm(direction: Direction, gain: PerOutput) -> Direction:
    """`weight_norm` of wide arrays, with a derivative of its own.

    The derivative keeps `v` and a few numbers for each output, and its transpose sums over `v` once. The derivative
    that JAX would take keeps `v / |v|` as well, and sums twice, for the gain and for the norm, in every chunk of a
    batch anew.
    """
    return direction * _across(_inverse_norm(direction)[0] * gain, direction)


def _weight_norm_jvp(
    primals: tuple[Direction, PerOutput], tangents: tuple[Direction, PerOutput]
) -> tuple[Direction, Direction]:
    (direction, gain), (along_direction, along_gain) = primals, tangents
    inverse, squared = _inverse_norm(direction)
    scale = _across(inverse * gain, direction)
    along = _per_output(direction * along_direction)
    turned = along_direction * scale + direction * _across(inverse * (along_gain - gain * squared * along), direction)
    return direction * scale, turned


def _inverse_norm(direction: Direction) -> tuple[PerOutput, PerOutput]:
    """`1 / |v|` of each output, and its square; the square is zero where the norm is treated as constant."""
    squared = _per_output(jnp.square(direction))
    inverse = jax.lax.rsqrt(jnp.maximum(squared, _SMALLEST_SQUARED_NORM))
    return inverse, jnp.where(squared > _SMALLEST_SQUARED_NORM, jnp.square(inverse), 0.0)


def _per_output(terms: Direction) -> PerOutput:
    """The sum over the inputs of each output."""
    return jnp.sum(terms, axis=tuple(range(terms.ndim - 1)))


def _across(of_output: PerOutput, direction: Direction) -> Direction:
    """The number of each output, repeated for all its inputs."""
    return jax.lax.broadcast_in_dim(of_output, direction.shape, (direction.ndim - 1,))


_weight_norm.defjvp(_weight_norm_jvp)


def init_direction(rngs: nnx.Rngs, shape: tuple[int, ...], param_dtype: DTypeLike) -> Float[Array, "..."]:
    """Draw directions uniform on the sphere, of norm about one.

    The norm does not change the function, only how far a step of Adam turns it: at norm one the layer
    learns like an ordinary layer whose weights have variance 1 / fan_in.
    """
    fan_in = math.prod(shape[:-1])
    return jax.random.normal(rngs.params(), shape, param_dtype) / math.sqrt(fan_in)


class WeightNormLinear(nnx.Module):
    """Linear layer with weight normalisation, on one example.

    `y = g * (v / |v|)^T x + b`, the norm taken over the inputs of each output unit.

    Initialisation: `v` uniform on the sphere, `g = gain`, `b = bias`. Independent inputs of unit variance
    then give outputs of variance `gain**2` whatever `in_features` is, because each normalised direction has
    norm one.

    Args:
      in_features: size of `x`.
      out_features: size of `y`.
      use_bias: whether there is a `b`.
      gain: initial value of every `g`.
      bias: initial value of every `b`.
      dtype: type of the computation and of `y`; the norm is always computed in float32 or wider.
      param_dtype: type of the parameters.
      rngs: source of the initial directions; not kept.

    Source: Salimans and Kingma 2016, equation 2.

    >>> layer = WeightNormLinear(3, 2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones(3)).shape
    (2,)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        gain: float = 1.0,
        bias: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = in_features
        self.dtype = dtype
        self.direction = nnx.Param(init_direction(rngs, (in_features, out_features), param_dtype))
        self.gain = nnx.Param(jnp.full((out_features,), gain, param_dtype))
        self.bias = nnx.Param(jnp.full((out_features,), bias, param_dtype)) if use_bias else None

    def __call__(self, x: Shaped[Array, "I"]) -> Float[Array, "O"]:
        """Map `x` [I] to `y` [O].

        Raises:
          ValueError: `x` has another shape.
        """
        require_shape("x", x, (self.in_features,))
        y = x.astype(self.dtype) @ self.kernel()
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)

    def kernel(self) -> Float[Array, "I O"]:
        """The kernel `g * v / |v|` [in_features, out_features]; under vmap it is computed once."""
        return weight_norm(self.direction[...], self.gain[...]).astype(self.dtype)


class WeightNormConv(nnx.Module):
    """3x3 convolution with weight normalisation, zero padding of one pixel, on one example.

    `y = g * conv(x, v / |v|) + b`, the norm taken over the 9 * in_channels weights of each output channel.
    Initialisation as in `WeightNormLinear`.

    Args:
      in_channels: channels of `x`.
      out_channels: channels of `y`.
      stride: 2 halves the image, rounding up (28 to 14, 7 to 4).
      use_bias: whether there is a `b`.
      gain: initial value of every `g`.
      bias: initial value of every `b`.
      dtype: type of the computation and of `y`.
      param_dtype: type of the parameters.
      rngs: source of the initial directions; not kept.

    Source: Salimans and Kingma 2016, section 2.

    >>> layer = WeightNormConv(1, 4, stride=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((7, 7, 1))).shape
    (4, 4, 4)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        use_bias: bool = True,
        gain: float = 1.0,
        bias: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_channels = in_channels
        self.stride = stride
        self.dtype = dtype
        self.direction = nnx.Param(init_direction(rngs, (3, 3, in_channels, out_channels), param_dtype))
        self.gain = nnx.Param(jnp.full((out_channels,), gain, param_dtype))
        self.bias = nnx.Param(jnp.full((out_channels,), bias, param_dtype)) if use_bias else None

    def __call__(self, x: Shaped[Array, "H W I"]) -> Float[Array, "H2 W2 O"]:
        """Map `x` [H, W, I] to `y` [ceil(H / stride), ceil(W / stride), O].

        Raises:
          ValueError: `x` has another rank or number of channels.
        """
        require_shape("x", x, ("H", "W", self.in_channels))
        y = convolve(x.astype(self.dtype), self.kernel(), stride=self.stride)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)[None, None, :]

    def kernel(self) -> Float[Array, "3 3 I O"]:
        """The kernel `g * v / |v|` [3, 3, in_channels, out_channels]; under vmap it is computed once."""
        return weight_norm(self.direction[...], self.gain[...]).astype(self.dtype)


class ConditionalWeightNormLinear(nnx.Module):
    """Linear layer whose gain and bias are linear functions of a context, on one example.

    `y = g(c) * (v / |v|)^T x + b(c)` with `g(c) = A c + a` and `b(c) = B c + b`; the direction `v` is a
    parameter.

    Initialisation: `v` as in `WeightNormLinear`, `a = gain`, `b = bias`, and small `A` and `B`, so that a
    context of unit second moment moves the gains by 10 percent and the biases by 0.1 (standard deviations).
    The layer starts as a well-scaled ordinary one, and the context is felt from the first step.

    Args:
      in_features: size of `x`.
      out_features: size of `y`.
      context_features: size of the context.
      use_bias: whether there is a `b(c)`.
      gain: initial value of every `a`.
      bias: initial value of every `b`.
      dtype: type of the computation and of `y`; the norm is always computed in float32 or wider.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Source: Huang et al. 2019, appendix D; Huang et al. 2018 (Neural Autoregressive Flows).

    >>> layer = ConditionalWeightNormLinear(3, 2, 5, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones(3), jnp.ones(5)).shape
    (2,)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        context_features: int,
        *,
        use_bias: bool = True,
        gain: float = 1.0,
        bias: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = in_features
        self.context_features = context_features
        self.dtype = dtype
        self.direction = nnx.Param(init_direction(rngs, (in_features, out_features), param_dtype))

        def of_context(start: float, strength: float) -> nnx.Linear:
            return nnx.Linear(
                context_features,
                out_features,
                kernel_init=jax.nn.initializers.normal(strength / math.sqrt(context_features)),
                bias_init=jax.nn.initializers.constant(start),
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        self.gain = of_context(gain, CONTEXT_STRENGTH * abs(gain))
        self.bias = of_context(bias, CONTEXT_STRENGTH) if use_bias else None

    def __call__(self, x: Shaped[Array, "I"], context: Shaped[Array, "C"]) -> Float[Array, "O"]:
        """Map `x` [I], given `context` [C], to `y` [O].

        Raises:
          ValueError: `x` or `context` has another shape.
        """
        require_shape("x", x, (self.in_features,))
        require_shape("context", context, (self.context_features,))
        # The gain multiplies the output, not the kernel: a batch of contexts still shares one matrix product.
        y = self.gain(context) * (x.astype(self.dtype) @ unit(self.direction[...]).astype(self.dtype))
        return y if self.bias is None else y + self.bias(context)
