"""Bounds as functions: a log-joint and a proposal in, `bound(params, x, key)` for one example out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._gradients import GRADIENTS, Terms, reparameterized, with_path_rule
from hiwae_jax._proposals import Draw, Example, Params, Proposal
from hiwae_jax._weightings import Weighting, log_partition, uniform_weighting

LogDensity = Callable[[Params, Example, Float[Array, " D"]], Float[Array, ""]]
Bound = Callable[[Params, Example, Any], Float[Array, ""]]


def make_bound(
    log_joint: LogDensity,
    proposal: Proposal,
    *,
    weighting: Weighting | None = None,
    gradient: str = "doubly_reparameterized",
) -> Bound:
    """A lower bound on log p(x) as a pure function of one example: `log sum_j w_j`, to be maximised.

    With `independent` samples it is the importance-weighted bound (the ELBO at K = 1), with a `hierarchical` proposal
    the hierarchical one (H-IWLB). The value does not depend on `gradient`.

    Args:
      log_joint: `(params, x, z [D]) -> scalar`, `log p(x, z)` of one latent sample.
      proposal: from `independent` or `hierarchical`.
      weighting: how the members share the target; `uniform_weighting()` if None. No effect where all members are equal.
      gradient: how the proposal's parameters are reached. The generative and the reverse model always receive the plain
        gradient.
        "reparameterized": plain pathwise; unbiased, noisy at large K.
        "doubly_reparameterized": unbiased for every weighting, without the scores that make the plain one noisy.
        "path_squared": own paths with squared weights and nothing else; least noise, biased unless the weighting is
        uniform.
        "authors": the rule of the code released with the paper; biased where there is a z_0. For comparisons.

    Returns:
      `bound(params, x, key) -> scalar`, in nats, in at least float32. `params` is any pytree, `x` one example, `key`
      one typed key. It composes with `jit`, `grad`, `jvp`, `vmap` and `scan`; vmap it over the batch, with a key for
      each example.

    Raises:
      ValueError: for an unknown `gradient`, and when called: for arrays of unexpected shape, and for a reverse model
        that treats members differently under a weighting that is not uniform.
      TypeError: for something that is no proposal or weighting, and when called, for unexpected dtypes or an untyped
        key.

    Reference: Burda et al. (2016), equation 8; Huang et al. (2019), section 3.2; Tucker et al. (2019); Bauer and Mnih
    (2021).

    >>> import hiwae_jax as hj
    >>> def log_joint(params, x, z):
    ...     return -0.5 * jnp.sum((x - params["w"] * z) ** 2) - 0.5 * jnp.sum(z**2)
    >>> def conditional(params, x):
    ...     return params["a"] * x, jnp.exp(params["s"]) * jnp.ones_like(x)
    >>> bound = hj.make_bound(log_joint, hj.independent(conditional, num_samples=8))
    >>> params = {"w": 1.0, "a": 0.5, "s": -0.3}
    >>> value, gradient = jax.value_and_grad(bound)(params, jnp.array([1.0, -2.0]), jax.random.key(0))
    >>> value.shape, sorted(gradient)
    ((), ['a', 's', 'w'])
    """
    estimate = _make_estimate("log_joint", log_joint, _no_prior, proposal, weighting, gradient, free_bits=0.0)
    return lambda params, x, key: estimate(params, x, key, 1.0)


def make_annealed_objective(
    log_likelihood: LogDensity,
    log_prior: LogDensity,
    proposal: Proposal,
    *,
    weighting: Weighting | None = None,
    gradient: str = "doubly_reparameterized",
    free_bits: float = 0.0,
) -> Callable[[Params, Example, Any, Any], Float[Array, ""]]:
    """The objective of warm-up: the log-density terms besides the likelihood are scaled by beta, then floored.

    With `kl_j = log q_0 + log q_j - log r - log p(z_j) - log pi_j` the log-weights are
    `log p(x | z_j) - max(beta * kl_j, free_bits)`. It is a bound, and equal to `make_bound`, only at beta = 1 without
    free bits.

    Args:
      log_likelihood: `(params, x, z [D]) -> scalar`, `log p(x | z)`.
      log_prior: `(params, x, z [D]) -> scalar`, `log p(z)`.
      proposal: as for `make_bound`.
      weighting: as for `make_bound`.
      gradient: as for `make_bound`; "doubly_reparameterized" is unbiased for every beta and `free_bits`.
      free_bits: the floor, in nats for each sample; at least 0, where 0 means none.

    Returns:
      `objective(params, x, key, beta) -> scalar`; beta may be traced, so that a schedule does not recompile.

    Reference: Sonderby et al. (2016) for warm-up, Kingma et al. (2016) for free bits.
    """
    if not free_bits >= 0.0:
        raise ValueError(f"free_bits: expected a number of at least 0 (0 for none), got {free_bits}")
    return _make_estimate(
        "log_likelihood", log_likelihood, log_prior, proposal, weighting, gradient, free_bits=float(free_bits)
    )


def make_log_weights(
    log_joint: LogDensity, proposal: Proposal, *, weighting: Weighting | None = None
) -> Callable[[Params, Example, Any], Float[Array, " K"]]:
    """The K log-weights of one example, mixing weight included: `sum_j exp(log_w_j)` estimates p(x) without bias.

    Because the mixing weight (1/K or pi_j) is inside, the bound is their log-sum-exp, not `iwlb` of them.

    Args:
      log_joint: as for `make_bound`.
      proposal: as for `make_bound`.
      weighting: as for `make_bound`.

    Returns:
      `log_weights(params, x, key) -> [K]`, in at least float32. *Gradients*: the plain pathwise ones.

    Raises:
      The errors of `make_bound`.

    >>> import hiwae_jax as hj
    >>> proposal = hj.independent(lambda params, x: (x, jnp.ones_like(x)), num_samples=4)
    >>> log_weights = hj.make_log_weights(lambda params, x, z: -0.5 * jnp.sum(z**2), proposal)
    >>> log_weights(None, jnp.zeros(2), jax.random.key(0)).shape
    (4,)
    """
    weighting = _checked({"log_joint": log_joint}, proposal, weighting)

    def log_weights(params: Params, x: Example, key: Any) -> Float[Array, " K"]:
        draw = proposal.draw(params, x, key)
        evaluate = _make_evaluate("log_joint", log_joint, _no_prior, proposal, weighting, params, x, draw, 1.0, 0.0)
        return evaluate(draw.z, draw.z0, draw.base, draw.members).log_weights

    return log_weights


def _no_prior(params: Params, x: Example, z: Float[Array, " D"]) -> Float[Array, ""]:
    return jnp.zeros((), z.dtype)


def _checked(densities: dict[str, Any], proposal: Any, weighting: Any) -> Weighting:
    for name, density in densities.items():
        if not callable(density):
            raise TypeError(f"{name}: expected a function (params, x, z) -> scalar, got {type(density).__name__}")
    if not isinstance(proposal, Proposal):
        got = type(proposal).__name__
        raise TypeError(f"proposal: expected what hj.independent or hj.hierarchical returns, got {got}")
    if weighting is None:
        return uniform_weighting()
    if not isinstance(weighting, Weighting):
        got = type(weighting).__name__
        raise TypeError(f"weighting: expected what hj.uniform_weighting or hj.power_heuristic returns, got {got}")
    return weighting


def _make_estimate(
    name: str,
    log_likelihood: LogDensity,
    log_prior: LogDensity,
    proposal: Proposal,
    weighting: Weighting | None,
    gradient: str,
    *,
    free_bits: float,
) -> Callable[[Params, Example, Any, Any], Float[Array, ""]]:
    chosen = _checked({name: log_likelihood, "log_prior": log_prior}, proposal, weighting)
    if gradient not in GRADIENTS:
        names = ", ".join(repr(name) for name in GRADIENTS)
        raise ValueError(f"gradient: expected one of {names}, got {gradient!r}")

    def estimate(params: Params, x: Example, key: Any, beta: Any) -> Float[Array, ""]:
        draw = proposal.draw(params, x, key)
        beta = jnp.asarray(beta, draw.z.dtype)
        evaluate = _make_evaluate(name, log_likelihood, log_prior, proposal, chosen, params, x, draw, beta, free_bits)
        if gradient == "reparameterized":
            return reparameterized(evaluate, draw)
        frozen = jax.lax.stop_gradient((params, draw.context))
        return with_path_rule(evaluate, proposal, chosen, draw, beta=beta, gradient=gradient, frozen_params=frozen)

    return estimate


def _make_evaluate(
    name: str,
    log_likelihood: LogDensity,
    log_prior: LogDensity,
    proposal: Proposal,
    weighting: Weighting,
    params: Params,
    x: Example,
    draw: Draw,
    beta: Any,
    free_bits: float,
) -> Callable[[Any, Any, Any, Any], Terms]:
    """The log-weights of one example as a function of samples and density parameters; each sees the same operations."""
    K = draw.z.shape[0]
    own_only = proposal.equal_members or weighting.alpha == 0.0
    if not own_only:
        proposal.check_reverse(params, draw.context, draw.z)

    def model(z: Float[Array, " D"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        likelihood = _checks.scalar(name, log_likelihood(params, x, z), z=z)
        return likelihood, _checks.scalar("log_prior", log_prior(params, x, z), z=z)

    def evaluate(z: Any, z0: Any, base: Any, members: Any) -> Terms:
        likelihood, bracket = jax.vmap(model)(z)
        if proposal.log_reverse is not None:
            bracket += proposal.log_reverse(params, draw.context, z0, z)
            bracket -= jax.vmap(proposal.base_family.log_prob, in_axes=(None, 0))(base, z0)
        if own_only:
            densities = proposal.own_densities(members, z)
            bracket -= densities + jnp.log(jnp.asarray(K, z.dtype))
        else:
            densities = proposal.over_pairs(proposal.family.log_prob, members, z)
            bracket += jnp.diagonal(log_partition(weighting, densities) - densities)
        if free_bits == 0.0:
            return Terms(likelihood + beta * bracket, densities, None)
        held = -beta * bracket < free_bits
        log_weights = likelihood - jnp.where(held, free_bits, -beta * bracket)
        return Terms(log_weights, densities, held.astype(z.dtype))

    return evaluate
