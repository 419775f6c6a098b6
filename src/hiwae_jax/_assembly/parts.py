"""The computation of the log-weights from the samples, which is done here and nowhere else.

    log w_j = log p(x | z_j) + beta * (log p(z_j) + proposal_term_j)
    proposal_term_j = log pi_j(z_j) - log q_j(z_j | z_0) + log r(z_0 | z_j) - log q_0(z_0)

An objective of another order raises all weights to one power, so that `power * log w_j` takes the place of `log w_j`.

`make_parts` makes three functions: the model, the proposal term and the combination of both. `log_weight_terms` calls
them. They are kept apart, in `Parts`, because gradient rules differentiate each of them differently. The model is
expensive. The proposal term is where rules differ; `log_pi.py` has the part of the weighting and the members, and
`reverse_model.py` that of z_0. The combination is arithmetic.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._assembly.ingredients import Ingredients, of_vectors
from hiwae_jax._assembly.log_pi import log_pi_over_known_q, log_pi_over_q
from hiwae_jax._assembly.reverse_model import (
    log_base,
    log_pi_over_marginal,
    log_reverse,
    reverse_chunk_size,
    reverse_rows,
)
from hiwae_jax._families.shared import over_samples
from hiwae_jax._proposals.draw import Draw
from hiwae_jax._types import Arrays, AuxiliarySamples, Context, Example, Parameters, Params, Samples, Scalar


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


@runtime_checkable
class Model(Protocol):
    """The densities of the generative model at one sample."""

    def __call__(self, z: Float[Array, " D"], /, *arrays: jax.Array) -> ModelDensities: ...


@runtime_checkable
class ProposalTerm(Protocol):
    """The terms of the log-weights besides the model, of all samples."""

    def __call__(
        self, z: Samples, z0: AuxiliarySamples, parameters: Parameters, base: Parameters, /, *arrays: jax.Array
    ) -> Float[Array, " K"]: ...


@runtime_checkable
class Combine(Protocol):
    """The log-weight of one sample from its densities and its proposal term."""

    def __call__(self, densities: ModelDensities, proposal_term: Scalar, /, *arrays: jax.Array) -> Terms: ...


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

    model: Model
    proposal_term: ProposalTerm
    combine: Combine
    chunk_size: int | None

    def combine_all(self, densities: ModelDensities, proposal_term: Float[Array, " K"], *arrays: jax.Array) -> Terms:
        """The log-weights of K samples from the densities and proposal terms of K samples."""

        def of_one(densities: ModelDensities, term: Scalar) -> Terms:
            return self.combine(densities, term, *arrays)

        return jax.vmap(of_one)(densities, proposal_term)


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
    ingredients = of_vectors(ingredients, draw.structures)
    rows_at_once = reverse_chunk_size(ingredients, params, draw)

    def model(z: Float[Array, " D"], *_: jax.Array) -> ModelDensities:
        return _model_densities(ingredients, params, x, z)

    def proposal_term(
        z: Samples, z0: AuxiliarySamples, parameters: Parameters, base: Parameters, *_: jax.Array
    ) -> Float[Array, " K"]:
        if ingredients.proposal.reverse_samples > 0:
            rows = reverse_rows(ingredients.proposal, params, draw.context, z, rows_at_once)
            at_psi = (params, draw.context) if scored is None else scored
            return log_pi_over_marginal(ingredients, at_psi, draw._replace(z=z, z0=z0), parameters, base, rows)
        if pair_densities is None:
            term = log_pi_over_q(ingredients, params, draw.context, z, z0, parameters)
        else:
            term = log_pi_over_known_q(ingredients, params, draw, pair_densities)
        if ingredients.proposal.log_reverse is not None:
            term += log_reverse(ingredients.proposal, params, draw.context, z0, z, rows_at_once)
        if z0 is not None:
            term -= log_base(ingredients.proposal, base, z0)
        return term

    def combine(densities: ModelDensities, proposal_term: Scalar, *_: jax.Array) -> Terms:
        terms = _combined(densities, proposal_term, beta, ingredients.free_bits)
        return terms if ingredients.power == 1.0 else terms._replace(log_weights=ingredients.power * terms.log_weights)

    return Parts(model, proposal_term, combine, ingredients.chunk_size)


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


def _combined(densities: ModelDensities, proposal_term: Scalar, beta: Scalar | float, free_bits: float) -> Terms:
    """`log p(x | z_j) + beta * (log p(z_j) + proposal_term_j)`, where the second summand is at most `-free_bits`."""
    bracket = densities.prior + proposal_term
    if free_bits == 0.0:
        return Terms(densities.likelihood + beta * bracket, None)
    clipped = -beta * bracket < free_bits
    log_weights = densities.likelihood - jnp.where(clipped, free_bits, -beta * bracket)
    return Terms(log_weights, clipped.astype(log_weights.dtype))
