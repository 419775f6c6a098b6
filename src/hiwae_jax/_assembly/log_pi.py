"""The weighting's part of the log-weights, `log pi_j(z_j) - log q_j(z_j)` at the K samples."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hiwae_jax import _checks
from hiwae_jax._assembly.ingredients import Ingredients
from hiwae_jax._families.shared import over_samples
from hiwae_jax._proposals.draw import Draw
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._types import AuxiliarySamples, Context, Parameters, Params, Samples, Scalar
from hiwae_jax._weightings import Weighting, log_partition


def log_pi_over_q(
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


def log_pi_over_known_q(
    ingredients: Ingredients, params: Params, draw: Draw, pair_densities: Float[Array, "K K"]
) -> Float[Array, " K"]:
    """`log pi_j(z_j) - log q_j(z_j)` at the samples of the draw, from the densities of all pairs."""
    weighting = ingredients.weighting
    if weighting.compares_densities:
        of_row = functools.partial(_own_log_pi_over_q, weighting)
        return jax.vmap(of_row)(pair_densities, jnp.arange(len(draw.z)))
    log_pi = _log_pi_without_densities(ingredients, params, draw.context, draw.z, draw.z0)
    own_densities: Array = jnp.diagonal(pair_densities)
    return log_pi - own_densities


def _log_pi_without_densities(
    ingredients: Ingredients, params: Params, context: Context, z: Samples, z0: AuxiliarySamples
) -> Float[Array, "..."]:
    """`log pi_j(z_j)` of the uniform or a learned weighting."""
    if ingredients.weighting.logits is None:
        return -jnp.log(jnp.asarray(len(z), z.dtype))
    return _learned_log_pi(ingredients.weighting, params, context, z, z0, ingredients.chunk_size)


def _own_log_pi_over_q(weighting: Weighting, densities: Float[Array, " K"], own_index: Int[Array, ""]) -> Scalar:
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
        return proposal.members.over_rows(
            lambda row, z, own: of_row(log_prob(row, z, own), own.member),
            parameters,
            z,
            proposal.members.owners(parameters),
            chunk_size=chunk_size,
        )
    pair_densities = proposal.pair_densities
    assert pair_densities is not None  # make_bound refuses such a weighting
    if chunk_size is None:
        return jax.vmap(of_row)(pair_densities(parameters, z), indices)
    of_one = lambda one: of_row(pair_densities(parameters, one[0][None])[0], one[1])
    return over_samples(of_one, (z, indices), chunk_size)


def _learned_log_pi(
    weighting: Weighting,
    params: Params,
    context: Context,
    z: Samples,
    z0: AuxiliarySamples,
    chunk_size: int | None,
) -> Float[Array, " K"]:
    """`log pi_j(z_j)` of a learned weighting."""
    logits_fn, K = weighting.logits, len(z)
    assert logits_fn is not None

    def own(one: tuple[Int[Array, ""], Float[Array, " D"], Float[Array, " D0"] | None]) -> Scalar:
        index, z, z0 = one
        logits = _checks.logits("logits_fn", logits_fn(params, context, z, z0), num_samples=K)
        return jax.nn.log_softmax(logits)[index]

    return over_samples(own, (jnp.arange(K), z, z0), chunk_size)
