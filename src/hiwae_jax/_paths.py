r"""Where the gradient rules send the samples, and what they add from the densities.

The plain estimator has scores with weights `h[j, i] = beta * wbar_j * G[j, i]`, where
`G[j, i] = d (log pi_j - l[j, j]) / d l[j, i]`. The generalised reparameterization identity (Bauer and Mnih, ICML 2021)
turns them into paths without changing the mean,

    E_Q[h d log q_i(z_j)] = E_Q[(grad_j h + h * (grad_j log Q - grad log q_i)(z_j)) . J_i(z_j) d eta_i],

where Q is the joint density of the samples (`grad_j log Q = grad log q_j` where they are independent) and `J_i(z)`
says how z would move with the parameters of member i if member i had drawn it. Here are the rules in which every sample
keeps to its own path; `_cross_paths.py` and `_refilled.py` have those for weightings that compare the members.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._proposal import Members
from hiwae_jax._terms import Terms


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
      shares: [K], what samples are drawn by for a backward pass of some only; `weights` if None.
    """

    z: Any
    z0: Any
    weights: Float[Array, " K"]
    scores: Any = 0.0
    follow_density: Any = None
    shares: Any = None


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


def own_paths(members: Members, operands: Operands, along: Operands, terms: Terms, weights: Float[Array, " K"]) -> Step:
    """Own densities alone are scored, with weight -1: `wbar_j (1 - beta (1 - wbar_j))` on each sample's own path.

    At beta = 1 that is `wbar_j^2` (Tucker et al., 2019).
    """
    factor = 1.0 - operands.beta * (1.0 - weights)[:, None]
    z0 = factor * along.z0 if members.own_z0 else along.z0
    step = Step(factor * along.z, z0, weights, jnp.zeros((), weights.dtype))
    return without_floored_scores(members, operands, along, terms, weights, step, -jnp.ones_like(weights))


def without_floored_scores(
    members: Members,
    operands: Operands,
    along: Operands,
    terms: Terms,
    weights: Float[Array, " K"],
    step: Step,
    score_weights: Float[Array, "..."],
) -> Step:
    """Free bits: the weight of a score jumps where the floor takes hold, and no path can replace a jump.

    The paths of `step` stand for the scores without a floor; what the floor takes away is taken away as scores.
    """
    if terms.clipped is None:
        return step
    lost = -operands.beta * weights * terms.clipped
    lost_scores = (lost if score_weights.ndim == 1 else lost[:, None]) * score_weights
    scores = step.scores + _member_scores(members, operands, along, lost_scores)
    if along.z0 is not None:
        scores += base_scores(members, operands, along, -lost)
    follow = step.follow_density
    if members.own_z0:
        follow = -lost_scores if follow is None else follow - lost_scores
    return step._replace(scores=scores, follow_density=follow)


def outer_factor(
    log_weights: Float[Array, " K"], weights: Float[Array, " K"]
) -> tuple[Float[Array, " K"], Float[Array, "K 1"]]:
    """The factor of each log-weight's derivative, and its inverse, for directions that have weights of their own.

    The derivative of log w_j is pushed through once, with one factor for all that moves; what a sample's direction is
    to have instead is divided by it. A factor that underflows is lifted to where it does not matter, so that the
    quotient is finite. A sample of weight zero takes no part.
    """
    least = float(np.finfo(weights.dtype).eps) ** 2
    factor = jnp.where(log_weights == -jnp.inf, 0.0, jnp.maximum(weights, least))
    return factor, (1.0 / jnp.maximum(factor, least))[:, None]


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
