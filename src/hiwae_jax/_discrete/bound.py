"""Discrete latents: families that cannot be reparameterized, and the bound with gradients by scores."""

import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._discrete.score_function import SIGNALS, check_others, iwlb_with_signals
from hiwae_jax._types import Conditional, Example, Key, LogDensity, Parameters, Params, Scalar, Unchecked

DiscreteGradientName = Literal["score_function", "vimco", "wake_phase"]


@runtime_checkable
class Sample(Protocol):
    """Draws `num_samples` independent samples along a leading axis. It receives the caller's key untouched, once."""

    def __call__(self, key: Key, parameters: Parameters, num_samples: int) -> Float[Array, "K ..."]: ...


@runtime_checkable
class LogProb(Protocol):
    """The log-probability of one z."""

    def __call__(self, parameters: Parameters, z: Float[Array, "..."]) -> Scalar: ...


class DiscreteFamily(NamedTuple):
    """A family of distributions of z, which need not be differentiable in z. Both functions are of one example.

    Attributes:
      sample: `(key, parameters, num_samples) -> z [K, ...]`.
      log_prob: `(parameters, z [...]) -> scalar`, differentiable in the parameters.
    """

    sample: Sample
    log_prob: LogProb


def _bernoulli_sample(key: Key, parameters: Float[Array, " D"], num_samples: int) -> Float[Array, "K D"]:
    logits = _checked_logits(parameters, "[D]")
    num_samples = _checks.positive_integer("num_samples", num_samples)
    means = jnp.broadcast_to(jax.nn.sigmoid(logits), (num_samples, *logits.shape))
    return jax.random.bernoulli(_checks.one_key(key), means).astype(logits.dtype)


def _bernoulli_log_prob(parameters: Float[Array, " D"], z: Float[Array, " D"]) -> Scalar:
    logits = _checked_logits(parameters, "[D]", _checked_z(z))
    # log sigmoid(logits) where z = 1 and log sigmoid(-logits) where z = 0, without the inf * 0 of other forms.
    return jnp.sum(jax.nn.log_sigmoid((2.0 * z - 1.0) * logits))


bernoulli = DiscreteFamily(_bernoulli_sample, _bernoulli_log_prob)
"""Independent Bernoulli variables; the parameters are logits [D], and z is a float array [D] of zeros and ones."""


def _categorical_sample(key: Key, parameters: Float[Array, "D C"], num_samples: int) -> Float[Array, "K D C"]:
    logits = _checked_logits(parameters, "[D, C]")
    num_samples = _checks.positive_integer("num_samples", num_samples)
    chosen = jax.random.categorical(_checks.one_key(key), logits, shape=(num_samples, logits.shape[0]))
    return jax.nn.one_hot(chosen, logits.shape[1], dtype=logits.dtype)


def _categorical_log_prob(parameters: Float[Array, "D C"], z: Float[Array, "D C"]) -> Scalar:
    logits = _checked_logits(parameters, "[D, C]", _checked_z(z))
    # A category that is ruled out has log-probability -inf, which times 0 would be NaN.
    return jnp.sum(jnp.where(z == 0.0, 0.0, z * jax.nn.log_softmax(logits, axis=-1)))


categorical = DiscreteFamily(_categorical_sample, _categorical_log_prob)
"""D independent variables of C categories; the parameters are logits [D, C], and z is one-hot, a float array [D, C]."""


@_checks.by_name
def make_discrete_bound(
    log_joint: LogDensity,
    conditional: Conditional,
    *,
    num_samples: int,
    family: DiscreteFamily,
    gradient: DiscreteGradientName = "vimco",
) -> Callable[[Params, Example, Key], Scalar]:
    """The importance-weighted bound on log p(x) with discrete latents, `log 1/K sum_j p(x, z_j) / q(z_j | x)`.

    Args:
      log_joint: `(params, x, z) -> scalar`, `log p(x, z)` of one latent sample.
      conditional: `(params, x) -> parameters` of q(z | x) for one example: logits [D] for `bernoulli`, [D, C] for
        `categorical`.
      num_samples: the number K.
      family: `bernoulli`, `categorical`, or another `DiscreteFamily`.
      gradient: how the gradient in the parameters of q is estimated. The value does not depend on it.
        "score_function": unbiased; the whole bound is the learning signal of each sample, and noise grows with it.
        "vimco": unbiased, K >= 2; the signal of a sample is what it adds to the bound beyond the other samples.
        "wake_phase": not the gradient of the bound: q receives the gradient of `wake_phase`, which brings it closer to
        the posterior in the inclusive divergence.

    Returns:
      `bound(params, x, key) -> scalar`, in nats, in at least float32, to be maximised. `params` is any pytree, `x` one
      example, `key` one typed key. It composes with `jit`, `grad`, `jvp`, `vmap` and `scan`; vmap it over the batch.

    *Gradients*: `log p(x, z_j)` receives the self-normalised weight `wbar_j`, the gradient of the bound under every
    choice. `log q(z_j | x)` receives `L - wbar_j` ("score_function", L the bound), `L - L_j - wbar_j` ("vimco", see
    `vimco`) or `wbar_j` ("wake_phase"); z receives nothing. First derivatives only: a second derivative runs, but
    estimates nothing. Where every weight is zero the bound is `-inf` and all receive zero. The same happens where
    `log_joint` is NaN at a sample. The usual cause is a category that the model rules out: its log-probability `-inf`
    is multiplied with a zero of the one-hot z. Index with `jnp.argmax(z, axis=-1)` instead. Outside of `jit` a warning
    says so.

    Raises:
      ValueError: for an unknown `gradient` and for "vimco" with one sample, and when called, for unexpected shapes.
      TypeError: for something that is no function or family, and when called, for unexpected dtypes or an untyped key.

    Reference: Mnih and Rezende (2016) for the bound, its score-function gradient and VIMCO; Bornschein and Bengio
    (2015) for the wake phase.

    >>> def log_joint(params, x, z):
    ...     return bernoulli.log_prob(params["w"] @ z, x) + bernoulli.log_prob(jnp.zeros(2), z)
    >>> bound = make_discrete_bound(log_joint, lambda params, x: params["a"] @ x, num_samples=4, family=bernoulli)
    >>> params = {"w": jnp.ones((3, 2)), "a": jnp.zeros((2, 3))}
    >>> both = jax.jit(jax.value_and_grad(bound))
    >>> value, gradient = both(params, jnp.array([1.0, 0.0, 1.0]), jax.random.key(0))
    >>> value.shape, gradient["a"].shape
    ((), (2, 3))
    """
    num_samples = _checks.positive_integer("num_samples", num_samples)
    _checks.function("log_joint", log_joint, "(params, x, z)", result="scalar")
    _checks.function("conditional", conditional, "(params, x)", result="parameters")
    _check_family_and_gradient(family, gradient, num_samples)

    def bound(params: Params, x: Example, key: Key) -> Scalar:
        parameters = conditional(params, x)
        z = jax.lax.stop_gradient(family.sample(key, parameters, num_samples))
        if z.shape[:1] != (num_samples,):
            raise ValueError(f"family.sample: expected {num_samples} samples along the first axis, got shape {z.shape}")

        def densities(z: Float[Array, "..."]) -> tuple[Scalar, Scalar]:
            joint = _checks.scalar("log_joint", log_joint(params, x, z), z=z)
            return joint, _checks.scalar("family.log_prob", family.log_prob(parameters, z), z=z)

        log_joints, log_proposals = jax.vmap(densities)(z)
        log_weights = _without_nan(log_joints, log_proposals) - log_proposals
        signals = SIGNALS[gradient](jax.lax.stop_gradient(log_weights))
        return iwlb_with_signals(log_weights, log_proposals, signals, -1)

    return bound


def _check_family_and_gradient(family: Unchecked, gradient: Unchecked, num_samples: int) -> None:
    """Raise if the family is none, or the gradient has no such name or needs more samples."""
    if not isinstance(family, DiscreteFamily):
        got = type(family).__name__
        raise TypeError(f"family: expected hj.bernoulli, hj.categorical or a DiscreteFamily, got {got}")
    if not isinstance(gradient, str) or gradient not in SIGNALS:
        names = ", ".join(repr(name) for name in SIGNALS)
        raise ValueError(f"gradient: expected one of {names}, got {gradient!r:.80}")
    if gradient == "vimco":
        check_others("num_samples", num_samples)


def _checked_z(z: Unchecked) -> Array:
    """The zeros and ones that the caller gave, or what is wrong with them."""
    if not hasattr(z, "dtype") or not (jnp.issubdtype(z.dtype, jnp.floating) or z.dtype == jnp.bool_):
        got = f"dtype {z.dtype}" if hasattr(z, "dtype") else type(z).__name__
        raise TypeError(f"z: expected a floating-point array of zeros and ones, got {got}")
    known = _checks.known_range(z)
    if known is not None and not (known[0] >= 0.0 and known[1] <= 1.0):
        raise ValueError(f"z: expected zeros and ones, got values from {known[0]:g} to {known[1]:g}")
    checked: Array = z
    return checked


def _without_nan(log_joints: Float[Array, " K"], log_proposals: Float[Array, " K"]) -> Float[Array, " K"]:
    """The values of `log_joint`; if one of them is NaN, `-inf` for all, with a warning outside of `jit`.

    A NaN of q itself stays: where `log_proposals` are not finite, nothing is replaced.
    """
    is_undefined = jnp.any(jnp.isnan(log_joints) & jnp.isfinite(log_proposals))
    if not isinstance(is_undefined, jax.core.Tracer) and bool(is_undefined):
        warnings.warn(
            "log_joint: NaN at a sample, so the bound is -inf. A log-probability of -inf times a zero of a one-hot z "
            "is NaN: index with jnp.argmax(z, axis=-1) instead of multiplying, or use hj.categorical.log_prob",
            stacklevel=3,
        )
    return jnp.where(is_undefined, -jnp.inf, log_joints)


def _checked_logits(logits: Unchecked, expected: str, z: Array | None = None) -> jax.Array:
    """The logits in at least float32, or what is wrong with them or with the shape of z."""
    ndim = expected.count(",") + 1
    if not hasattr(logits, "dtype") or jnp.ndim(logits) != ndim:
        got = f"shape {logits.shape}" if hasattr(logits, "dtype") else type(logits).__name__
        raise ValueError(
            f"parameters: expected one array of logits {expected} for one example, got {got}; the caller vmaps over "
            "the batch"
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"parameters: expected floating-point logits {expected}, got dtype {logits.dtype}")
    if z is not None and jnp.shape(z) != logits.shape:
        raise ValueError(f"z: expected shape {logits.shape} as the logits have, got {jnp.shape(z)}")
    return _checks.at_least_float32(jnp.asarray(logits))
