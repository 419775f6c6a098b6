r"""The phantom refill: it turns all scores into paths where the weighting compares the members.

The score of member i at sample j, i != j, has weight `-alpha beta h_j(z_j) pi_i(z_j)` with
`h_j(z) = w_j(z) / (w_j(z) + sum_{m != j} w_m)`. As a path, it moves z_j as member i would (`rule.py`). This move is
large where z_j is far from member i. The refilled estimator (`refilled.py`) avoids that by a change of measure to q_i,
but then needs a second sample for the slot of z_i. The rule here combines both. For any `h0_ij(z_j)` that does not
depend on z_i,

    E[h_j pi_i d log q_i(z_j)] = E[h0_ij pi_i d log q_i(z_j)] + E[(h_j - h0_ij) pi_i d log q_i(z_j)].

In the first part slot i is empty. So z_i can take the place of z_j, and nothing has to be drawn for it. With
`kappa_ij = q_j pi_i / q_i`, this part is `E[grad(kappa_ij h0_ij)(z_i) . J_i(z_i) d eta_i]`, on member i's own path. The
second part uses the cross path, and is small where `h0` is close to `h`. The rule is unbiased for every `h0` without
jumps in z, if log_joint has none. The `h0` used here leaves out z_i's weight and puts a phantom in its slot. The
phantom is the mean of the weights that are known without z_i:

    rest_ij = sum_{m not in {i, j}} w_m,    w0 = (w_i(a) + rest_ij) / (K - 1),
    h0_ij(a) = w_j(a) / (w_j(a) + rest_ij + w0),

Here `w_i(a) = w_j(a) (q_i(a) / q_j(a))^(beta (alpha - 1))` is the weight that a would have in slot i. docs/gradients.md
has the derivation.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._families.pairs import Own, PathWeights
from hiwae_jax._gradients.leave_out import Index, leave_two_out
from hiwae_jax._gradients.rule import RuleInputs, Step, outer_factor, without_clipped_scores
from hiwae_jax._types import Parameters, Samples, Scalar

PRODUCTS_FROM = 16  # members: with fewer, sums over them take less time than small matrix products
LEAST_ALPHA = 0.5  # below it kappa has tails without a second moment, and there is no first part


class _AtSample(NamedTuple):
    """Quantities at sample j. Arrays have an entry for each member i.

    Attributes:
      is_own: 1 at the sample's own member, 0 elsewhere.
      gap: `log q_i(z_j) - log q_j(z_j)`.
      partition: `pi_i(z_j)`.
      log_own_partition: `log pi_j(z_j)`, a scalar.
      h: `wbar_j`.
      log_weight: `log w_j`.
    """

    is_own: Float[Array, " K"]
    gap: Float[Array, " K"]
    partition: Float[Array, " K"]
    log_own_partition: Scalar
    h: Scalar
    log_weight: Scalar


class _Move(NamedTuple):
    """What takes the place of the scores at a sample.

    Attributes:
      z: where the sample goes [D].
      scores: the scores that remain.
      total: the sum of the weights of the members' moves that make `z`.
      size: the sum of their absolute values.
    """

    z: Float[Array, "*samples D"]
    scores: Float[Array, "*samples"]
    total: Float[Array, "*samples"]
    size: Float[Array, "*samples"]


class _Phantom(NamedTuple):
    """`h0` in each slot, and its gradient `slope * d log(own weight) - lent * d log(the other weight)`."""

    h0: Float[Array, " K"]
    slope: Float[Array, " K"]
    lent: Float[Array, " K"]


def cross_paths_step(inputs: RuleInputs) -> Step:
    """The step for a power heuristic of distinct members, or for correlated samples."""
    members, draw, tangents = inputs.members, inputs.draw, inputs.tangents
    if members.joint_log_prob is None:
        drawn_slopes = members.over_own(jax.grad(members.family.log_prob, argnums=1), draw.parameters, draw.z)
    else:
        drawn_slopes = jax.grad(members.joint_log_prob, argnums=1)(draw.joint, draw.z)
    moves = _moves(inputs, drawn_slopes)

    factor, scale = outer_factor(inputs.terms.log_weights, inputs.weights)
    z = scale * (inputs.weights[:, None] * tangents.z + moves.z)
    z0 = tangents.z0
    if z0 is not None:
        z0 = scale * (inputs.weights + (moves.total if members.own_z0 else 0.0))[:, None] * z0
    step = Step(z, z0, factor, jnp.sum(moves.scores), draw_weights=factor + moves.size)
    return without_clipped_scores(inputs, step)


def _moves(inputs: RuleInputs, drawn_slopes: Samples) -> _Move:
    """How the rule moves each sample, with a leading axis of samples on every array."""
    members, draw = inputs.members, inputs.draw
    K = len(inputs.weights)
    log_prob, pairs = members.pairs().log_prob, members.pairs(products=K >= PRODUCTS_FROM)
    # A phantom would need the free bits or the joint density in the other slot. A constant h0 needs neither.
    has_phantom = _has_first_part(inputs) and members.joint_log_prob is None and inputs.terms.clipped is None
    without = leave_two_out(inputs.terms.log_weights) if has_phantom else None

    def of_one(
        known: tuple[Parameters, Parameters, Parameters],
        own: Own,
        own_tangent: Parameters,
        z: Float[Array, " D"],
        own_log_prob: Scalar,
        drawn_slope: Float[Array, " D"],
    ) -> _Move:
        parameters, tangents, with_z0 = known
        at = _at_sample(inputs, own.member, log_prob(parameters, z, own) - own_log_prob)
        path_weights = _all_on_cross_paths(inputs, at)
        if members.joint_log_prob is not None:
            path_weights = _with_joint_score(inputs, at, path_weights)
        if _has_first_part(inputs):
            others = None if without is None else without(own.member)
            path_weights = _with_first_part(inputs, at, path_weights, *_phantoms(inputs, at, others))
        moved, scores = pairs.paths(path_weights, parameters, tangents, z, drawn_slope, own, own_tangent)
        if with_z0 is not None:
            followed = jax.jvp(lambda row: log_prob(row, z, None), (parameters,), (with_z0,))[1]
            scores += jnp.sum(_along_z0(at, path_weights) * followed)
        return _Move(moved, scores, jnp.sum(path_weights.direction), jnp.sum(jnp.abs(path_weights.direction)))

    return members.over_rows(
        of_one,
        (draw.parameters, inputs.tangents.parameters, inputs.members_with_z0),
        members.owners(draw.parameters),
        members.own(inputs.tangents.parameters)[0],
        draw.z,
        members.own_densities(draw.parameters, draw.z),
        drawn_slopes,
        chunk_size=inputs.chunk_size,
    )


def _has_first_part(inputs: RuleInputs) -> bool:
    return len(inputs.weights) > 1 and inputs.request.weighting.alpha >= LEAST_ALPHA


def _at_sample(inputs: RuleInputs, index: Index, gap: Float[Array, " K"]) -> _AtSample:
    alpha, weights = inputs.request.weighting.alpha, inputs.weights
    log_own_partition = -jax.nn.logsumexp(alpha * gap)
    return _AtSample(
        is_own=(jnp.arange(len(weights)) == index).astype(weights.dtype),
        gap=gap,
        partition=jnp.exp(alpha * gap + log_own_partition),
        log_own_partition=log_own_partition,
        h=weights[index],
        log_weight=inputs.terms.log_weights[index],
    )


def _all_on_cross_paths(inputs: RuleInputs, at: _AtSample) -> PathWeights:
    """Own scores on own paths, and all cross scores on cross paths. Column i is the member that moves the sample."""
    alpha, beta, h, is_own = inputs.request.weighting.alpha, inputs.beta, at.h, at.is_own
    kept = -alpha * beta * (1.0 - is_own) * at.partition * h
    along_own = -(alpha**2) * beta * h * jnp.exp(at.log_own_partition) * is_own
    return PathWeights(
        direction=beta * h * (1.0 - h) * ((alpha - 1.0) * is_own - alpha * at.partition),
        from_member=(alpha - 1.0) * kept,
        from_own=kept,
        from_mean=-alpha * kept - along_own,
        partition=at.partition,
        along_own=along_own,
    )


def _with_joint_score(inputs: RuleInputs, at: _AtSample, path_weights: PathWeights) -> PathWeights:
    """For correlated samples, the density drawn from and the one scored do not cancel.

    A constant 1/K of the score has mean zero, and is left out.
    """
    alpha, K = inputs.request.weighting.alpha, len(inputs.weights)
    own_partition = jnp.exp(at.log_own_partition)
    unequal = inputs.beta * (at.h - 1.0 / K) * (alpha - 1.0 - alpha * own_partition) * at.is_own
    return path_weights._replace(from_own=path_weights.from_own + unequal, along_own=path_weights.along_own - unequal)


def _with_first_part(
    inputs: RuleInputs, at: _AtSample, path_weights: PathWeights, placed: _Phantom, elsewhere: _Phantom
) -> PathWeights:
    """Add the first part, with this sample in the slots of the others, and take it away from the second part."""
    alpha, beta, is_own = inputs.request.weighting.alpha, inputs.beta, at.is_own
    level = _level(inputs)
    log_kappa = at.gap + at.log_own_partition
    # kappa is at most 1 where alpha is at least 1. Below, the tails of q_i may give larger values, which are kept
    # finite.
    largest = 0.25 * math.log(float(np.finfo(inputs.weights.dtype).max))
    kappa = (1.0 - is_own) * jnp.exp(jnp.minimum(log_kappa, largest))
    moved = alpha * beta * kappa * (placed.h0 + level * placed.slope)
    stayed = alpha * beta * kappa * ((alpha - 1.0) * placed.h0 - level * placed.slope)
    taken = alpha * beta * (1.0 - is_own) * at.partition

    direction = path_weights.direction - alpha * beta * jnp.sum(kappa * (placed.slope - placed.lent)) * is_own
    from_mean = path_weights.from_mean + alpha**2 * beta * jnp.sum(kappa * placed.h0) * is_own
    return PathWeights(
        direction=direction + taken * (elsewhere.slope - elsewhere.lent),
        from_member=path_weights.from_member + taken * ((alpha - 1.0) * elsewhere.h0 - level * elsewhere.lent),
        from_own=path_weights.from_own + taken * (elsewhere.h0 + level * elsewhere.lent),
        from_mean=from_mean - alpha * taken * elsewhere.h0,
        partition=path_weights.partition,
        along_own=path_weights.along_own - moved - jnp.sum(stayed) * is_own,
    )


def _level(inputs: RuleInputs) -> Scalar | float:
    """How the log-weight changes with `log q_i - log q_j` when a sample changes its slot; 0 for a constant phantom."""
    members = inputs.members
    has_phantom = members.joint_log_prob is None and inputs.terms.clipped is None
    return inputs.beta * (inputs.request.weighting.alpha - 1.0) if has_phantom else 0.0


def _along_z0(at: _AtSample, path_weights: PathWeights) -> Float[Array, " K"]:
    """The coefficients of the members' log-densities as they follow the sample's own z_0."""
    follow = path_weights.from_member + jnp.sum(path_weights.from_own) * at.is_own
    return follow + path_weights.along_own + at.partition * jnp.sum(path_weights.from_mean)


def _phantoms(
    inputs: RuleInputs, at: _AtSample, others: tuple[Float[Array, " K"], Float[Array, " K"]] | None
) -> tuple[_Phantom, _Phantom]:
    """`h0` of this sample in slot i, and `h0` of a sample in this slot, with the weights that they would have there.

    Args:
      inputs: the inputs of the rule.
      at: this sample.
      others: `sum_{m not in {i, j}} w_m` for each i, as `exp(log_shift) * total`. None for the constant `h0 = 1/K`.
    """
    if others is None:
        nothing = jnp.zeros_like(at.gap)
        constant = _Phantom(jnp.full_like(at.gap, 1.0 / len(at.gap)), nothing, nothing)
        return constant, constant
    log_shift, total = others
    alpha, log_here = inputs.request.weighting.alpha, at.log_weight
    log_there = jnp.broadcast_to(log_here, at.gap.shape) if alpha == 1.0 else log_here + _level(inputs) * at.gap
    slots = len(at.gap) - 1
    top = jnp.maximum(jnp.maximum(log_here, log_there), log_shift)
    top = jnp.where(top == -jnp.inf, 0.0, top)
    here, there, rest = jnp.exp(log_here - top), jnp.exp(log_there - top), jnp.exp(log_shift - top) * total

    def phantom(weight: Float[Array, " K"], lent: Float[Array, " K"]) -> _Phantom:
        others = rest + (lent + rest) / slots
        whole = weight + others
        inverse = 1.0 / jnp.where(whole == 0.0, 1.0, whole)
        h0 = weight * inverse
        return _Phantom(h0, h0 * others * inverse, h0 * lent * inverse / slots)

    return phantom(there, here), phantom(here, there)
