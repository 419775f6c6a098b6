r"""Where the gradient rules send the samples, and what they add from the densities.

The plain estimator has scores with weights `h[j, i] = beta * wbar_j * G[j, i]`, where
`G[j, i] = d (log pi_j - l[j, j]) / d l[j, i]`. The generalised reparameterization identity (Bauer and Mnih, ICML 2021)
turns them into paths without changing the mean, where h, and with it log_joint, is continuous in z,

    E_Q[h d log q_i(z_j)] = E_Q[(grad_j h + h * (grad_j log Q - grad log q_i)(z_j)) . J_i(z_j) d eta_i],

where Q is the joint density of the samples (`grad_j log Q = grad log q_j` where they are independent) and `J_i(z)`
says how z would move with the parameters of member i if member i had drawn it. Here are the rules in which every sample
keeps to its own path; `cross_paths.py` and `refilled.py` have those for weightings that compare the members.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._assembly import Terms
from hiwae_jax._proposals.proposal import Members


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


class Rows(NamedTuple):
    """What a rule knows of the K samples.

    Attributes:
      operands: the primals.
      along: their tangents.
      members_with_z0: the tangent of the members' parameters with each sample's own z_0, all else fixed; None where z_0
        is shared, or there is none.
      terms: the log-weights.
      weights: the normalised weights [K].
      chunk_size: for how many samples what is of the size of all members is in memory at once; None for all.
    """

    operands: Operands
    along: Operands
    members_with_z0: Any
    terms: Terms
    weights: Float[Array, " K"]
    chunk_size: int | None


class Step(NamedTuple):
    """Where a rule sends the samples, and what it adds from the densities.

    Attributes:
      z: the direction [K, D] along which log w_j is differentiated in z_j.
      z0: likewise [K, D0] in z_0, or None.
      weights: the factor [K] of each log-weight's derivative.
      scores: scalar, all of the tangent that does not pass through the generative model.
      shares: [K], what samples are drawn by for a backward pass of some only; `weights` if None.
    """

    z: Any
    z0: Any
    weights: Float[Array, " K"]
    scores: Any = 0.0
    shares: Any = None


def plain(rows: Rows) -> Step:
    """Every sample along its path; the densities' parameters move too."""
    return Step(rows.along.z, rows.along.z0, rows.weights)


def path_squared(members: Members, rows: Rows) -> Step:
    """Own paths with squared weights, and no scores; a shared z_0 keeps its plain path."""
    along, weights = rows.along, rows.weights
    z0 = weights[:, None] * along.z0 if members.own_z0 else along.z0
    return Step(weights[:, None] * along.z, z0, weights)


def authors(members: Members, rows: Rows) -> Step:
    """Squared weights for all of the proposal: paths, shared z_0 and the score of q_0, which stays."""
    along, weights = rows.along, rows.weights
    z = weights[:, None] * along.z
    if along.z0 is None:
        return Step(z, None, weights)
    through = 1.0 if rows.terms.clipped is None else 1.0 - rows.terms.clipped
    scores = base_scores(members, rows, -rows.operands.beta * through * weights**2)
    return Step(z, weights[:, None] * along.z0, weights, scores)


def own_paths(members: Members, rows: Rows) -> Step:
    """Own densities alone are scored, with weight -1: `wbar_j (1 - beta (1 - wbar_j))` on each sample's own path.

    At beta = 1 that is `wbar_j^2` (Tucker et al., 2019).
    """
    along, weights = rows.along, rows.weights
    factor = 1.0 - rows.operands.beta * (1.0 - weights)[:, None]
    z0 = factor * along.z0 if members.own_z0 else along.z0
    step = Step(factor * along.z, z0, weights, jnp.zeros((), weights.dtype))
    z = rows.operands.z
    return without_floored_scores(members, rows, step, lambda parameters: -members.own_densities(parameters, z))


def without_floored_scores(
    members: Members, rows: Rows, step: Step, shares: Callable[[Any], Float[Array, " K"]]
) -> Step:
    """Free bits: the weight of a score jumps where the floor takes hold, and no path can replace a jump.

    The paths of `step` stand for the scores without a floor; what the floor takes away is taken away as scores.

    Args:
      members: as the proposal has them.
      rows: the samples.
      step: what a rule makes of them without a floor.
      shares: `log pi_j - log q_j` [K] at fixed samples, as a function of the members' parameters.
    """
    if rows.terms.clipped is None:
        return step
    lost = -rows.operands.beta * rows.weights * rows.terms.clipped
    tangents = rows.along.members
    if rows.members_with_z0 is not None:
        # How the members follow a sample's own z_0 is of the path, and stays.
        tangents = jax.tree.map(jnp.subtract, tangents, rows.members_with_z0)
    total = lambda parameters: jnp.sum(lost * shares(parameters))
    scores = step.scores + jax.jvp(total, (rows.operands.members,), (tangents,))[1]
    if rows.along.z0 is not None:
        scores += base_scores(members, rows, -lost)
    return step._replace(scores=scores)


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


def base_scores(members: Members, rows: Rows, score_weights: Float[Array, " K"]) -> Float[Array, ""]:
    """`sum_j score_weights_j * d log q_0(z_0)` over the parameters of q_0 at fixed z_0."""
    family = members.base_family
    assert family is not None  # there is a z_0

    def total(base: Any) -> Float[Array, ""]:
        densities = jax.vmap(family.log_prob, in_axes=(None, 0))(base, rows.operands.z0)
        return jnp.sum(score_weights * densities)

    scores: jax.Array = jax.jvp(total, (rows.operands.base,), (rows.along.base,))[1]
    return scores
