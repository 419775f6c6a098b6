"""The auxiliary variables' part of the log-weights: the reverse model, and the density of z_0."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hiwae_jax._assembly.ingredients import Ingredients
from hiwae_jax._families.distribution import first_row
from hiwae_jax._families.shared import over_samples, unwrapped
from hiwae_jax._proposals.draw import Draw
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._proposals.reverse_draws import Densities, OneSample, log_marginals
from hiwae_jax._types import AuxiliarySamples, Context, Parameters, Params, Samples, Scalar
from hiwae_jax._weightings import log_partition


def reverse_chunk_size(ingredients: Ingredients, params: Params, draw: Draw) -> int | None:
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


def log_reverse(
    proposal: Proposal, params: Params, context: Context, z0: AuxiliarySamples, z: Samples, chunk_size: int | None
) -> Float[Array, " K"]:
    """`log r(z_0 | z_j)`, where z_0 stands for all auxiliary variables of sample j."""
    density = proposal.log_reverse
    assert density is not None
    if chunk_size is None:
        return density(params, context, z0, z)
    assert z0 is not None  # only reverse models of z_0 are tried, and evaluated in chunks

    def of_one(one: tuple[Float[Array, " D0"], Float[Array, " D"]]) -> Scalar:
        one_z0, one_z = one
        try:
            return density(params, context, one_z0[None], one_z[None])[0]
        except (TypeError, ValueError) as error:
            error.add_note(
                f"reverse: with chunk_size it is called with one sample at a time, z of shape {one_z[None].shape}, "
                f"although there are {len(z)}; return as many rows as z has, z.shape[0]"
            )
            raise

    return over_samples(of_one, (z0, z), chunk_size)


def reverse_rows(
    proposal: Proposal, params: Params, context: Context, z: Samples, chunk_size: int | None
) -> Parameters:
    """The parameters of `r(. | z_j)`, a row for each sample."""
    reverse = proposal.reverse
    assert reverse is not None
    if chunk_size is None:
        return reverse.rows(params, context, z)
    return over_samples(lambda z: unwrapped(first_row(reverse.rows(params, context, z[None]))), z, chunk_size)


def log_pi_over_marginal(
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

    def of_one(at_z0: Parameters, one: OneSample, index: Int[Array, ""]) -> Scalar:
        densities = Densities(members, at_z0, base, lambda psi: at(*scored, draw.structures.restored_z0(psi)))
        if not compares:
            log_s = log_marginals(one, densities, index)
            return -jnp.log(jnp.asarray(K, log_s.dtype)) - log_s
        log_s = log_marginals(one, densities, None)
        return jnp.sum(jnp.where(jnp.arange(K) == index, log_partition(weighting, log_s) - log_s, 0.0))

    one = OneSample(draw.z, z0, reverse_rows, noise[:, : proposal.reverse_samples])
    if members.own_z0:  # row j of the parameters is of sample j's z_0
        return over_samples(lambda row: of_one(*row), (parameters, one, jnp.arange(K)), ingredients.chunk_size)
    return over_samples(lambda row: of_one(parameters, *row), (one, jnp.arange(K)), ingredients.chunk_size)


def log_base(proposal: Proposal, base: Parameters, z0: Float[Array, "K D0"]) -> Float[Array, " K"]:
    """`log q_0(z_0)` at each sample's z_0."""
    assert proposal.members is not None  # a proposal with a z_0 has members
    assert proposal.members.base_family is not None
    return jax.vmap(proposal.members.base_family.log_prob, in_axes=(None, 0))(base, z0)


def require_reverse_noise(draw: Draw, proposal: Proposal) -> None:
    """Raise if the caller's draw has fewer draws of the reverse model than the weights need. The first ones count."""
    drawn = 0 if draw.reverse_noise is None else draw.reverse_noise.shape[1]
    if drawn < proposal.reverse_samples:
        raise ValueError(
            f"key: expected a key, or a draw with {proposal.reverse_samples} draws of the reverse model for each "
            f"sample, got one with {drawn}; draw with a bound whose proposal has reverse_samples="
            f"{proposal.reverse_samples}"
        )
