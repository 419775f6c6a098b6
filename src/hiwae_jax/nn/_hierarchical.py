"""Networks of the hierarchical proposal: K conditionals with shared hidden units, and the reverse model."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from hiwae_jax._checks import at_least_float32
from hiwae_jax.nn._checks import Start, head_strength, require_shape
from hiwae_jax.nn._elu import elu
from hiwae_jax.nn._gaussian import HEAD_GAIN, RAW_UNIT_SCALE, positive_scale, scale_from_log_variance
from hiwae_jax.nn._weight_norm import CONTEXT_STRENGTH, ELU_GAIN, WeightNormLinear, init_direction, unit


class _Given(NamedTuple):
    """The gains and biases that a context gives to every layer.

    They are arrays of their own and not one array that is sliced when used: XLA's CPU code for two slices of an array
    that is itself a slice, as in a loop over chunks, takes eight times as long.
    """

    gain_of_z: Float[Array, "H+O"]
    gain_of_hidden: Float[Array, "2*O"]
    hidden_bias: Float[Array, "H"]
    bias: Float[Array, "2*O"]


class _ConditionalGaussian(nnx.Module):
    """The network that the conditionals and the reverse model have in common.

    `h = ELU(W_h z + b_h)`, `loc = W_mu h + b_mu + W_s z`, `raw = W_sigma h + b_sigma`, every layer with
    conditional weight norm, as in `ConditionalWeightNormLinear`. Layers that read the same input are one matrix
    product: all gains and biases, `W_h` with `W_s`, `W_mu` with `W_sigma`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        context_features: int,
        hidden_features: int,
        *,
        raw_bias: float,
        start: Start,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        from_z, from_hidden = hidden_features + out_features, 2 * out_features
        self.hidden_features = hidden_features
        self.dtype = dtype
        self.of_z = nnx.Param(init_direction(rngs, (in_features, from_z), param_dtype))
        self.of_hidden = nnx.Param(init_direction(rngs, (hidden_features, from_hidden), param_dtype))
        # Gains of the hidden units, the skip, loc and raw; biases of the hidden units, loc and raw.
        sizes = np.array([hidden_features, out_features, from_hidden, hidden_features, out_features, out_features])
        head = head_strength(start)
        gain = HEAD_GAIN * head
        at_start = np.repeat([1.0, gain, gain * ELU_GAIN, 0.0, 0.0, raw_bias], sizes)
        strength = np.repeat([1.0, gain, gain * ELU_GAIN, 1.0, head, head], sizes) * CONTEXT_STRENGTH
        normal = jax.nn.initializers.normal(1.0 / math.sqrt(context_features))
        self.of_context = nnx.Linear(
            context_features,
            len(at_start),
            kernel_init=lambda *shape: normal(*shape) * jnp.asarray(strength, param_dtype)[None, :],
            bias_init=lambda *shape: jnp.asarray(at_start, param_dtype),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def given(self, context: Shaped[Array, "C"]) -> _Given:
        """The gains and biases for this context."""
        H, from_z, from_hidden = self.hidden_features, self.of_z.shape[1], self.of_hidden.shape[1]
        return _Given(*jnp.split(self.of_context(context), np.cumsum([from_z, from_hidden, H])))

    def __call__(self, z: Shaped[Array, "I"], given: _Given) -> tuple[Float[Array, "O"], Float[Array, "O"]]:
        """`loc` and `raw` at z."""
        H = self.hidden_features
        y = given.gain_of_z * (z.astype(self.dtype) @ unit(self.of_z[...]).astype(self.dtype))
        hidden = elu(y[:H] + given.hidden_bias)
        from_hidden = hidden @ unit(self.of_hidden[...]).astype(self.dtype)
        loc, raw = jnp.split(given.gain_of_hidden * from_hidden + given.bias, 2)
        return loc + y[H:], raw


class HierarchicalConditionals(nnx.Module):
    """All K conditionals `q_j(z_j | z_0, x)` at once, on one example.

    `h = ELU(W_h z_0 + b_h)`, shared by the members, then for each member j `loc_j = W_mu,j h + b_mu,j +
    W_s,j z_0` and `scale_j = positive_scale(W_sigma,j h + b_sigma,j)`. Every layer is a
    `ConditionalWeightNormLinear` of the context. The members' heads are one matrix product with 2 * K * D
    outputs.

    Initialisation: heads with gains of 0.1 and scales near one, so every member starts near N(0, I); their
    random directions make them differ from each other. With `start="independent"` the gains of the heads are zero, and
    every member starts as N(0, I) exactly, whatever z_0 and the context are. Together with a `ReverseModel` and a head
    of q_0 that start so too, `log r - log q_0` is zero at the start, and the bound is that of independent samples. The
    members have no preference for a part of the posterior then, and must find one.

    Args:
      num_samples: number K of members.
      context_features: size C of the context.
      base_features: dimension D0 of `z0`.
      latent_features: dimension D of each member.
      hidden_features: number of shared hidden units (1,920 in the paper for MNIST and OMNIGLOT).
      start: "distinct" members, or "independent" samples; see above. The parameters have the same structure.
      dtype: type of the computation; `loc` and `scale` are float32 or wider.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Raises:
      ValueError: `num_samples` is less than one, or `start` is unknown.

    Source: Huang et al. 2019, appendix D.

    >>> conditionals = HierarchicalConditionals(
    ...     num_samples=3, context_features=5, base_features=4, latent_features=2, hidden_features=8,
    ...     rngs=nnx.Rngs(0))
    >>> loc, scale = conditionals(jnp.ones(5), jnp.ones(4))
    >>> loc.shape, scale.shape
    ((3, 2), (3, 2))
    """

    def __init__(
        self,
        *,
        num_samples: int,
        context_features: int,
        base_features: int,
        latent_features: int,
        hidden_features: int = 1920,
        start: Start = "distinct",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        self.num_samples = num_samples
        self.context_features = context_features
        self.base_features = base_features
        self.latent_features = latent_features
        self.network = _ConditionalGaussian(
            base_features,
            num_samples * latent_features,
            context_features,
            hidden_features,
            raw_bias=RAW_UNIT_SCALE,
            start=start,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(
        self, context: Shaped[Array, "C"], z0: Shaped[Array, "D0"]
    ) -> tuple[Float[Array, "K D"], Float[Array, "K D"]]:
        """Map `context` [C] and `z0` [D0] to `(loc [K, D], scale [K, D])`.

        Raises:
          ValueError: `context` or `z0` has another shape.
        """
        require_shape("context", context, (self.context_features,))
        require_shape("z0", z0, (self.base_features,))
        loc, raw = self.network(z0, self.network.given(context))
        members = (self.num_samples, self.latent_features)
        return at_least_float32(loc).reshape(members), positive_scale(raw).reshape(members)


class ReverseModel(nnx.Module):
    """The reverse model `r(z_0 | z_j, x)` at each of the K samples, on one example.

    `c_j = U_j c + u_j` (weight-normed), `h_j = ELU(W_h z_j + b_h)`, `loc_j = W_mu h_j + b_mu + W_s z_j`,
    `log var_j = W_sigma h_j + b_sigma`, where every `W` is a `ConditionalWeightNormLinear` of `c_j`. With
    `per_member=False` there is one map `U`, hence one context for all samples.

    Initialisation: gains of 0.1 and log-variances near zero, so `r` starts near N(0, I), which is where
    `q_0` is: the ratio of the two starts near one. With `start="independent"` it starts as N(0, I) exactly.

    Args:
      context_features: size C of the encoder's output, and of each `c_j`.
      latent_features: dimension D of the samples.
      base_features: dimension D0 of `z_0`.
      hidden_features: number of hidden units (1,920 in the paper for MNIST and OMNIGLOT).
      per_member: whether `r` knows which member it looks at. The paper does so for weights with alpha = 0
        only, for which each member has a reverse model of its own; other weights ask for one `r` for all.
      num_samples: number K of members; needed if, and only if, `per_member` is true.
      start: as for `HierarchicalConditionals`.
      dtype: type of the computation; `loc` and `scale` are float32 or wider.
      param_dtype: type of the parameters.
      rngs: source of the initial parameters; not kept.

    Raises:
      ValueError: `num_samples` is missing, superfluous or less than one, or `start` is unknown.

    Source: Huang et al. 2019, appendix D and the authors' code.

    >>> reverse = ReverseModel(
    ...     context_features=5, latent_features=2, base_features=4, hidden_features=8, rngs=nnx.Rngs(0))
    >>> loc, scale = reverse(jnp.ones(5), jnp.ones((3, 2)))
    >>> loc.shape, scale.shape
    ((3, 4), (3, 4))
    """

    def __init__(
        self,
        *,
        context_features: int,
        latent_features: int,
        base_features: int,
        hidden_features: int = 1920,
        per_member: bool = False,
        num_samples: int | None = None,
        start: Start = "distinct",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if per_member and (num_samples is None or num_samples < 1):
            raise ValueError(f"per_member=True needs num_samples of at least 1, got {num_samples}")
        if not per_member and num_samples is not None:
            raise ValueError(f"per_member=False takes any number of samples: leave out num_samples, got {num_samples}")
        self.num_samples = num_samples
        self.context_features = context_features
        self.latent_features = latent_features
        self.member_contexts = WeightNormLinear(
            context_features,
            context_features * (num_samples or 1),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.network = _ConditionalGaussian(
            latent_features,
            base_features,
            context_features,
            hidden_features,
            raw_bias=0.0,
            start=start,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def given(self, context: Shaped[Array, "C"]) -> _Given | Float[Array, "K C"]:
        """All that depends on x alone, a pytree for `at`: compute it once where the samples of a batch go in chunks.

        It has the gains and biases of every layer. With `per_member` it has the members' contexts [K, C] instead, since
        K times the gains and biases would be most of a step's memory.

        Raises:
          ValueError: `context` has another shape.
        """
        require_shape("context", context, (self.context_features,))
        contexts = self.member_contexts(context)
        if self.num_samples is None:
            return self.network.given(contexts)
        return contexts.reshape(self.num_samples, self.context_features)

    def at(
        self, given: _Given | Float[Array, "K C"], z: Shaped[Array, "K D"]
    ) -> tuple[Float[Array, "K D0"], Float[Array, "K D0"]]:
        """Map `given(context)` and `z` [K, D] to `(loc [K, D0], scale [K, D0])`, row by row.

        Raises:
          TypeError: `given` is not what the method of this name returns.
          ValueError: `z` has another shape; K is free when `per_member` is false.
        """
        require_shape("z", z, ("K" if self.num_samples is None else self.num_samples, self.latent_features))
        if isinstance(given, _Given) and self.num_samples is None:
            loc, log_variance = jax.vmap(self.network, in_axes=(0, None))(z, given)
        elif not isinstance(given, _Given) and self.num_samples is not None:
            require_shape("given", given, (self.num_samples, self.context_features))
            loc, log_variance = jax.vmap(lambda z, context: self.network(z, self.network.given(context)))(z, given)
        else:
            raise TypeError(f"given: expected what given(context) of this model returns, got {type(given).__name__}")
        return at_least_float32(loc), scale_from_log_variance(log_variance)

    def __call__(
        self, context: Shaped[Array, "C"], z: Shaped[Array, "K D"]
    ) -> tuple[Float[Array, "K D0"], Float[Array, "K D0"]]:
        """Map `context` [C] and `z` [K, D] to `(loc [K, D0], scale [K, D0])`, row by row: `at(given(context), z)`.

        Raises:
          ValueError: `context` or `z` has another shape; K is free when `per_member` is false.
        """
        return self.at(self.given(context), z)
