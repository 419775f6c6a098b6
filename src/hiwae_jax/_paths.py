r"""Where the gradient rules send the samples, and what they add from the densities.

The plain estimator has scores with weights `h[j, i] = beta * wbar_j * G[j, i]`, where
`G[j, i] = d (log pi_j - l[j, j]) / d l[j, i]`. The generalised reparameterization identity (Bauer and Mnih, ICML 2021)
turns them into paths without changing the mean,

    E_Q[h d log q_i(z_j)] = E_Q[(grad_j h + h * (grad_j log Q - grad log q_i)(z_j)) . J_i(z_j) d eta_i],

where Q is the joint density of the samples (`grad_j log Q = grad log q_j` where they are independent) and `J_i(z)`
says how z would move with the parameters of member i if member i had drawn it. Since
`grad_j wbar_j = wbar_j (1 - wbar_j) grad log w_j`, the expensive gradient of log w_j appears once, along the sample's
own path plus `beta (1 - wbar_j) sum_i G[j, i] J_i(z_j) d eta_i`; all else is arithmetic on densities.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax._proposal import Members
from hiwae_jax._terms import Terms
from hiwae_jax._weightings import density_score_weights


class Operands(NamedTuple):
    """Everything through which the bound may be differentiated, besides the captured arrays of the model."""

    members: Any
    base: Any
    z0: Any
    z: Any
    joint: Any
    refill: Any
    beta: Any
    uniform: Any


class Step(NamedTuple):
    """Where a rule sends the samples, and what it adds from the densities.

    Attributes:
      z: the direction [K, D] along which log w_j is differentiated in z_j.
      z0: likewise [K, D0] in z_0, or None.
      weights: the factor [K] of each log-weight's derivative.
      scores: scalar, all of the tangent that does not pass through the generative model.
      follow_density: [K, K] or [K] weights of the densities' dependence on each sample's own z_0, or None.
    """

    z: Any
    z0: Any
    weights: Float[Array, " K"]
    scores: Any = 0.0
    follow_density: Any = None


def plain(along: Operands, weights: Float[Array, " K"]) -> Step:
    """Every sample along its path; the densities' parameters move too."""
    return Step(along.z, along.z0, weights)


def path_squared(members: Members, along: Operands, weights: Float[Array, " K"]) -> Step:
    """Own paths with squared weights, and no scores; a shared z_0 keeps its plain path."""
    z0 = weights[:, None] * along.z0 if members.own_z0 else along.z0
    return Step(weights[:, None] * along.z, z0, weights)


def authors(members: Members, operands: Operands, along: Operands, terms: Terms, weights: Float[Array, " K"]) -> Step:
    """Squared weights for all of the proposal: paths, shared z_0 and the score of q_0, which stays."""
    z = weights[:, None] * along.z
    if along.z0 is None:
        return Step(z, None, weights)
    through = 1.0 if terms.clipped is None else 1.0 - terms.clipped
    scores = base_scores(members, operands, along, -operands.beta * through * weights**2)
    return Step(z, weights[:, None] * along.z0, weights, scores)


def doubly_reparameterized(
    members: Members,
    alpha: float,
    operands: Operands,
    along: Operands,
    terms: Terms,
    weights: Float[Array, " K"],
    *,
    constant: bool,
) -> Step:
    """All scores as paths: unbiased for every weighting. `constant`: only own densities are scored, with weight -1."""
    beta = operands.beta
    own_factor = 1.0 - beta * (1.0 - weights)
    z0 = own_factor[:, None] * along.z0 if members.own_z0 else along.z0
    if constant:
        score_weights = -jnp.ones_like(weights)
        z, scores, follow = own_factor[:, None] * along.z, jnp.zeros((), weights.dtype), None
    else:
        densities = terms.densities
        if densities.ndim == 1:  # the uniform weighting of correlated samples
            densities = members.pair_densities(operands.members, operands.z)
        partition = jax.nn.softmax(alpha * densities, axis=-1)
        score_weights = density_score_weights(alpha, partition)
        z, scores, follow = _cross_paths(members, alpha, operands, along, densities, partition, score_weights, weights)
    if terms.clipped is None:
        return Step(z, z0, weights, scores, follow)

    # Free bits: the weight of a score jumps where the floor takes hold, and no path can replace a jump. The paths above
    # stand for the scores without a floor; what the floor takes away is taken away as scores.
    lost = -beta * weights * terms.clipped
    lost_scores = (lost if constant else lost[:, None]) * score_weights
    scores += _member_scores(members, operands, along, lost_scores)
    if along.z0 is not None:
        scores += base_scores(members, operands, along, -lost)
    if members.own_z0:
        follow = -lost_scores if follow is None else follow - lost_scores
    return Step(z, z0, weights, scores, follow)


def _cross_paths(
    members: Members,
    alpha: float,
    operands: Operands,
    along: Operands,
    densities: Float[Array, "K K"],
    partition: Float[Array, "K K"],
    score_weights: Float[Array, "K K"],
    weights: Float[Array, " K"],
) -> tuple[Float[Array, "K D"], Float[Array, ""], Float[Array, "K K"] | None]:
    """Direction of the samples, density corrections and their dependence on z_0, where scores reach all pairs.

    A control variate of mean zero is included: `sum_j E_{q_j}[rho_i(z_j) d log q_i(z_j)] = 0` for `rho` the balance
    heuristic, and `E_{q_i}[d log q_i(z_i)] = 0`. It makes every term vanish where the weights are equal and the
    integrand is flat.
    """
    K, beta = weights.shape[0], operands.beta
    identity = jnp.eye(K, dtype=weights.dtype)
    balance = jax.nn.softmax(densities, axis=-1)
    own_weights = (beta * weights)[:, None]
    per_sample = beta / K

    direction = beta * (1.0 - weights)[:, None] * score_weights
    score = own_weights * score_weights + per_sample * (alpha * balance - (alpha - 1.0) * identity)
    # B[j, i] = score (grad_j log Q - s_i) - alpha beta wbar_j grad pi_i + alpha beta / K grad rho_i, in terms of the
    # gradients s_m = grad_z l[j, m] and their means under pi and rho.
    from_own = score
    from_other = -score - alpha**2 * own_weights * partition + alpha * per_sample * balance
    from_partition = alpha**2 * own_weights * partition
    from_balance = -alpha * per_sample * balance

    def moved(member: Any, tangent: Any, z: Float[Array, " D"]) -> Float[Array, " D"]:
        noise = members.family.inverse(member, z)
        move: jax.Array = jax.jvp(lambda eta: members.family.forward(eta, noise), (member,), (tangent,))[1]
        return move

    slope = jax.grad(members.family.log_prob, argnums=1)
    moves = members.over_pairs(
        lambda both, z: moved(both[0], both[1], z), (operands.members, along.members), operands.z
    )
    slopes = members.over_pairs(slope, operands.members, operands.z)
    if members.joint_log_prob is None:
        own, _ = members.own(operands.members)
        own_slope = jax.vmap(slope)(own, operands.z)
    else:
        own_slope = jax.grad(members.joint_log_prob, argnums=1)(operands.joint, operands.z)
    partition_slope = jnp.sum(partition[..., None] * slopes, axis=1)
    balance_slope = jnp.sum(balance[..., None] * slopes, axis=1)

    z = along.z + jnp.sum(direction[..., None] * moves, axis=1)
    correction = from_other[..., None] * slopes
    correction += from_own[..., None] * own_slope[:, None]
    correction += from_partition[..., None] * partition_slope[:, None]
    correction += from_balance[..., None] * balance_slope[:, None]
    scores = jnp.sum(correction * moves)
    if not members.own_z0:
        return z, scores, None
    follow = from_other + identity * jnp.sum(from_own, axis=1, keepdims=True)
    follow += partition * jnp.sum(from_partition, axis=1, keepdims=True)
    follow += balance * jnp.sum(from_balance, axis=1, keepdims=True)
    return z, scores, follow


def _member_scores(
    members: Members, operands: Operands, along: Operands, score_weights: Float[Array, "..."]
) -> Float[Array, ""]:
    """`sum score_weights * d l` over the members' parameters at fixed samples; weights [K] are for own densities."""

    def total(parameters: Any) -> Float[Array, ""]:
        densities = members.own_densities if score_weights.ndim == 1 else members.pair_densities
        return jnp.sum(score_weights * densities(parameters, operands.z))

    scores: jax.Array = jax.jvp(total, (operands.members,), (along.members,))[1]
    return scores


def base_scores(
    members: Members, operands: Operands, along: Operands, score_weights: Float[Array, " K"]
) -> Float[Array, ""]:
    """`sum_j score_weights_j * d log q_0(z_0)` over the parameters of q_0 at fixed z_0."""
    family = members.base_family
    assert family is not None  # there is a z_0

    def total(base: Any) -> Float[Array, ""]:
        densities = jax.vmap(family.log_prob, in_axes=(None, 0))(base, operands.z0)
        return jnp.sum(score_weights * densities)

    scores: jax.Array = jax.jvp(total, (operands.base,), (along.base,))[1]
    return scores
