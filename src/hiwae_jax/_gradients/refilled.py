r"""The refilled-slot estimator: all scores as paths of a sample's own, at K more evaluations of the weight.

Where the weighting looks at densities, the score of member i meets the samples of all others. Let `w_j(z)` be the
weight of a point z in slot j, `h_j(z) = w_j(z) / (w_j(z) + sum_{m != j} w_m)`, and the part to estimate

    sum_j E_{z_j ~ q_j}[h_j(z_j) pi_i(z_j) d log q_i(z_j)] = sum_j E_{z ~ q_i}[kappa_ij(z) h_j(z) d log q_i(z)],
    kappa_ij = q_j pi_i / q_i = q_j q_i^(alpha - 1) / sum_m q_m^alpha.

After the change of measure from q_j to q_i the density scored is the one that is drawn from, and the
reparameterization identity under q_i gives `E_{z ~ q_i}[grad(kappa_ij h_j)(z) . J_i(z) d eta_i]`: member i's own sample
on its own path. When z_i sits in slot j, slot i needs another sample that is independent of it: the refill
`z'_i ~ q_i(. | z_0)`, of which only the weight is evaluated. Then

    others_ij = sum_{m not in {i, j}} w_m + w_i(z'_i) for j != i,    others_ii = sum_{m != i} w_m,
    w_j(z_i) = w_i(z_i) (q_j(z_i) / q_i(z_i))^(beta (alpha - 1)),    h_ij = w_j(z_i) / (w_j(z_i) + others_ij),

and the tangent is, along the own path of each z_i with `others` fixed,

    sum_i wbar_i d log w_i + beta d((alpha - 1) h_ii - alpha sum_j kappa_ij h_ij).

With a z_0 of its own for each sample the same holds of the pairs (z_0, z). docs/gradients.md has the derivation.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._families.pairs import Own
from hiwae_jax._gradients.leave_out import leave_two_out
from hiwae_jax._gradients.paths import Rows, Step, outer_factor
from hiwae_jax._proposals.proposal import Members


def refilled(
    members: Members, alpha: float, rows: Rows, log_weights_at: Callable[[Any, Any], Float[Array, " K"]]
) -> Step:
    """Where the samples go.

    Args:
      members: as the proposal has them.
      alpha: of the power heuristic, more than 0.
      rows: the samples. For each of them everything below is a row, of one entry for each member.
      log_weights_at: `(z, z0) -> [K]`, to weigh the refills with.
    """
    operands, along, terms, weights = rows.operands, rows.along, rows.terms, rows.weights
    beta, K = operands.beta, weights.shape[0]
    without, log_refills = leave_two_out(terms.log_weights), log_weights_at(*operands.refill)

    log_prob = members.pairs().log_prob

    def row(  # type: ignore[no-untyped-def]  # two scalars
        known: tuple[Any, Any], owner: Own, z: Float[Array, " D"], move: Float[Array, " D"], own: Any, own_move: Any
    ):
        parameters, with_z0 = known
        i = owner.place
        if with_z0 is None:
            densities, density_moves = jax.jvp(lambda z: log_prob(parameters, z, owner), (z,), (move,))
        else:
            along = lambda parameters, z: log_prob(parameters, z, None)
            densities, density_moves = jax.jvp(along, (parameters, z), (with_z0, move))
        # Relative to the sample's own member.
        gap, gap_move = densities - own, density_moves - own_move
        log_total = jax.nn.logsumexp(alpha * gap)
        partition, log_kappa = jnp.exp(alpha * gap - log_total), gap - log_total
        # Below alpha = 1 the ratio is not bounded. Under q_i it is never as large as this; a degenerate scale may.
        kappa = jnp.exp(jnp.minimum(log_kappa, 0.25 * math.log(float(np.finfo(weights.dtype).max))))

        here, of_own = terms.log_weights[i], jnp.arange(K) == i
        shift, total = without(i)
        log_others = shift + jnp.log(total)
        log_others = jnp.where(of_own, log_others, jnp.logaddexp(log_others, log_refills[i]))
        placed = here + beta * (alpha - 1.0) * gap
        # In logarithms: a weight that underflows next to the largest may dominate once that one has left its slot.
        odds = jnp.where(placed == -jnp.inf, -jnp.inf, placed - log_others)
        h = jax.nn.sigmoid(odds)
        slope = h * jax.nn.sigmoid(-odds)

        own_slope = jnp.sum(jnp.where(of_own, slope, 0.0))
        coefficient = weights[i] + beta * ((alpha - 1.0) * own_slope - alpha * jnp.sum(kappa * slope))
        log_kappa_move = gap_move - alpha * jnp.sum(partition * gap_move)
        moved = kappa * (h * log_kappa_move + slope * beta * (alpha - 1.0) * gap_move)
        return coefficient, -beta * alpha * jnp.sum(moved)

    with_z0 = rows.members_with_z0
    if with_z0 is None:
        own_of = lambda z: members.own_densities(operands.members, z)
        own, own_move = jax.jvp(own_of, (operands.z,), (along.z,))
    else:
        own, own_move = jax.jvp(members.own_densities, (operands.members, operands.z), (with_z0, along.z))
    coefficient, scores = members.over_rows(
        row,
        (operands.members, with_z0),
        members.owners(operands.members),
        operands.z,
        along.z,
        own,
        own_move,
        chunk_size=rows.chunk_size,
    )
    factor, scale = outer_factor(terms.log_weights, weights)
    z0 = along.z0
    if z0 is not None:
        z0 = scale * (coefficient if members.own_z0 else weights)[:, None] * z0
    # A sample of small weight may have a large coefficient: in a slot that a dominating sample has left.
    step_shares = factor + jnp.abs(coefficient)
    return Step(scale * coefficient[:, None] * along.z, z0, factor, jnp.sum(scores), shares=step_shares)
