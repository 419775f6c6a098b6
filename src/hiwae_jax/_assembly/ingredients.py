"""What the log-weights of every example are made of: the arguments of `make_bound` and its like."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hiwae_jax._proposals.draw import Structures
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._types import Example, Latent, LogDensity, Params, Scalar
from hiwae_jax._weightings import Weighting


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


def of_vectors(ingredients: Ingredients, structures: Structures) -> Ingredients:
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


def no_prior(params: Params, x: Example, z: Latent) -> Scalar:
    """The `log_prior` where one function stands for both densities."""
    return jnp.zeros((), jax.tree.leaves(z)[0].dtype)
