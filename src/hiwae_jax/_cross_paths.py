r"""All scores as paths where the weighting compares the members: the phantom refill.

The score of member i at sample j, i != j, has weight `-alpha beta h_j(z_j) pi_i(z_j)` with
`h_j(z) = w_j(z) / (w_j(z) + sum_{m != j} w_m)`. Turned into a path it moves z_j as member i would (`_paths.py`), by
large amounts where z_j is far from member i. The refilled estimator (`_refilled.py`) avoids that by a change of measure
to q_i, but then needs a second sample for the slot of z_i. Both are halves of the rule here: for any `h0_ij(z_j)` that
does not depend on z_i,

    E[h_j pi_i d log q_i(z_j)] = E[h0_ij pi_i d log q_i(z_j)] + E[(h_j - h0_ij) pi_i d log q_i(z_j)].

In the first part slot i is empty, so that z_i is free to take the place of z_j and nothing has to be drawn for it: with
`kappa_ij = q_j pi_i / q_i` it is `E[grad(kappa_ij h0_ij)(z_i) . J_i(z_i) d eta_i]`, on member i's own path. The second
part goes along the cross path; it is small where `h0` is close to `h`. It is unbiased for every `h0`. The one used
leaves z_i's weight out and puts a phantom in its slot, the mean of the weights that are known without it:

    rest_ij = sum_{m not in {i, j}} w_m,    w0 = (w_i(a) + rest_ij) / (K - 1),
    h0_ij(a) = w_j(a) / (w_j(a) + rest_ij + w0),

with `w_i(a) = w_j(a) (q_i(a) / q_j(a))^(beta (alpha - 1))` the weight that a would have in slot i. docs/gradients.md
has the derivation.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._leave_out import leave_two_out
from hiwae_jax._paths import Operands, Step, outer_factor, without_floored_scores
from hiwae_jax._proposal import Members
from hiwae_jax._terms import Terms
from hiwae_jax._weightings import density_score_weights

LEAST_ALPHA = 0.5  # below it kappa has tails without a second moment, and there is no first part


def cross_paths(
    members: Members,
    alpha: float,
    operands: Operands,
    along: Operands,
    terms: Terms,
    weights: Float[Array, " K"],
) -> Step:
    """Where the samples go, for a power heuristic of distinct members or for correlated samples."""
    beta, K = operands.beta, weights.shape[0]
    densities = terms.densities
    if densities.ndim == 1:  # the uniform weighting of correlated samples
        densities = members.pair_densities(operands.members, operands.z)
    log_share = jax.nn.log_softmax(alpha * densities, axis=-1)
    partition = jnp.exp(log_share)
    score_weights = density_score_weights(alpha, partition)
    independent = members.joint_log_prob is None

    off = 1.0 - jnp.eye(K, dtype=weights.dtype)
    h = weights[:, None]
    slope = h * (1.0 - h)
    # Own scores, and cross scores that stay on cross paths: row j is the sample, column i the member that moves it.
    direction = beta * slope * score_weights
    kept = -alpha * beta * off * partition * h
    from_member, from_own, from_mean = (alpha - 1.0) * kept, kept, -alpha * kept
    own = alpha**2 * beta * h[:, 0] * jnp.diagonal(partition)
    from_mean = from_mean + jnp.diag(own)
    along_own = -jnp.diag(own)
    if not independent:
        # Nothing cancels between the density drawn from and the one scored. A constant 1/K of the score has mean zero.
        unequal = beta * (weights - 1.0 / K) * jnp.diagonal(score_weights)
        from_own, along_own = from_own + jnp.diag(unequal), along_own - jnp.diag(unequal)

    if K > 1 and alpha >= LEAST_ALPHA:
        gap = densities - jnp.diagonal(densities)[:, None]
        # At most 1 where alpha is at least 1; below that the tails of q_i may hold larger ones, and it is kept finite.
        log_kappa = gap + jnp.diagonal(log_share)[:, None]
        kappa = off * jnp.exp(jnp.minimum(log_kappa, 0.25 * math.log(float(np.finfo(weights.dtype).max))))
        if independent and terms.clipped is None:
            level = beta * (alpha - 1.0)
            here = terms.log_weights[:, None]
            there = jnp.broadcast_to(here, gap.shape) if alpha == 1.0 else here + level * gap
            placed, elsewhere = _phantoms(here, there, *leave_two_out(terms.log_weights))
        else:
            # A floor or a joint density would have to be known in the other slot; a constant needs to know nothing.
            level, nothing = 0.0, jnp.zeros_like(gap)
            placed = elsewhere = jnp.full_like(gap, 1.0 / K), nothing, nothing
        # First part, at each sample in the slots of the others.
        share, share_slope, lent = placed
        direction += jnp.diag(-alpha * beta * jnp.sum(kappa * (share_slope - lent), axis=1))
        moved = alpha * beta * kappa * (share + level * share_slope)
        stayed = (alpha - 1.0) * share - level * share_slope
        along_own -= moved + jnp.diag(alpha * beta * jnp.sum(kappa * stayed, axis=1))
        from_mean += jnp.diag(alpha**2 * beta * jnp.sum(kappa * share, axis=1))
        # What the first part has, the second has not.
        share, share_slope, lent = elsewhere
        taken = alpha * beta * off * partition
        direction += taken * (share_slope - lent)
        from_member += taken * ((alpha - 1.0) * share - level * lent)
        from_own += taken * (share + level * lent)
        from_mean -= alpha * taken * share

    z, scores = _along_pairs(
        members, operands, along, direction, partition, from_member, from_own, from_mean, along_own
    )
    factor, scale = outer_factor(terms.log_weights, weights)
    z = scale * (h * along.z + z)
    z0, follow = along.z0, None
    if z0 is not None:
        z0 = scale * (h + (jnp.sum(direction, axis=1, keepdims=True) if members.own_z0 else 0.0)) * z0
    if members.own_z0:
        follow = from_member + jnp.diag(jnp.sum(from_own, axis=1)) + along_own
        follow += partition * jnp.sum(from_mean, axis=1, keepdims=True)
    step = Step(z, z0, factor, scores, follow, shares=factor + jnp.sum(jnp.abs(direction), axis=1))
    return without_floored_scores(members, operands, along, terms, weights, step, score_weights)


Phantom = tuple[Float[Array, "K K"], Float[Array, "K K"], Float[Array, "K K"]]


def _phantoms(
    log_here: Float[Array, "K 1"],
    log_there: Float[Array, "K K"],
    log_shift: Float[Array, "K K"],
    total: Float[Array, "K K"],
) -> tuple[Phantom, Phantom]:
    """`h0` of a sample in another slot with its weight here in its own, and of a sample here with its weight there.

    Each with the parts of its gradient: `d h0 = slope d log (its weight) - lent d log (the other weight)`.
    """
    slots = len(log_here) - 1
    top = jnp.maximum(jnp.maximum(log_here, log_there), log_shift)
    top = jnp.where(top == -jnp.inf, 0.0, top)
    here, there, rest = jnp.exp(log_here - top), jnp.exp(log_there - top), jnp.exp(log_shift - top) * total

    def phantom(weight: Float[Array, "K K"], lent: Float[Array, "K K"]) -> Phantom:
        others = rest + (lent + rest) / slots
        whole = weight + others
        inverse = 1.0 / jnp.where(whole == 0.0, 1.0, whole)
        share = weight * inverse
        return share, share * others * inverse, share * lent * inverse / slots

    return phantom(there, here), phantom(here, there)


def _along_pairs(
    members: Members,
    operands: Operands,
    along: Operands,
    direction: Float[Array, "K K"],
    partition: Float[Array, "K K"],
    from_member: Float[Array, "K K"],
    from_own: Float[Array, "K K"],
    from_mean: Float[Array, "K K"],
    along_own: Float[Array, "K K"],
) -> tuple[Float[Array, "K D"], Float[Array, ""]]:
    """`sum_i direction[j, i] J_i(z_j) d eta_i`, and the density corrections along each `J_i(z_j) d eta_i`.

    With `s_m = grad_z l[j, m]` the corrections are
    `from_member s_i + from_own grad_j log Q + from_mean sum_m pi_m s_m` for pair [j, i], and
    `sum_m along_own[j, m] s_m` for [j, j].
    """

    def moved(member: Any, tangent: Any, z: Float[Array, " D"]) -> Float[Array, " D"]:
        noise = members.family.inverse(member, z)
        move: jax.Array = jax.jvp(lambda eta: members.family.forward(eta, noise), (member,), (tangent,))[1]
        return move

    log_prob_slope = jax.grad(members.family.log_prob, argnums=1)
    moves = members.over_pairs(
        lambda both, z: moved(both[0], both[1], z), (operands.members, along.members), operands.z
    )
    slopes = members.over_pairs(log_prob_slope, operands.members, operands.z)
    own, axis = members.own(operands.members)
    own_slope = jax.vmap(log_prob_slope, in_axes=(axis, 0))(own, operands.z)
    drawn_slope = own_slope
    if members.joint_log_prob is not None:
        drawn_slope = jax.grad(members.joint_log_prob, argnums=1)(operands.joint, operands.z)
    mean_slope = jnp.sum(partition[..., None] * slopes, axis=1)

    z = jnp.sum(direction[..., None] * moves, axis=1)
    correction = from_member[..., None] * slopes
    correction += from_own[..., None] * drawn_slope[:, None]
    correction += from_mean[..., None] * mean_slope[:, None]
    identity = jnp.eye(len(direction), dtype=direction.dtype)
    correction += identity[..., None] * jnp.sum(along_own[..., None] * slopes, axis=1)[:, None]
    return z, jnp.sum(correction * moves)
