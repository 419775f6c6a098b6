r"""All scores as paths where the weighting compares the members: the phantom refill.

The score of member i at sample j, i != j, has weight `-alpha beta h_j(z_j) pi_i(z_j)` with
`h_j(z) = w_j(z) / (w_j(z) + sum_{m != j} w_m)`. Turned into a path it moves z_j as member i would (`paths.py`), by
large amounts where z_j is far from member i. The refilled estimator (`refilled.py`) avoids that by a change of measure
to q_i, but then needs a second sample for the slot of z_i. Both are halves of the rule here: for any `h0_ij(z_j)` that
does not depend on z_i,

    E[h_j pi_i d log q_i(z_j)] = E[h0_ij pi_i d log q_i(z_j)] + E[(h_j - h0_ij) pi_i d log q_i(z_j)].

In the first part slot i is empty, so that z_i is free to take the place of z_j and nothing has to be drawn for it: with
`kappa_ij = q_j pi_i / q_i` it is `E[grad(kappa_ij h0_ij)(z_i) . J_i(z_i) d eta_i]`, on member i's own path. The second
part goes along the cross path; it is small where `h0` is close to `h`. It is unbiased for every `h0` without jumps in
z, where log_joint has none. The one used leaves z_i's weight out and puts a phantom in its slot, the mean of the
weights that are known without it:

    rest_ij = sum_{m not in {i, j}} w_m,    w0 = (w_i(a) + rest_ij) / (K - 1),
    h0_ij(a) = w_j(a) / (w_j(a) + rest_ij + w0),

with `w_i(a) = w_j(a) (q_i(a) / q_j(a))^(beta (alpha - 1))` the weight that a would have in slot i. docs/gradients.md
has the derivation.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._families.pairs import Own, PathWeights
from hiwae_jax._gradients.leave_out import leave_two_out
from hiwae_jax._gradients.paths import Rows, Step, outer_factor, without_floored_scores
from hiwae_jax._proposals.proposal import Members

PRODUCTS_FROM = 16  # members: with fewer, sums over them take less time than small matrix products
LEAST_ALPHA = 0.5  # below it kappa has tails without a second moment, and there is no first part


def cross_paths(members: Members, alpha: float, rows: Rows, shares: Callable[[Any], Float[Array, " K"]]) -> Step:
    """Where the samples go, for a power heuristic of distinct members or for correlated samples.

    Args:
      members: as the proposal has them.
      alpha: of the power heuristic.
      rows: the samples. For each of them everything below is a row, of one entry for each member.
      shares: as for `without_floored_scores`.
    """
    operands, along, terms, weights = rows.operands, rows.along, rows.terms, rows.weights
    beta, K = operands.beta, weights.shape[0]
    independent = members.joint_log_prob is None
    has_first_part = K > 1 and alpha >= LEAST_ALPHA
    # A floor or a joint density would have to be known in the other slot; a constant needs to know nothing.
    has_phantom = has_first_part and independent and terms.clipped is None
    without = leave_two_out(terms.log_weights) if has_phantom else None
    log_prob, pairs = members.pairs().log_prob, members.pairs(products=K >= PRODUCTS_FROM)

    def row(
        known: tuple[Any, Any, Any],
        own_member: Own,
        own_tangent: Any,
        z: Float[Array, " D"],
        own: Float[Array, ""],
        drawn_slope: Float[Array, " D"],
    ) -> tuple[Any, ...]:
        parameters, tangents, with_z0 = known
        j = own_member.place
        densities = log_prob(parameters, z, own_member)
        h, here = weights[j], terms.log_weights[j]
        of_own = (jnp.arange(K) == j).astype(weights.dtype)
        off = 1.0 - of_own
        gap = densities - own
        log_own_share = -jax.nn.logsumexp(alpha * gap)
        partition, own_share = jnp.exp(alpha * gap + log_own_share), jnp.exp(log_own_share)

        # Own scores, and cross scores that stay on cross paths: column i is the member that moves the sample.
        direction = beta * h * (1.0 - h) * ((alpha - 1.0) * of_own - alpha * partition)
        kept = -alpha * beta * off * partition * h
        from_member, from_own, from_mean = (alpha - 1.0) * kept, kept, -alpha * kept
        along_own = -(alpha**2) * beta * h * own_share * of_own
        from_mean -= along_own
        if not independent:
            # Nothing cancels between the density drawn from and the one scored. A constant 1/K of the score has mean
            # zero.
            unequal = beta * (h - 1.0 / K) * (alpha - 1.0 - alpha * own_share) * of_own
            from_own, along_own = from_own + unequal, along_own - unequal
        if has_first_part:
            log_kappa = gap + log_own_share
            # At most 1 where alpha is at least 1; below that the tails of q_i may hold larger ones: kept finite.
            kappa = off * jnp.exp(jnp.minimum(log_kappa, 0.25 * math.log(float(np.finfo(weights.dtype).max))))
            if without is not None:
                level = beta * (alpha - 1.0)
                there = jnp.broadcast_to(here, gap.shape) if alpha == 1.0 else here + level * gap
                placed, elsewhere = _phantoms(here, there, *without(j))
            else:
                level, nothing = 0.0, jnp.zeros_like(gap)
                placed = elsewhere = jnp.full_like(gap, 1.0 / K), nothing, nothing
            # First part, at this sample in the slots of the others.
            share, share_slope, lent = placed
            moved = alpha * beta * kappa * (share + level * share_slope)
            stayed = alpha * beta * kappa * ((alpha - 1.0) * share - level * share_slope)
            direction -= alpha * beta * jnp.sum(kappa * (share_slope - lent)) * of_own
            along_own -= moved + jnp.sum(stayed) * of_own
            from_mean += alpha**2 * beta * jnp.sum(kappa * share) * of_own
            # What the first part has, the second has not.
            share, share_slope, lent = elsewhere
            taken = alpha * beta * off * partition
            direction += taken * (share_slope - lent)
            from_member += taken * ((alpha - 1.0) * share - level * lent)
            from_own += taken * (share + level * lent)
            from_mean -= alpha * taken * share

        # How each member would move the sample, and the density corrections along that.
        path_weights = PathWeights(direction, from_member, from_own, from_mean, partition, along_own)
        moved, scores = pairs.paths(path_weights, parameters, tangents, z, drawn_slope, own_member, own_tangent)
        if with_z0 is not None:
            follow = from_member + jnp.sum(from_own) * of_own + along_own + partition * jnp.sum(from_mean)
            followed = jax.jvp(lambda row: log_prob(row, z, None), (parameters,), (with_z0,))[1]
            scores += jnp.sum(follow * followed)
        return moved, scores, jnp.sum(direction), jnp.sum(jnp.abs(direction))

    owners = members.owners(operands.members)
    if members.joint_log_prob is None:
        drawn_slopes = jax.vmap(jax.grad(members.family.log_prob, argnums=1))(owners.parameters, operands.z)
    else:
        drawn_slopes = jax.grad(members.joint_log_prob, argnums=1)(operands.joint, operands.z)
    own = members.own_densities(operands.members, operands.z)
    known = (operands.members, along.members, rows.members_with_z0)
    z, scores, total, magnitude = members.over_rows(
        row,
        known,
        owners,
        members.own(along.members)[0],
        operands.z,
        own,
        drawn_slopes,
        chunk_size=rows.chunk_size,
    )
    factor, scale = outer_factor(terms.log_weights, weights)
    z = scale * (weights[:, None] * along.z + z)
    z0 = along.z0
    if z0 is not None:
        z0 = scale * (weights + (total if members.own_z0 else 0.0))[:, None] * z0
    step = Step(z, z0, factor, jnp.sum(scores), shares=factor + magnitude)
    return without_floored_scores(members, rows, step, shares)


Phantom = tuple[Float[Array, " K"], Float[Array, " K"], Float[Array, " K"]]


def _phantoms(
    log_here: Float[Array, ""],
    log_there: Float[Array, " K"],
    log_shift: Float[Array, " K"],
    total: Float[Array, " K"],
) -> tuple[Phantom, Phantom]:
    """`h0` of a sample in another slot with its weight here in its own, and of a sample here with its weight there.

    Each with the parts of its gradient: `d h0 = slope d log (its weight) - lent d log (the other weight)`.
    """
    slots = len(log_there) - 1
    top = jnp.maximum(jnp.maximum(log_here, log_there), log_shift)
    top = jnp.where(top == -jnp.inf, 0.0, top)
    here, there, rest = jnp.exp(log_here - top), jnp.exp(log_there - top), jnp.exp(log_shift - top) * total

    def phantom(weight: Float[Array, " K"], lent: Float[Array, " K"]) -> Phantom:
        others = rest + (lent + rest) / slots
        whole = weight + others
        inverse = 1.0 / jnp.where(whole == 0.0, 1.0, whole)
        share = weight * inverse
        return share, share * others * inverse, share * lent * inverse / slots

    return phantom(there, here), phantom(here, there)
