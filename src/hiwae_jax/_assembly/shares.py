"""The members' shares of the samples, with the log-weights from the same densities."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax._assembly.ingredients import Ingredients
from hiwae_jax._assembly.parts import log_weight_terms, make_parts
from hiwae_jax._families.shared import over_samples
from hiwae_jax._proposals.draw import Draw
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._types import Example, Parameters, Params, Samples


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
        return over_samples(lambda one: pair_densities(parameters, one[None])[0], z, chunk_size)
    log_prob, owners = proposal.members.pairs().log_prob, proposal.members.owners(parameters)
    return proposal.members.over_rows(log_prob, parameters, z, owners, chunk_size=chunk_size)


def why_no_shares(proposal: Proposal) -> str | None:
    """Why the members' shares of the samples are no control variates; None if they are."""
    if proposal.fixed_weighting:
        return "the members of this proposal are picked at random, so that their shares have other means than one"
    if proposal.equal_members:
        return "all members of this proposal are one distribution, and each has the constant share 1"
    if proposal.pair_densities is None:
        return f"this proposal does not have the densities of all members at one point ({proposal.why_plain})"
    return None
