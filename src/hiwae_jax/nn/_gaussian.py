"""Scales that cannot leave the positive numbers, and heads that turn features into a diagonal Gaussian."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from hiwae_jax import _checks
from hiwae_jax._checks import at_least_float32
from hiwae_jax.nn._checks import Start, head_strength, require_shape
from hiwae_jax.nn._residual import ResidualLinear

# At a scale of 1e-4 a float32 sample of size one still gives its standardised residual to three digits.
SCALE_FLOOR = 1e-4

# |log-variance| never exceeds this: scales stay between 4.5e-5 and 2.2e4.
LOG_VARIANCE_BOUND = 20.0

# Small, so that a head starts near its bias; not zero, so that gradients reach the features.
HEAD_GAIN = 0.1

# The raw value at which `positive_scale` is one.
RAW_UNIT_SCALE = math.log(math.expm1(1.0 - SCALE_FLOOR))


def positive_scale(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Map real numbers to scales: `softplus(raw) + 1e-4`, in float32 or wider.

    Args:
      raw: any finite numbers, of any float type.

    Returns:
      Scales in [1e-4, inf), finite wherever `raw` is.

    Gradients:
      `sigmoid(raw)`: finite everywhere, and it fades to zero, never to NaN, as the scale reaches its floor.

    Source: Huang et al. 2019, appendix D (softplus); the floor is ours.

    >>> [round(float(s), 4) for s in positive_scale(jnp.array([-1e4, 0.0, 1e4]))]
    [0.0001, 0.6932, 10000.0]
    """
    # A bfloat16 softplus would round the floor away or to zero, so narrow types are widened first.
    return jax.nn.softplus(_checks.float_array("raw", raw)) + SCALE_FLOOR


def scale_from_log_variance(log_variance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Map unbounded log-variances to scales: `exp(0.5 B tanh(l / B))` with `B = 20`, in float32 or wider.

    Args:
      log_variance: any finite numbers, of any float type.

    Returns:
      Scales in [4.5e-5, 2.2e4]; within 2 percent of `exp(0.5 l)` for |l| < 3.

    Gradients:
      Finite everywhere: the bound is smooth, where a clip would stop the gradient at once.

    Source: Huang et al. 2019, appendix D (log-variance of r); the bound is ours.

    >>> [float(f"{s:.2g}") for s in scale_from_log_variance(jnp.array([-1e4, 0.0, 1e4]))]
    [4.5e-05, 1.0, 22000.0]
    """
    bounded = LOG_VARIANCE_BOUND * jnp.tanh(_checks.float_array("log_variance", log_variance) / LOG_VARIANCE_BOUND)
    return jnp.exp(0.5 * bounded)


class GaussianHead(nnx.Module):
    """Diagonal Gaussian whose location and scale are residual blocks of a context, on one example.

    `loc = residual(c)`, `scale = positive_scale(residual(c))`.

    Initialisation: gains of 0.1 and a bias at which the scale is one, so the Gaussian starts near N(0, I).

    Args:
      in_features: size of the context.
      out_features: dimension D of the Gaussian.
      start: "distinct", or "independent" to start as N(0, I) exactly; see `HierarchicalConditionals`.
      dtype: type of the computation; `loc` and `scale` are float32 or wider.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Source: Huang et al. 2019, section 6.3 (q_0).

    >>> loc, scale = GaussianHead(5, 2, rngs=nnx.Rngs(0))(jnp.ones(5))
    >>> loc.shape, scale.shape
    ((2,), (2,))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        start: Start = "distinct",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        gain = HEAD_GAIN * head_strength(start)

        def block(bias: float) -> ResidualLinear:
            return ResidualLinear(
                in_features,
                out_features,
                gain=gain,
                bias=bias,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        self.in_features = in_features
        self.loc = block(0.0)
        self.raw_scale = block(RAW_UNIT_SCALE)

    def __call__(self, context: Shaped[Array, "C"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        """Map `context` [C] to `(loc [D], scale [D])`.

        Raises:
          ValueError: `context` has another shape.
        """
        require_shape("context", context, (self.in_features,))
        return at_least_float32(self.loc(context)), positive_scale(self.raw_scale(context))


class LinearGaussianHead(nnx.Module):
    """Diagonal Gaussian whose location and scale are linear in the features, on one example.

    `loc = A h + a`, `scale = positive_scale(B h + b)`.

    Initialisation: weights of standard deviation `0.1 / sqrt(in_features)`, zero `a`, and `b` at which the
    scale is one, so the Gaussian starts near N(0, I).

    Args:
      in_features: size of the features.
      out_features: dimension D of the Gaussian.
      start: "distinct", or "independent" to start as N(0, I) exactly; see `HierarchicalConditionals`.
      dtype: type of the computation; `loc` and `scale` are float32 or wider.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Source: Burda, Grosse and Salakhutdinov 2016, section 5 (with softplus in place of exp).

    >>> loc, scale = LinearGaussianHead(5, 2, rngs=nnx.Rngs(0))(jnp.ones(5))
    >>> loc.shape, scale.shape
    ((2,), (2,))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        start: Start = "distinct",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        gain = HEAD_GAIN * head_strength(start)

        def linear(bias: float) -> nnx.Linear:
            return nnx.Linear(
                in_features,
                out_features,
                kernel_init=jax.nn.initializers.normal(gain / math.sqrt(in_features)),
                bias_init=jax.nn.initializers.constant(bias),
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        self.in_features = in_features
        self.loc = linear(0.0)
        self.raw_scale = linear(RAW_UNIT_SCALE)

    def __call__(self, features: Shaped[Array, "H"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        """Map `features` [H] to `(loc [D], scale [D])`.

        Raises:
          ValueError: `features` has another shape.
        """
        require_shape("features", features, (self.in_features,))
        return at_least_float32(self.loc(features)), positive_scale(self.raw_scale(features))
