r"""The refilled-slot estimator: it turns all scores into samples' own paths, for K more evaluations of the weight.

If the weighting compares densities, the score of member i is taken at the samples of all other members. Let `w_j(z)` be
the weight of a point z in slot j, and `h_j(z) = w_j(z) / (w_j(z) + sum_{m != j} w_m)`. The part to estimate is

    sum_j E_{z_j ~ q_j}[h_j(z_j) pi_i(z_j) d log q_i(z_j)] = sum_j E_{z ~ q_i}[kappa_ij(z) h_j(z) d log q_i(z)],
    kappa_ij = q_j pi_i / q_i = q_j q_i^(alpha - 1) / sum_m q_m^alpha.

After the change of measure from q_j to q_i, the density scored is the one drawn from. The reparameterization identity
under q_i gives `E_{z ~ q_i}[grad(kappa_ij h_j)(z) . J_i(z) d eta_i]`, which is member i's own sample on its own path.
While z_i is in slot j, slot i needs another sample that is independent of it. This is the refill `z'_i ~ q_i(. | z_0)`,
of which only the weight is evaluated. Then

    others_ij = sum_{m not in {i, j}} w_m + w_i(z'_i) for j != i,    others_ii = sum_{m != i} w_m,
    w_j(z_i) = w_i(z_i) (q_j(z_i) / q_i(z_i))^(beta (alpha - 1)),    h_ij = w_j(z_i) / (w_j(z_i) + others_ij),

The tangent, along the own path of each z_i with `others` fixed, is

    sum_i wbar_i d log w_i + beta d((alpha - 1) h_ii - alpha sum_j kappa_ij h_ij).

If each sample has a z_0 of its own, the same holds for the pairs (z_0, z). docs/gradients.md has the derivation.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._families.pairs import Own
from hiwae_jax._gradients.leave_out import Index, leave_two_out
from hiwae_jax._gradients.needs import Need, needs_independent_samples, needs_members, needs_one_z0_per_sample
from hiwae_jax._gradients.own_paths import own_paths_step
from hiwae_jax._gradients.rule import Rule, RuleInputs, Step, outer_factor
from hiwae_jax._types import Parameters, Scalar


class _OwnMove(NamedTuple):
    """A sample on its own path.

    Attributes:
      z: the sample [D].
      z_tangent: how it moves.
      log_q: its log-density under its own member.
      log_q_tangent: how that log-density moves.
    """

    z: Float[Array, "*samples D"]
    z_tangent: Float[Array, "*samples D"]
    log_q: Float[Array, "*samples"]
    log_q_tangent: Float[Array, "*samples"]


def refilled_step(inputs: RuleInputs) -> Step:
    """The step of the rule: own paths everywhere, with coefficients that depend on the weights in other slots."""
    if inputs.request.scores_are_constant:
        return own_paths_step(inputs)
    refills = inputs.draw.refill
    assert refills is not None  # the bound draws them for this rule
    coefficient, scores = _own_path_coefficients(inputs, log_refills=inputs.log_weights_at(*refills))
    factor, scale = outer_factor(inputs.terms.log_weights, inputs.weights)
    z0 = inputs.tangents.z0
    if z0 is not None:
        z0 = scale * (coefficient if inputs.members.own_z0 else inputs.weights)[:, None] * z0
    # A sample of small weight may have a large coefficient, in a slot that a dominating sample has left.
    draw_weights = factor + jnp.abs(coefficient)
    z = scale * coefficient[:, None] * inputs.tangents.z
    return Step(z, z0, factor, jnp.sum(scores), draw_weights=draw_weights)


def _own_path_coefficients(
    inputs: RuleInputs, *, log_refills: Float[Array, " K"]
) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    """For each sample: the factor of `d log w_i` on its own path, and the densities' contribution to the tangent."""
    members, draw, with_z0 = inputs.members, inputs.draw, inputs.members_with_z0
    if with_z0 is None:
        own = lambda z: members.own_densities(draw.parameters, z)
        log_q, log_q_tangent = jax.jvp(own, (draw.z,), (inputs.tangents.z,))
    else:
        both = (draw.parameters, draw.z), (with_z0, inputs.tangents.z)
        log_q, log_q_tangent = jax.jvp(members.own_densities, *both)
    log_prob = members.pairs().log_prob
    without = leave_two_out(inputs.terms.log_weights)

    def of_one(known: tuple[Parameters, Parameters], owner: Own, move: _OwnMove) -> tuple[Scalar, Scalar]:
        parameters, with_z0 = known
        if with_z0 is None:
            at = lambda z: log_prob(parameters, z, owner)
            densities, density_tangents = jax.jvp(at, (move.z,), (move.z_tangent,))
        else:
            at_both = lambda parameters, z: log_prob(parameters, z, None)
            densities, density_tangents = jax.jvp(at_both, (parameters, move.z), (with_z0, move.z_tangent))
        # Relative to the sample's own member.
        gap, gap_tangent = densities - move.log_q, density_tangents - move.log_q_tangent
        odds = _log_odds(inputs, owner.member, gap, *without(owner.member), log_refills)
        return _coefficient_and_scores(inputs, owner.member, gap, gap_tangent, odds)

    return members.over_rows(
        of_one,
        (draw.parameters, with_z0),
        members.owners(draw.parameters),
        _OwnMove(draw.z, inputs.tangents.z, log_q, log_q_tangent),
        chunk_size=inputs.chunk_size,
    )


def _log_odds(
    inputs: RuleInputs,
    index: Index,
    gap: Float[Array, " K"],
    shift: Float[Array, " K"],
    total: Float[Array, " K"],
    log_refills: Float[Array, " K"],
) -> Float[Array, " K"]:
    """The logit of `h_ij`, for every slot j of sample i: its weight there over that of all others."""
    log_others = shift + jnp.log(total)
    is_own = jnp.arange(len(gap)) == index
    log_others = jnp.where(is_own, log_others, jnp.logaddexp(log_others, log_refills[index]))
    placed = inputs.terms.log_weights[index] + inputs.beta * (inputs.request.weighting.alpha - 1.0) * gap
    # Computed in logarithms: a weight that underflows beside the largest may dominate once the largest has left its
    # slot.
    return jnp.where(placed == -jnp.inf, -jnp.inf, placed - log_others)


def _coefficient_and_scores(
    inputs: RuleInputs, index: Index, gap: Float[Array, " K"], gap_tangent: Float[Array, " K"], odds: Float[Array, " K"]
) -> tuple[Scalar, Scalar]:
    """The last formula in this file's docstring, for sample i: the factor of `d log w_i`, and what is added to it."""
    alpha, beta = inputs.request.weighting.alpha, inputs.beta
    log_total = jax.nn.logsumexp(alpha * gap)
    partition, log_kappa = jnp.exp(alpha * gap - log_total), gap - log_total
    # Below alpha = 1 the ratio is not bounded. For samples of q_i it is never as large as this limit, unless a scale is
    # degenerate.
    kappa = jnp.exp(jnp.minimum(log_kappa, 0.25 * math.log(float(np.finfo(inputs.weights.dtype).max))))
    h = jax.nn.sigmoid(odds)
    slope = h * jax.nn.sigmoid(-odds)
    own_slope = jnp.sum(jnp.where(jnp.arange(len(gap)) == index, slope, 0.0))
    coefficient = inputs.weights[index] + beta * ((alpha - 1.0) * own_slope - alpha * jnp.sum(kappa * slope))
    log_kappa_tangent = gap_tangent - alpha * jnp.sum(partition * gap_tangent)
    moved = kappa * (h * log_kappa_tangent + slope * beta * (alpha - 1.0) * gap_tangent)
    return coefficient, -beta * alpha * jnp.sum(moved)


_needs_refills = Need(
    lambda request: request.scores_are_constant or request.proposal.refills,
    "needs a proposal that can draw every sample a second time, and this one cannot; use "
    "gradient='doubly_reparameterized'",
)

_needs_no_free_bits = Need(
    lambda request: request.scores_are_constant or request.free_bits == 0.0,
    "is not unbiased with free bits under this weighting; use gradient='doubly_reparameterized' or free_bits=0",
)

REFILLED = Rule(
    name="refilled",
    unbiased="every weighting; no free bits",
    cost="K forward passes more: FLOPs 1.17 to 1.26 there",
    noise="as DReG without a power heuristic; under alpha = 1 and 3 29 % below it to 21 % above it",
    when="the noise of the gradient is what limits, and time is not",
    step=refilled_step,
    needs=(needs_members, needs_independent_samples, needs_one_z0_per_sample, _needs_refills, _needs_no_free_bits),
    refills=True,
)
