"""What the log-weights of one example are made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._proposals.proposal import Draw, Proposal, over_samples
from hiwae_jax._types import Example, Params
from hiwae_jax._weightings import Weighting, log_partition

LogDensity = Callable[[Params, Example, Float[Array, " D"]], Float[Array, ""]]
ModelValues = tuple[Float[Array, "..."], Float[Array, "..."]]


class Terms(NamedTuple):
    """The log-weights of K samples, or of one.

    Attributes:
      log_weights: [K], mixing weight included.
      clipped: [K], 1 where free bits hold the bracket of sample j and beta does not reach it; None without free bits.
    """

    log_weights: Float[Array, "..."]
    clipped: Float[Array, "..."] | None


class Evaluation(NamedTuple):
    """The log-weights of one example in two parts: the generative model, which is dear, and all else.

    Attributes:
      model: `z [D] -> (log p(x | z), log p(z))`, of one sample.
      rest: `(z [K, D], z0, base, members) -> [K]`, what the bracket of each log-weight has besides the model.
      combine: `(the model's values, rest) -> Terms`, of one sample: scalars.
      chunk_size: for how many samples the model is in memory at once; None for all.
    """

    model: Callable[[Any], ModelValues]
    rest: Callable[[Any, Any, Any, Any], Float[Array, " K"]]
    combine: Callable[[ModelValues, Float[Array, ""]], Terms]
    chunk_size: int | None

    def terms(self, z: Any, z0: Any, base: Any, members: Any) -> Terms:
        """Both parts together."""
        values = over_samples(self.model, z, self.chunk_size)
        terms: Terms = jax.vmap(self.combine)(values, self.rest(z, z0, base, members))
        return terms


def log_shares(
    proposal: Proposal, weighting: Weighting, members: Any, z: Any, chunk_size: int | None
) -> Float[Array, " K"]:
    """`log pi_j(z_j) - log q_j(z_j)` under a weighting of densities, from a row of densities for each sample."""
    places = jnp.arange(len(z))

    def share(densities: Any, place: Any) -> Float[Array, ""]:
        # The own entry by a mask, and not by an index: what makes the row is then fused, and no [K, K, D] is formed.
        return jnp.sum(jnp.where(places == place, log_partition(weighting, densities) - densities, 0.0))

    def of_chain(one: Any) -> Float[Array, ""]:
        z, place = one
        return share(proposal.pair_densities(members, z[None])[0], place)  # type: ignore[misc]

    if proposal.members is None:
        if chunk_size is None:
            densities = proposal.pair_densities(members, z)  # type: ignore[misc]  # refused by make_bound if None
            return jax.vmap(share)(densities, places)
        shares: jax.Array = over_samples(of_chain, (z, places), chunk_size)
        return shares
    log_prob = proposal.members.pairs().log_prob
    of_members: jax.Array = proposal.members.over_rows(
        lambda row, z, own: share(log_prob(row, z, own), own.place),
        members,
        z,
        proposal.members.owners(members),
        chunk_size=chunk_size,
    )
    return of_members


def make_evaluation(
    name: str,
    log_likelihood: LogDensity,
    log_prior: LogDensity,
    proposal: Proposal,
    weighting: Weighting,
    params: Params,
    x: Example,
    draw: Draw,
    *,
    beta: Any = 1.0,
    free_bits: float = 0.0,
    chunk_size: int | None = None,
) -> Evaluation:
    """The log-weights as functions of samples and density parameters; every estimator sees the same operations.

    `log w_j = log p(x | z_j) - max(beta * kl_j, free_bits)` with
    `kl_j = log q_0 + log q_j - log r - log p(z_j) - log pi_j`; `name` is what the user calls `log_likelihood`.
    """
    K = draw.z.shape[0]
    of_densities = weighting.of_densities and not proposal.equal_members
    same_for_all = of_densities or weighting.logits is not None
    in_chunks = chunk_size is not None
    kind = None if proposal.reverse_kind is None else proposal.reverse_kind(params, draw.context, draw.z)
    if kind is not None and kind.row_by_row is False:
        raise ValueError(
            "reverse: row j changes with samples other than z[j], but the bound is valid only if it is the density of "
            "z_0 given z_j alone; leave out what mixes the rows, such as a mean over them"
        )
    if kind is not None and kind.alike is False and same_for_all:
        raise ValueError(
            "reverse: gives different rows for the same z, but a weighting other than the uniform one is valid only if "
            "r(z_0 | z) is the same for all members; give every row the same treatment, or use "
            "weighting=hj.uniform_weighting()"
        )
    # Only a reverse model whose rows do not know of one another can be given one row.
    reverse_in_chunks = in_chunks and kind is not None and (same_for_all or kind.alike is True)

    def densities(z: Float[Array, " D"]) -> ModelValues:
        likelihood = _checks.scalar(name, log_likelihood(params, x, z), z=z)
        return likelihood, _checks.scalar("log_prior", log_prior(params, x, z), z=z)

    def densities_or_zero(z: Float[Array, " D"]) -> ModelValues:
        # A sample too large for its type has weight zero. The model sees a finite one, or its derivative would be NaN.
        overflowed = jnp.any(jnp.isinf(z))
        likelihood, prior = densities(jnp.where(overflowed, 0.0, z))
        return jnp.where(overflowed, -jnp.inf, likelihood), prior

    # Members draw each sample with one location and one scale, which does not overflow; a chain of maps may.
    model = densities_or_zero if proposal.members is None else densities

    def learned(z: Float[Array, "K D"], z0: Any) -> Float[Array, " K"]:
        def logits_at(z: Float[Array, " D"], z0: Any) -> Float[Array, " K"]:
            logits = weighting.logits(params, draw.context, z, z0)  # type: ignore[misc]  # not None where called
            return _checks.logits("logits_fn", logits, num_samples=K)

        def own(one: Any) -> Float[Array, ""]:
            place, z, z0 = one
            return jax.nn.log_softmax(logits_at(z, z0))[place]

        shares: jax.Array = over_samples(own, (jnp.arange(K), z, z0), chunk_size)
        return shares

    def log_reverse(z0: Any, z: Any) -> Float[Array, " K"]:
        def of_one(one: Any) -> Float[Array, ""]:
            z0, z = one
            try:
                return proposal.log_reverse(params, draw.context, z0[None], z[None])[0]  # type: ignore[misc]
            except (TypeError, ValueError) as error:
                error.add_note(
                    f"reverse: with chunk_size it is called with one sample at a time, z of shape {z[None].shape}, "
                    f"where there are {K}; give it as many rows as z has, z.shape[0]"
                )
                raise

        if not reverse_in_chunks:
            return proposal.log_reverse(params, draw.context, z0, z)  # type: ignore[misc]
        densities: jax.Array = over_samples(of_one, (z0, z), chunk_size)
        return densities

    def rest(z: Any, z0: Any, base: Any, members: Any) -> Float[Array, " K"]:
        if of_densities:
            bracket = log_shares(proposal, weighting, members, z, chunk_size)
        else:
            log_share = -jnp.log(jnp.asarray(K, z.dtype)) if weighting.logits is None else learned(z, z0)
            bracket = log_share - proposal.own_densities(members, z)
        if proposal.log_reverse is not None:
            bracket += log_reverse(z0, z)
        if z0 is not None:
            base_family = proposal.members.base_family  # type: ignore[union-attr]  # a proposal with a z_0 has members
            bracket -= jax.vmap(base_family.log_prob, in_axes=(None, 0))(base, z0)  # type: ignore[union-attr]
        return bracket

    def combine(values: ModelValues, rest: Float[Array, ""]) -> Terms:
        likelihood, prior = values
        bracket = prior + rest
        if free_bits == 0.0:
            return Terms(likelihood + beta * bracket, None)
        held = -beta * bracket < free_bits
        log_weights = likelihood - jnp.where(held, free_bits, -beta * bracket)
        return Terms(log_weights, held.astype(log_weights.dtype))

    return Evaluation(model, rest, combine, chunk_size)
