r"""Own paths for a mixture whose members are picked in dependence on one another.

Sample j is weighed with the mixture `q = (1/m) sum_i q_i` of the m members present. Its score has weight
`-beta h_j(z_j)`, where `h_j(z) = w(z) / (w(z) + sum_{k != j} w_k)`, and falls to the members by their shares
`rho_i = q_i / sum_l q_l`: `d log q = sum_i rho_i d log q_i`. A point weighs the same in every slot.

Given the picks of the others, sample j has the density `s_j`, proportional to `sum_i own_ji q_i` (`Slots`). For sets
without replacement these are the members that no other sample has; for strata those of stratum j. Their part of the
score, with `r_j = sum_i own_ji rho_i`, is that of the density drawn from, whose path is that of the member picked:

    E[h_j r_j d log s_j(z_j)] = E[grad(h_j r_j)(z_j) . J_own(z_j) d eta].

The rest falls to the members of the other samples, `d log q - r_j d log s_j = sum_k pairs_jk D_k` with
`D_k = sum_i lent_ki rho_i d log q_i`, and `s_k` proportional to `sum_i lent_ki q_i`. As in `cross_paths.py`, let
h0_jk(z_j) be h_j with a phantom in slot k, the mean of the weights that are known without z_k. Slot k is empty, and z_k
can take the place of z_j:

    E[h0_jk(z_j) D_k(z_j)] = E[grad(kappa_jk h0_jk)(z_k) . J_own(z_k) d eta],
    kappa_jk = s_j sum_i lent_ki q_i / (s_k sum_l q_l) = r_j sum_i lent_ki / sum_i own_ji.

What remains, `(h_j - h0_jk) pairs_jk D_k(z_j)`, stays a score. All of this holds for `h_j - 1/K` and `h0_jk - 1/K` too,
since `E sum_j d log q(z_j) = K E_q[d log q] = 0`. These are used, so that everything but `grad log w` vanishes where
the weights are equal. There are no cross paths: a member that nobody has picked may be far from every sample.

If the picks are independent, `own` is one for every member and nothing remains: the rule of `own_paths.py`. If each of
K = M members has one sample, r_j is the balance heuristic. docs/gradients.md has the derivation.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hiwae_jax._families.pairs import Own
from hiwae_jax._families.shared import over_samples
from hiwae_jax._gradients.leave_out import Index, leave_two_out
from hiwae_jax._gradients.rule import RuleInputs, Step, outer_factor, without_clipped_scores
from hiwae_jax._proposals.picks import Slots
from hiwae_jax._types import Parameters, Scalar


class _Sample(NamedTuple):
    """What belongs to sample j.

    Attributes:
      slot: j.
      owner: the member that drew it.
      owner_tangent: how that member's parameters move.
      z: the sample [D].
      z_tangent: how it moves on its own path.
    """

    slot: Int[Array, ""]
    owner: Own
    owner_tangent: Parameters
    z: Float[Array, " D"]
    z_tangent: Float[Array, " D"]


def picked_paths_step(inputs: RuleInputs) -> Step:
    """Own paths, with phantoms in place of the samples whose members are scored, and the scores that remain."""
    members, draw, tangents = inputs.members, inputs.draw, inputs.tangents
    samples = _Sample(
        jnp.arange(len(inputs.weights)),
        members.owners(draw.parameters),
        members.own(draw.parameters._replace(rows=tangents.parameters.rows))[0],
        draw.z,
        tangents.z,
    )
    coefficients, scores = _moves(inputs, samples)
    factor, scale = outer_factor(inputs.terms.log_weights, inputs.weights)
    z = scale * coefficients[:, None] * tangents.z
    step = Step(z, None, factor, jnp.sum(scores), draw_weights=factor + jnp.abs(coefficients))
    return without_clipped_scores(inputs, step)


def _moves(inputs: RuleInputs, samples: _Sample) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    """For each sample: the factor on its path, and what the densities add."""
    members, parameters, weights = inputs.members, inputs.draw.parameters, inputs.weights
    assert members.slots is not None  # otherwise the rule of own paths is used
    slots: Slots = members.slots(parameters, weights.dtype)
    own_size, lent_size = jnp.sum(slots.own, axis=1), jnp.sum(slots.lent, axis=1)
    per_own_size = 1.0 / jnp.where(own_size == 0.0, 1.0, own_size)
    mean = 1.0 / len(weights)  # of the weights; the part of the scores that has this weight has mean zero
    log_prob, present = members.pairs().log_prob, parameters.taking_part
    with_phantom = _with_phantom(inputs.terms.log_weights)

    def of_one(rows: Parameters, tangent_rows: Parameters, sample: _Sample) -> tuple[Scalar, Scalar]:
        j, h = sample.slot, weights[sample.slot]
        log_q, log_q_moved = jax.jvp(lambda z: log_prob(rows, z, sample.owner), (sample.z,), (sample.z_tangent,))
        rho = jax.nn.softmax(jnp.where(present, log_q, -jnp.inf), where=present)
        rho_moved = rho * (log_q_moved - jnp.sum(rho * log_q_moved))
        r, r_moved = slots.own @ rho, slots.own @ rho_moved  # r_k at this sample, for every k
        h0, h0_slope = with_phantom(j)

        # This sample in its own slot, and in those of the others.
        per_r = slots.pairs[:, j] * lent_size[j] * per_own_size  # kappa_kj over r_k
        along_path = h * (1.0 - h) * r[j] + jnp.sum(per_r * r * h0_slope)
        of_densities = (h - mean) * r_moved[j] + jnp.sum(per_r * r_moved * (h0 - mean))

        # What remains of the scores at this sample.
        remaining = ((slots.pairs[j] * (h - h0)) @ slots.lent) * rho
        of_members = lambda rows, owner: log_prob(rows, sample.z, sample.owner._replace(parameters=owner))
        scored = jax.jvp(of_members, (rows, sample.owner.parameters), (tangent_rows, sample.owner_tangent))[1]
        return h - inputs.beta * along_path, -inputs.beta * (of_densities + jnp.sum(remaining * scored))

    return over_samples(
        lambda sample: of_one(parameters.rows, inputs.tangents.parameters.rows, sample), samples, inputs.chunk_size
    )


def _with_phantom(log_weights: Float[Array, " K"]) -> Callable[[Index], tuple[Float[Array, " K"], Float[Array, " K"]]]:
    """`row(j) -> (h0_jk, h0_slope_jk)` for every k, such that `grad h0_jk = h0_slope_jk grad log w`.

    With the phantom, `h0_jk = (1 - 1/K) w_j / (w_j + sum_{l not in {j, k}} w_l)`.
    """
    without, part = leave_two_out(log_weights), 1.0 - 1.0 / len(log_weights)

    def row(j: Index) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
        shift, total = without(j)
        log_rest = shift + jnp.log(total)
        odds = log_weights[j] - jnp.where(log_rest == -jnp.inf, 0.0, log_rest)
        share = jnp.where(log_rest == -jnp.inf, 1.0, jax.nn.sigmoid(odds))
        share = jnp.where(log_weights[j] == -jnp.inf, 0.0, share)
        return part * share, part * share * (1.0 - share)

    return row
