"""The computation of the log-weights from the samples, which is done here and nowhere else.

    log w_j = log p(x | z_j) + beta * (log p(z_j) + proposal_term_j)
    proposal_term_j = log pi_j(z_j) - log q_j(z_j | z_0) + log r(z_0 | z_j) - log q_0(z_0)

An objective of another order raises all weights to one power, so that `power * log w_j` takes the place of `log w_j`.

`log_weight_terms` computes all of this. It calls three functions, kept in `Parts`, because gradient rules differentiate
each of them differently. The model is expensive. The proposal's densities are where rules differ. The combination of
both is arithmetic.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families.distribution import first_row
from hiwae_jax._families.family import Parameters
from hiwae_jax._families.shared import unwrapped
from hiwae_jax._proposals.proposal import Draw, Proposal, Structures, over_samples
from hiwae_jax._proposals.reverse_draws import Densities, OneSample, log_marginals
from hiwae_jax._types import Arrays, AuxiliarySamples, Context, Example, Params, Samples, Scalar
from hiwae_jax._weightings import Weighting, log_partition

LogDensity = Callable[[Params, Example, Any], Float[Array, ""]]  # of z [D], or z in the structure of the user


class ModelDensities(NamedTuple):
    """The two log-densities of the generative model, at one sample or at K."""

    likelihood: Float[Array, "..."]
    prior: Float[Array, "..."]


class Terms(NamedTuple):
    """The log-weight of one sample, or of K.

    Attributes:
      log_weights: `power * log w_j`, mixing weight included.
      clipped: 1 where free bits replace the terms besides the likelihood by a constant, so that beta has no effect on
        them. Otherwise 0. None without free bits.
    """

    log_weights: Float[Array, "..."]
    clipped: Float[Array, "..."] | None


class Parts(NamedTuple):
    """The functions from which the log-weights of one example are computed.

    Each function may take the arrays that it depends on as further arguments (`CapturedArrays`). Functions that close
    over these arrays ignore the arguments.

    Attributes:
      model: `(z [D], *arrays) -> ModelDensities`, of one sample.
      proposal_term: `(z [K, D], z0, parameters, base, *arrays) -> [K]`, of all samples.
      combine: `(ModelDensities, proposal term, *arrays) -> Terms`, of one sample: scalars.
      chunk_size: how many samples the model evaluates at once; None for all.
    """

    model: Callable[..., ModelDensities]
    proposal_term: Callable[..., Float[Array, " K"]]
    combine: Callable[..., Terms]
    chunk_size: int | None

    def combine_all(self, densities: ModelDensities, proposal_term: Float[Array, " K"], *arrays: jax.Array) -> Terms:
        """The log-weights of K samples from the densities and proposal terms of K samples."""
        terms: Terms = jax.vmap(lambda densities, term: self.combine(densities, term, *arrays))(
            densities, proposal_term
        )
        return terms


class CapturedArrays(NamedTuple):
    """The arrays that the functions of `Parts` close over, as lists of arguments. The model's come first."""

    model: Arrays
    proposal_term: Arrays
    combine: Arrays
    members_at: Arrays


NO_ARRAYS = CapturedArrays([], [], [], [])


def log_weight_terms(parts: Parts, draw: Draw, arrays: CapturedArrays = NO_ARRAYS) -> Terms:
    """The log-weights of the K samples of a draw."""
    densities = over_samples(lambda z: parts.model(z, *arrays.model), draw.z, parts.chunk_size)
    proposal_term = parts.proposal_term(draw.z, draw.z0, draw.parameters, draw.base, *arrays.proposal_term)
    return parts.combine_all(densities, proposal_term, *arrays.combine)


class Ingredients(NamedTuple):
    """The arguments of `make_bound` and its like. With the example, they determine the log-weights.

    Attributes:
      name: the user's argument for `log_likelihood`. It is "log_joint" where one function stands for both densities.
      log_likelihood: `(params, x, z [D]) -> scalar`.
      log_prior: likewise.
      proposal: the proposal that draws the samples.
      weighting: how the members share the target.
      free_bits: the floor in nats of each sample's terms besides the likelihood. 0 means no floor.
      power: the power to which all weights are raised.
      chunk_size: as in `Parts`.
    """

    name: str
    log_likelihood: LogDensity
    log_prior: LogDensity
    proposal: Proposal
    weighting: Weighting
    free_bits: float = 0.0
    power: float = 1.0
    chunk_size: int | None = None


def make_parts(
    ingredients: Ingredients,
    params: Params,
    x: Example,
    draw: Draw,
    beta: Scalar | float = 1.0,
    *,
    scored: tuple[Params, Context] | None = None,
    pair_densities: Float[Array, "K K"] | None = None,
) -> Parts:
    """Make the functions of `Parts` for one example.

    Args:
      ingredients: the arguments of `make_bound`.
      params: the parameters.
      x: the example.
      draw: the samples and what made them.
      beta: the warm-up factor.
      scored: `(params, context)` for the members' densities at further draws of the reverse model; stopped if the
        gradient has no scores. None for those of the example.
      pair_densities: `log q_i(z_j)` at row j, column i, at the samples of the draw, if they are computed already.

    Raises:
      ValueError: for a reverse model that makes the bound invalid, with every weighting or with this one. When a part
        is called: for results of unexpected shape.
    """
    ingredients = _of_vectors(ingredients, draw.structures)
    reverse_chunk_size = _reverse_chunk_size(ingredients, params, draw)

    def model(z: Float[Array, " D"], *_: jax.Array) -> ModelDensities:
        return _model_densities(ingredients, params, x, z)

    def proposal_term(
        z: Samples, z0: AuxiliarySamples, parameters: Parameters, base: Parameters, *_: jax.Array
    ) -> Float[Array, " K"]:
        if ingredients.proposal.reverse_samples > 0:
            rows = _reverse_rows(ingredients.proposal, params, draw.context, z, reverse_chunk_size)
            at_psi = (params, draw.context) if scored is None else scored
            return _log_pi_over_marginal(ingredients, at_psi, draw._replace(z=z, z0=z0), parameters, base, rows)
        if pair_densities is None:
            term = _log_pi_over_q(ingredients, params, draw.context, z, z0, parameters)
        else:
            term = _log_pi_over_known_q(ingredients, params, draw, pair_densities)
        if ingredients.proposal.log_reverse is not None:
            term += _log_reverse(ingredients.proposal, params, draw.context, z0, z, reverse_chunk_size)
        if z0 is not None:
            term -= _log_base(ingredients.proposal, base, z0)
        return term

    def combine(densities: ModelDensities, proposal_term: Float[Array, ""], *_: jax.Array) -> Terms:
        terms = _combined(densities, proposal_term, beta, ingredients.free_bits)
        return terms if ingredients.power == 1.0 else terms._replace(log_weights=ingredients.power * terms.log_weights)

    return Parts(model, proposal_term, combine, ingredients.chunk_size)


def log_weights_and_shares(
    ingredients: Ingredients, params: Params, x: Example, draw: Draw
) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    """The log-weights of a draw, and each member's share of its samples, `sum_j q_i(z_j) / sum_m q_m(z_j)`.

    Both come from one evaluation of the densities of all pairs.
    """
    densities = _densities_of_pairs(ingredients.proposal, draw.parameters, draw.z, ingredients.chunk_size)
    parts = make_parts(ingredients, params, x, draw, pair_densities=densities)
    # A chain's sample may overflow and have no density under any member. It counts for the member that drew it.
    has_density = jnp.max(densities, axis=1, keepdims=True) > -jnp.inf
    shares = jnp.where(has_density, jax.nn.softmax(jnp.where(has_density, densities, 0.0)), jnp.eye(len(densities)))
    return log_weight_terms(parts, draw).log_weights, jnp.sum(shares, axis=0)


def _densities_of_pairs(
    proposal: Proposal, parameters: Parameters, z: Samples, chunk_size: int | None
) -> Float[Array, "K K"]:
    """`log q_i(z_j)` at row j, column i, at the K samples."""
    pair_densities = proposal.pair_densities
    assert pair_densities is not None  # `LogWeights.why_no_shares`
    if proposal.members is None:
        if chunk_size is None:
            return pair_densities(parameters, z)
        in_chunks: jax.Array = over_samples(lambda one: pair_densities(parameters, one[None])[0], z, chunk_size)
        return in_chunks
    log_prob, owners = proposal.members.pairs().log_prob, proposal.members.owners(parameters)
    densities: jax.Array = proposal.members.over_rows(log_prob, parameters, z, owners, chunk_size=chunk_size)
    return densities


def _of_vectors(ingredients: Ingredients, structures: Structures) -> Ingredients:
    """The ingredients with functions of vectors z and z_0, which the user's functions receive in their structure."""
    if structures == Structures():
        return ingredients
    proposal, weighting = ingredients.proposal, ingredients.weighting
    restored, restored_z0 = structures.restored, structures.restored_z0

    def of_vector(log_density: LogDensity) -> LogDensity:
        return lambda params, x, z: log_density(params, x, restored(z))

    log_reverse, reverse_traits, logits = proposal.log_reverse, proposal.reverse_traits, weighting.logits
    if log_reverse is not None:
        of_reverse = lambda params, context, z0, z: log_reverse(params, context, restored_z0(z0), restored(z))
        proposal = proposal._replace(log_reverse=of_reverse)
    if reverse_traits is not None:
        of_traits = lambda params, context, z: reverse_traits(params, context, restored(z))
        proposal = proposal._replace(reverse_traits=of_traits)
    reverse = proposal.reverse
    if reverse is not None:
        proposal = proposal._replace(
            reverse=reverse._replace(rows=lambda params, context, z: reverse.rows(params, context, restored(z)))
        )
    if logits is not None:
        of_logits = lambda params, x, z, z0: logits(params, x, restored(z), restored_z0(z0))
        weighting = dataclasses.replace(weighting, logits=of_logits)
    return ingredients._replace(
        log_likelihood=of_vector(ingredients.log_likelihood),
        log_prior=of_vector(ingredients.log_prior),
        proposal=proposal,
        weighting=weighting,
    )


def _model_densities(ingredients: Ingredients, params: Params, x: Example, z: Float[Array, " D"]) -> ModelDensities:
    """`log p(x | z)` and `log p(z)` at one sample."""
    # A member draws a sample with one location and one scale, which does not overflow. A chain of maps may overflow. A
    # sample too large for its type has weight zero. The model is evaluated at a finite one, or its derivative would be
    # NaN.
    may_overflow = ingredients.proposal.members is None
    overflowed = jnp.any(jnp.isinf(z)) if may_overflow else False
    finite = jnp.where(overflowed, 0.0, z) if may_overflow else z
    likelihood = _checks.scalar(ingredients.name, ingredients.log_likelihood(params, x, finite), z=finite)
    prior = _checks.scalar("log_prior", ingredients.log_prior(params, x, finite), z=finite)
    return ModelDensities(jnp.where(overflowed, -jnp.inf, likelihood) if may_overflow else likelihood, prior)


def _log_pi_over_q(
    ingredients: Ingredients, params: Params, context: Context, z: Samples, z0: AuxiliarySamples, parameters: Parameters
) -> Float[Array, " K"]:
    """`log pi_j(z_j) - log q_j(z_j)`."""
    proposal, weighting = ingredients.proposal, ingredients.weighting
    if weighting.compares_densities and not proposal.equal_members:
        return log_pi_over_q_of_pairs(proposal, weighting, parameters, z, ingredients.chunk_size)
    log_pi = _log_pi_without_densities(ingredients, params, context, z, z0)
    if proposal.members is not None:
        return log_pi - proposal.members.own_densities(parameters, z, ingredients.chunk_size)
    return log_pi - proposal.own_densities(parameters, z)


def _log_pi_over_known_q(
    ingredients: Ingredients, params: Params, draw: Draw, pair_densities: Float[Array, "K K"]
) -> Float[Array, " K"]:
    """`log pi_j(z_j) - log q_j(z_j)` at the samples of the draw, from the densities of all pairs."""
    weighting = ingredients.weighting
    if weighting.compares_densities:
        of_row = functools.partial(_own_log_pi_over_q, weighting)
        terms: jax.Array = jax.vmap(of_row)(pair_densities, jnp.arange(len(draw.z)))
        return terms
    log_pi = _log_pi_without_densities(ingredients, params, draw.context, draw.z, draw.z0)
    own_densities: jax.Array = jnp.diagonal(pair_densities)
    return log_pi - own_densities


def _log_pi_without_densities(
    ingredients: Ingredients, params: Params, context: Context, z: Samples, z0: AuxiliarySamples
) -> Float[Array, "..."]:
    """`log pi_j(z_j)` of the uniform or a learned weighting."""
    if ingredients.weighting.logits is None:
        return -jnp.log(jnp.asarray(len(z), z.dtype))
    return _learned_log_pi(ingredients.weighting, params, context, z, z0, ingredients.chunk_size)


def _own_log_pi_over_q(weighting: Weighting, densities: Float[Array, " K"], own_index: Any) -> Float[Array, ""]:
    """`log pi_j(z_j) - log q_j(z_j)` of a power heuristic, from `log q_i(z_j)` of all members."""
    # The sample's own entry is selected by a mask and not by an index. XLA then fuses what makes the row, and no [K, K,
    # D] array is formed.
    is_own = jnp.arange(len(densities)) == own_index
    return jnp.sum(jnp.where(is_own, log_partition(weighting, densities) - densities, 0.0))


def log_pi_over_q_of_pairs(
    proposal: Proposal, weighting: Weighting, parameters: Parameters, z: Samples, chunk_size: int | None
) -> Float[Array, " K"]:
    """`log pi_j(z_j) - log q_j(z_j)` under a power heuristic: each sample needs the densities of all members."""
    indices = jnp.arange(len(z))
    of_row = functools.partial(_own_log_pi_over_q, weighting)
    if proposal.members is not None:
        log_prob = proposal.members.pairs().log_prob
        of_members: jax.Array = proposal.members.over_rows(
            lambda row, z, own: of_row(log_prob(row, z, own), own.index),
            parameters,
            z,
            proposal.members.owners(parameters),
            chunk_size=chunk_size,
        )
        return of_members
    pair_densities = proposal.pair_densities
    assert pair_densities is not None  # make_bound refuses such a weighting
    if chunk_size is None:
        return jax.vmap(of_row)(pair_densities(parameters, z), indices)
    in_chunks: jax.Array = over_samples(
        lambda one: of_row(pair_densities(parameters, one[0][None])[0], one[1]), (z, indices), chunk_size
    )
    return in_chunks


def _learned_log_pi(
    weighting: Weighting,
    params: Params,
    context: Context,
    z: Float[Array, "K D"],
    z0: AuxiliarySamples,
    chunk_size: int | None,
) -> Float[Array, " K"]:
    """`log pi_j(z_j)` of a learned weighting."""
    logits_fn, K = weighting.logits, len(z)
    assert logits_fn is not None

    def own(one: Any) -> Float[Array, ""]:
        index, z, z0 = one
        logits = _checks.logits("logits_fn", logits_fn(params, context, z, z0), num_samples=K)
        return jax.nn.log_softmax(logits)[index]

    log_pi: jax.Array = over_samples(own, (jnp.arange(K), z, z0), chunk_size)
    return log_pi


def _reverse_chunk_size(ingredients: Ingredients, params: Params, draw: Draw) -> int | None:
    """How many samples the reverse model gets at once; None for all. Raise if it makes the bound invalid."""
    proposal, weighting = ingredients.proposal, ingredients.weighting
    if proposal.reverse_traits is None:
        return None
    traits = proposal.reverse_traits(params, draw.context, draw.z)
    if traits.row_by_row is False:
        raise ValueError(
            "reverse: row j changes with samples other than z[j], but the bound is valid only if it is the density of "
            "z_0 given z_j alone; leave out what mixes the rows, such as a mean over them"
        )
    compares_densities = weighting.compares_densities and not proposal.equal_members
    must_be_alike = compares_densities or weighting.logits is not None
    if traits.alike is False and must_be_alike:
        raise ValueError(
            "reverse: gives different rows for the same z, but a weighting other than the uniform one is valid only if "
            "r(z_0 | z) is the same for all members; give every row the same treatment, or use "
            "weighting=hj.uniform_weighting()"
        )
    # The reverse model can be called with one row at a time only if its rows do not depend on one another.
    return ingredients.chunk_size if must_be_alike or traits.alike is True else None


def _log_reverse(
    proposal: Proposal, params: Params, context: Context, z0: AuxiliarySamples, z: Samples, chunk_size: int | None
) -> Float[Array, " K"]:
    """`log r(z_0 | z_j)`, where z_0 stands for all auxiliary variables of sample j."""
    log_reverse = proposal.log_reverse
    assert log_reverse is not None
    if chunk_size is None:
        return log_reverse(params, context, z0, z)

    def of_one(one: Any) -> Float[Array, ""]:
        one_z0, one_z = one
        try:
            return log_reverse(params, context, one_z0[None], one_z[None])[0]
        except (TypeError, ValueError) as error:
            error.add_note(
                f"reverse: with chunk_size it is called with one sample at a time, z of shape {one_z[None].shape}, "
                f"although there are {len(z)}; return as many rows as z has, z.shape[0]"
            )
            raise

    densities: jax.Array = over_samples(of_one, (z0, z), chunk_size)
    return densities


def _reverse_rows(
    proposal: Proposal, params: Params, context: Context, z: Samples, chunk_size: int | None
) -> Parameters:
    """The parameters of `r(. | z_j)`, a row for each sample."""
    reverse = proposal.reverse
    assert reverse is not None
    if chunk_size is None:
        return reverse.rows(params, context, z)
    return over_samples(lambda z: unwrapped(first_row(reverse.rows(params, context, z[None]))), z, chunk_size)


def _log_pi_over_marginal(
    ingredients: Ingredients,
    scored: tuple[Params, Context],
    draw: Draw,
    parameters: Parameters,
    base: Parameters,
    reverse_rows: Parameters,
) -> Float[Array, " K"]:
    """`log pi_j(z_j) - log s_j(z_j)` with estimates s of the marginal densities; see `reverse_draws.py`."""
    proposal, weighting = ingredients.proposal, ingredients.weighting
    members, z0, noise = proposal.members, draw.z0, draw.reverse_noise
    assert members is not None  # a proposal with a reverse model that draws has members
    assert members.at is not None
    assert z0 is not None
    assert noise is not None  # `make_bound` checks the draw
    at, K = members.at, len(draw.z)
    compares = weighting.compares_densities and not members.equal

    def of_one(at_z0: Parameters, one: OneSample, index: Any) -> Float[Array, ""]:
        densities = Densities(members, at_z0, base, lambda psi: at(*scored, draw.structures.restored_z0(psi)))
        if not compares:
            log_s = log_marginals(one, densities, index)
            return -jnp.log(jnp.asarray(K, log_s.dtype)) - log_s
        log_s = log_marginals(one, densities, None)
        return jnp.sum(jnp.where(jnp.arange(K) == index, log_partition(weighting, log_s) - log_s, 0.0))

    one = OneSample(draw.z, z0, reverse_rows, noise[:, : proposal.reverse_samples])
    terms: jax.Array
    if members.own_z0:  # row j of the parameters is of sample j's z_0
        terms = over_samples(lambda row: of_one(*row), (parameters, one, jnp.arange(K)), ingredients.chunk_size)
    else:
        terms = over_samples(lambda row: of_one(parameters, *row), (one, jnp.arange(K)), ingredients.chunk_size)
    return terms


def _log_base(proposal: Proposal, base: Parameters, z0: Float[Array, "K D0"]) -> Float[Array, " K"]:
    """`log q_0(z_0)` at each sample's z_0."""
    assert proposal.members is not None  # a proposal with a z_0 has members
    assert proposal.members.base_family is not None
    densities: jax.Array = jax.vmap(proposal.members.base_family.log_prob, in_axes=(None, 0))(base, z0)
    return densities


def _combined(
    densities: ModelDensities, proposal_term: Float[Array, ""], beta: Scalar | float, free_bits: float
) -> Terms:
    """`log p(x | z_j) + beta * (log p(z_j) + proposal_term_j)`, where the second summand is at most `-free_bits`."""
    bracket = densities.prior + proposal_term
    if free_bits == 0.0:
        return Terms(densities.likelihood + beta * bracket, None)
    clipped = -beta * bracket < free_bits
    log_weights = densities.likelihood - jnp.where(clipped, free_bits, -beta * bracket)
    return Terms(log_weights, clipped.astype(log_weights.dtype))
