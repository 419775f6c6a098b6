"""`make_bound` and its like turn a log-joint and a proposal into `bound(params, x, key)` for one example."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._assembly import Ingredients, LogDensity, log_weight_terms, log_weights_and_shares, make_parts
from hiwae_jax._gradients.linearize import bound_by_rule, stopped
from hiwae_jax._gradients.registry import GradientName, chosen_rule
from hiwae_jax._gradients.rule import Request, Rule
from hiwae_jax._log_weights.bounds import log_mean_exp, log_sum_exp
from hiwae_jax._proposals.proposal import Draw, Proposal
from hiwae_jax._random_streams import Stream, stream_key
from hiwae_jax._types import Example, Key, Params
from hiwae_jax._weightings import Weighting, uniform_weighting


@dataclasses.dataclass(frozen=True)
class Bound:
    """A bound, or an annealed objective, as a function of one example: `bound(params, x, key, *shared) -> scalar`.

    Attributes:
      evaluate: the function. In place of the key it takes what `draw` has drawn.
      draw: `(params, x, key, *shared) -> Draw`. It draws all random numbers of the bound, for
        `batched_value_and_grad(bound, draw=bound.draw)`.
    """

    evaluate: Callable[..., Float[Array, ""]]
    draw: Callable[..., Draw]

    def __call__(self, params: Params, x: Example, key: Key, *shared: Any, **named: Any) -> Float[Array, ""]:
        """The value for one example, in nats. An annealed objective takes beta as `shared`, or by name."""
        return self.evaluate(params, x, key, *shared, **named)


@dataclasses.dataclass(frozen=True)
class LogWeights:
    """The log-weights of one example as a function: `log_weights(params, x, key) -> [K]`.

    Attributes:
      evaluate: the function. In place of the key it takes what the `draw` of a bound with the same proposal has drawn.
      independent_samples: whether the K samples are known to be independent of each other. Diagnostics of independent
        weights, such as `pareto_khat`, need that.
      with_shares: `(params, x, key) -> (log-weights [K], shares [K])`, with each member's share of the samples,
        `sum_j q_i(z_j) / sum_m q_m(z_j)`, whose mean is one: control variates for `make_log_evidence`. Model and
        densities are evaluated once. None where the shares are constant or not known.
      why_no_shares: the reason for `with_shares` being None, for the error message.
    """

    evaluate: Callable[[Params, Example, Any], Float[Array, " K"]]
    independent_samples: bool
    with_shares: Callable[[Params, Example, Any], tuple[Float[Array, " K"], Float[Array, " K"]]] | None = None
    why_no_shares: str = "the densities of all members are not known"

    def __call__(self, params: Params, x: Example, key: Key) -> Float[Array, " K"]:
        """The log-weights [K] of one example, mixing weight included."""
        return self.evaluate(params, x, key)


@_checks.by_name
def make_bound(
    log_joint: LogDensity,
    proposal: Proposal,
    *,
    weighting: Weighting | None = None,
    gradient: GradientName | None = None,
    order: float = 0.0,
    backward_samples: int | None = None,
    chunk_size: int | None = None,
) -> Bound:
    """A lower bound on log p(x) as a pure function of one example: `log sum_j w_j`, to be maximised.

    With `independent` samples it is the importance-weighted bound, which is the ELBO at K = 1. With a `hierarchical`
    proposal it is the hierarchical bound (H-IWLB). The value does not depend on `gradient`. ("refilled" draws more
    noise. With it, this holds for generators whose first numbers do not depend on how many are drawn, such as JAX's
    default.)

    Args:
      log_joint: `(params, x, z [D]) -> scalar`, `log p(x, z)` of one latent sample. z has the shape or the structure
        that the proposal gave it. Where log_joint jumps in z (a box prior, `floor`), every gradient loses a surface
        term; `hj.transformed` avoids that.
      proposal: what `independent`, `hierarchical` and their like return.
      weighting: how the members share the target; `uniform_weighting()` if None. If all members are equal, only a
        learned weighting makes a difference.
      gradient: how the bound is differentiated in the proposal's parameters. The generative model, the reverse model
        and a learned weighting always receive the plain gradient. None chooses "doubly_reparameterized", but
        "reparameterized" if samples are correlated or the caller gave a `sampler`. The other gradients need noise that
        is independent from sample to sample. (A family without an inverse, or without paths, has another default;
        see `family_from`.) "Unbiased" holds where log_joint has no jumps in z (docs/guide.md, "Where
        unbiased holds").
        "reparameterized": the plain pathwise gradient. Unbiased for every proposal; noisy at large K.
        "doubly_reparameterized": unbiased for every weighting, without the scores that make the plain one noisy.
        "refilled": likewise unbiased, and moves samples along their own paths only. It costs K more evaluations of the
        model (no backward pass). A little less noise. Under a weighting that does not compare densities it is the same
        as "doubly_reparameterized".
        "path_squared": own paths with squared weights and nothing else. Least noise; biased unless the weighting is
        uniform or learned.
        "authors": the rule of the code released with the paper, for comparisons. Biased where there is a z_0, and where
        "path_squared" is.
        "score_function": no path through any sample, but scores with the other samples as a baseline. Unbiased for
        every weighting, and also where log_joint jumps in z. By far the noisiest.
      order: the Renyi order a, with 0 <= a < 1. The bound is `1/(1 - a) log 1/K sum_j (K w_j)^(1 - a)`, the logarithm
        of a power mean of the K estimates `K w_j` of p(x). At 0 it is the logarithm of their mean. As a grows, the
        samples count more evenly, and the bound becomes lower; towards 1 it becomes the mean of the logarithms. Every
        gradient is unbiased where it is at order 0, except "path_squared", which is biased at any other order.
      backward_samples: M, or None for all K samples. After a forward pass of all K, the backward pass through the
        generative model runs for M samples only, which are drawn by their weights (systematic resampling). The gradient
        stays as unbiased as without it, at K + M forward and M backward evaluations. The choice has a key of its own,
        folded from the one given.
      chunk_size: how many samples the model evaluates at once, or None for all K. With it, memory does not grow with K,
        and value and gradient change by rounding only. Each chunk is differentiated in one pass, while it is in memory,
        if the model has no convolutions and its gradient is no larger than what a chunk keeps (a hundred samples or two
        for an MLP). Otherwise, and inside `jax.shard_map`, the backward pass evaluates each chunk again.

    Returns:
      `bound(params, x, key) -> scalar`, in nats, in at least float32. `params` is any pytree, `x` one example, and
      `key` one typed key. In place of the key it takes what `bound.draw(params, x, key)` has drawn with the same
      parameters. The bound composes with `jit`, `grad`, `jvp`, `vmap` and `scan`; for a batch use `vmap`, with a key
      for each example. The estimators are of first derivatives; for second ones take "reparameterized".

    Raises:
      ValueError: for an unknown `gradient`, and for a `gradient` or `weighting` that is not valid for the proposal.
        When called: for arrays of unexpected shape, and for a reverse model that treats members differently under a
        weighting that is not uniform.
      TypeError: for a `proposal` or `weighting` of another type. When called: for unexpected dtypes or an untyped key.

    Reference: Burda et al. (2016), equation 8; Huang et al. (2019), section 3.2; Tucker et al. (2019); Bauer and Mnih
    (2021); Daudel et al. (2023), for `order`; Huang and Courville (2017), for `backward_samples` = 1.

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
    weighting = _checked({"log_joint": log_joint}, proposal, weighting)
    chunk_size = _checked_chunk_size(chunk_size)
    power = _power_of(order)
    ingredients = Ingredients(
        "log_joint", log_joint, _no_prior, proposal, weighting, power=power, chunk_size=chunk_size
    )
    annealed = _objective(ingredients, gradient, backward_samples)
    return Bound(lambda params, x, key: annealed(params, x, key, 1.0), annealed.draw)


@_checks.by_name
def make_annealed_objective(
    log_likelihood: LogDensity,
    log_prior: LogDensity,
    proposal: Proposal,
    *,
    weighting: Weighting | None = None,
    gradient: GradientName | None = None,
    free_bits: float = 0.0,
    order: float = 0.0,
    backward_samples: int | None = None,
    chunk_size: int | None = None,
) -> Bound:
    """A training objective with warm-up and free bits, which scale and floor all terms besides the likelihood.

    With `kl_j = log q_0 + log q_j - log r - log p(z_j) - log pi_j` the log-weights are
    `log p(x | z_j) - max(beta * kl_j, free_bits)`. The objective is a bound, and equal to `make_bound`, only at
    beta = 1 without free bits.

    Args:
      log_likelihood: `(params, x, z [D]) -> scalar`, `log p(x | z)`.
      log_prior: `(params, x, z [D]) -> scalar`, `log p(z)`.
      proposal: as for `make_bound`.
      weighting: as for `make_bound`.
      gradient: as for `make_bound`. Where `make_bound` calls a gradient unbiased, it is unbiased here for every beta
        and `free_bits`. The exception is "path_squared", which is unbiased only at beta = 1 without free bits. With
        free bits and alpha of about 3, "reparameterized" is less noisy (docs/choosing.md).
      free_bits: the floor in nats for each sample, at least 0. 0 means no floor. "refilled" needs 0.
      order: as for `make_bound`.
      backward_samples: as for `make_bound`.
      chunk_size: as for `make_bound`.

    Returns:
      `objective(params, x, key, beta) -> scalar`, with a `draw` like a bound. `beta` may be traced, so that a schedule
      does not recompile.

    Reference: Sonderby et al. (2016) for warm-up, Kingma et al. (2016) for free bits.
    """
    free_bits = _checks.number("free_bits", free_bits, least=0.0, remark="; 0 is none")
    weighting = _checked({"log_likelihood": log_likelihood, "log_prior": log_prior}, proposal, weighting)
    chunk_size = _checked_chunk_size(chunk_size)
    ingredients = Ingredients(
        "log_likelihood",
        log_likelihood,
        log_prior,
        proposal,
        weighting,
        free_bits=free_bits,
        power=_power_of(order),
        chunk_size=chunk_size,
    )
    return _objective(ingredients, gradient, backward_samples)


@_checks.by_name
def make_log_weights(
    log_joint: LogDensity,
    proposal: Proposal,
    *,
    weighting: Weighting | None = None,
    reverse_samples: int | None = None,
    chunk_size: int | None = None,
) -> LogWeights:
    """The K log-weights of one example, mixing weight included: `sum_j exp(log_w_j)` estimates p(x) without bias.

    Each log-weight contains its mixing weight, 1/K or pi_j. So the bound is their log-sum-exp, not `iwlb` of them.

    Args:
      log_joint: as for `make_bound`.
      proposal: as for `make_bound`.
      weighting: as for `make_bound`.
      reverse_samples: S of `hierarchical`, for a proposal that was trained with another S; None for that of the
        proposal. More draws of the reverse model give a tighter bound and less noisy estimates of p(x).
      chunk_size: as for `make_bound`.

    Returns:
      `log_weights(params, x, key) -> [K]`, in at least float32. In place of the key it takes what `bound.draw` has
      drawn, for a bound with the same proposal. Its attribute `independent_samples` says whether the samples are
      independent of each other.

    Raises:
      The errors of `make_bound`.

    *Gradients*: the plain pathwise ones.

    >>> import hiwae_jax as hj
    >>> proposal = hj.independent(lambda params, x: (x, jnp.ones_like(x)), num_samples=4)
    >>> log_weights = hj.make_log_weights(lambda params, x, z: -0.5 * jnp.sum(z**2), proposal)
    >>> log_weights(None, jnp.zeros(2), jax.random.key(0)).shape
    (4,)
    """
    _checked({"log_joint": log_joint}, proposal, weighting)
    if reverse_samples is not None:
        proposal = _with_reverse_samples(proposal, reverse_samples)
    weighting = _checked({"log_joint": log_joint}, proposal, weighting)
    chunk_size = _checked_chunk_size(chunk_size)
    ingredients = Ingredients("log_joint", log_joint, _no_prior, proposal, weighting, chunk_size=chunk_size)

    def log_weights(params: Params, x: Example, key: Key) -> Float[Array, " K"]:
        draw = key if isinstance(key, Draw) else proposal.draw(params, x, key)
        _require_reverse_noise(draw, proposal)
        return log_weight_terms(make_parts(ingredients, params, x, draw), draw).log_weights

    def with_shares(params: Params, x: Example, key: Key) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
        draw = key if isinstance(key, Draw) else proposal.draw(params, x, key)
        return log_weights_and_shares(ingredients, params, x, draw)

    why_no_shares = _why_no_shares(proposal)
    return LogWeights(
        log_weights, proposal.independent_samples, None if why_no_shares else with_shares, why_no_shares or ""
    )


def _why_no_shares(proposal: Proposal) -> str | None:
    """Why the members' shares of the samples are no control variates; None if they are."""
    if proposal.fixed_weighting:
        return "the members of this proposal are picked at random, so that their shares have other means than one"
    if proposal.equal_members:
        return "all members of this proposal are one distribution, and each has the constant share 1"
    if proposal.pair_densities is None:
        return f"this proposal does not have the densities of all members at one point ({proposal.why_plain})"
    return None


def _checked_chunk_size(chunk_size: int | None) -> int | None:
    return None if chunk_size is None else _checks.positive_integer("chunk_size", chunk_size)


def _power_of(order: Any) -> float:
    """The power to which a bound of this order raises the weights."""
    checked: float = _checks.number("order", order, least=0.0, remark="; 0 is the importance-weighted bound")
    if checked >= 1.0:
        raise ValueError(
            f"order: expected a number of at least 0 and below 1, got {checked}; for the ELBO, which is order 1, take "
            "num_samples=1, or the mean of the log-weights"
        )
    return 1.0 - checked


def _no_prior(params: Params, x: Example, z: Any) -> Float[Array, ""]:
    return jnp.zeros((), jax.tree.leaves(z)[0].dtype)


def _checked(densities: dict[str, Any], proposal: Any, weighting: Any) -> Weighting:
    for name, density in densities.items():
        _checks.function(name, density, "(params, x, z)", result="scalar")
    if not isinstance(proposal, Proposal):
        got = type(proposal).__name__
        raise TypeError(f"proposal: expected what hj.independent, hj.hierarchical or their like return, got {got}")
    if weighting is None:
        return uniform_weighting()
    if not isinstance(weighting, Weighting):
        got = type(weighting).__name__
        raise TypeError(f"weighting: expected what hj.uniform_weighting or hj.power_heuristic returns, got {got}")
    if weighting.logits is not None and proposal.reverse_samples > 0:
        raise ValueError(
            "weighting: expected one of densities with reverse_samples > 0, which averages over values of z_0, got a "
            "learned one, which may depend on z_0; use hj.power_heuristic(alpha) or reverse_samples=0"
        )
    if proposal.fixed_weighting and (weighting.compares_densities or weighting.logits is not None):
        raise ValueError(f"weighting: expected none for this proposal, since {proposal.fixed_weighting}; leave it out")
    if weighting.compares_densities and proposal.pair_densities is None:
        raise ValueError(
            "weighting: a power heuristic compares the densities of all members at one point, and this proposal does "
            f"not have them ({proposal.why_plain}); use hj.uniform_weighting() or hj.learned_weighting(logits_fn)"
        )
    return weighting


def _objective(ingredients: Ingredients, gradient: str | None, backward_samples: int | None) -> Bound:
    """The annealed objective of the ingredients, differentiated by the rule of this name."""
    request = Request(ingredients.proposal, ingredients.weighting, ingredients.free_bits)
    rule = chosen_rule(gradient, request)
    if backward_samples is not None:
        backward_samples = _checks.positive_integer("backward_samples", backward_samples)
    refill = rule.refills and not request.scores_are_constant

    def draw(params: Params, x: Example, key: Key, *shared: Any) -> Draw:
        drawn = ingredients.proposal.draw(params, x, key, refill=refill)
        if backward_samples is None:
            return drawn
        return drawn._replace(uniform=jax.random.uniform(stream_key(key, Stream.BACKWARD_CHOICE), dtype=drawn.z.dtype))

    def evaluate(params: Params, x: Example, key: Key, beta: Any) -> Float[Array, ""]:
        drawn = key if isinstance(key, Draw) else draw(params, x, key)
        _require_extras(drawn, rule, refill=refill, uniform=backward_samples is not None)
        _require_reverse_noise(drawn, ingredients.proposal)
        beta = _checks.scalar_number("beta", beta, least=0.0).astype(drawn.z.dtype)
        frozen_params = stopped((params, drawn.context))
        scored = (params, drawn.context) if rule.scores else frozen_params
        parts = make_parts(ingredients, params, x, drawn, beta, scored=scored)
        total = log_sum_exp if ingredients.power == 1.0 else log_mean_exp
        if rule.automatic and backward_samples is None and ingredients.chunk_size is None:
            value = total(log_weight_terms(parts, drawn).log_weights, -1)
        else:
            value = bound_by_rule(
                parts,
                drawn,
                rule=rule,
                request=request,
                total=total,
                beta=ingredients.power * beta,
                frozen_params=frozen_params,
                backward_samples=backward_samples,
            )
        if ingredients.power == 1.0:
            return value
        return value / ingredients.power + jnp.log(jnp.asarray(len(drawn.z), value.dtype))

    return Bound(evaluate, draw)


def _with_reverse_samples(proposal: Proposal, reverse_samples: Any) -> Proposal:
    """The proposal with another number of draws of the reverse model."""
    count = _checks.integer_from(0, "reverse_samples", reverse_samples)
    if proposal.reverse is None:
        raise ValueError(
            f"reverse_samples: expected None, because the reverse model of this proposal draws nothing, got {count}; "
            "only hj.hierarchical has one that does"
        )
    return proposal.reverse.with_num_samples(count)


def _require_reverse_noise(draw: Draw, proposal: Proposal) -> None:
    """Raise if the caller's draw has fewer draws of the reverse model than the weights need. The first ones count."""
    drawn = 0 if draw.reverse_noise is None else draw.reverse_noise.shape[1]
    if drawn < proposal.reverse_samples:
        raise ValueError(
            f"key: expected a key, or a draw with {proposal.reverse_samples} draws of the reverse model for each "
            f"sample, got one with {drawn}; draw with a bound whose proposal has reverse_samples="
            f"{proposal.reverse_samples}"
        )


def _require_extras(draw: Draw, rule: Rule, *, refill: bool, uniform: bool) -> None:
    """Raise if the caller's draw lacks something that this bound would have drawn besides the samples."""
    if refill and draw.refill is None:
        what = f"the refills of gradient={rule.name!r}"
    elif uniform and draw.uniform is None:
        what = "the choice of backward_samples"
    else:
        return
    raise ValueError(
        f"key: expected a key, or what bound.draw(params, x, key) has drawn, got a draw that lacks {what}; "
        "draw with this bound"
    )
