r"""The type of a gradient rule. A rule says where the samples move, and what the densities add to the derivative.

The notation follows the paper. Sample `z_j` comes from member `q_j`, and `l[j, i] = log q_i(z_j | z_0)`. The weights
are `w_j`, and the self-normalised weights `wbar_j`. Every rule differentiates

    bound = log sum_j w_j,
    log w_j = log p(x | z_j) + beta * (log p(z_j) + log r(z_0 | z_j) - log q_0(z_0) - l[j, j] + log pi_j(z_j)).

The generative model, the reverse model and a learned weighting always receive the plain gradient
`sum_j wbar_j d log w_j`. Rules differ in how they reach the proposal's parameters: through the samples (*paths*) or
through the densities at fixed samples (*scores*). The plain estimator has scores with weights
`h[j, i] = beta * wbar_j * G[j, i]`, where `G[j, i] = d (log pi_j - l[j, j]) / d l[j, i]`. The generalised
reparameterization identity (Bauer and Mnih, ICML 2021) turns scores into paths without changing the mean, if h, and
with it log_joint, is continuous in z:

    E_Q[h d log q_i(z_j)] = E_Q[(grad_j h + h * (grad_j log Q - grad log q_i)(z_j)) . J_i(z_j) d eta_i],

Here Q is the joint density of the samples (`grad_j log Q = grad log q_j` where they are independent). `J_i(z)` says how
z would move with the parameters of member i if member i had drawn it.

A bound of another order raises the weights to a power s. Its rules are those of the weights `w_j^s`, which have
`s log p(x | z_j)` as likelihood and `s beta` as beta; all of it is divided by s at the end.

A rule is one value, a `Rule`. Each is in a file of its own that derives it, and `registry.py` lists them all.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._assembly.log_pi import log_pi_over_q_of_pairs
from hiwae_jax._assembly.parts import Terms
from hiwae_jax._gradients.needs import Need, Request
from hiwae_jax._proposals.draw import Draw
from hiwae_jax._proposals.members import Members
from hiwae_jax._types import AuxiliarySamples, Parameters, Samples, Scalar


class RuleInputs(NamedTuple):
    """What a rule knows about the K samples of an example.

    Attributes:
      request: proposal, weighting and free bits.
      draw: the samples and what made them.
      tangents: how the arrays of the draw move, as a draw of tangents.
      beta: the warm-up factor, times the power to which the weights are raised.
      members_with_z0: the tangent of the members' parameters along z_0, with all else fixed. None if there is no z_0. A
        rule that moves samples has it only if it follows z_0 and each sample has its own.
      terms: the log-weights.
      weights: the normalised weights [K].
      chunk_size: for how many samples at once arrays of the size of all members are in memory; None for all.
      log_weights_at: `(z [K, D], z0) -> [K]`, the log-weights of other samples from the same members.
    """

    request: Request
    draw: Draw
    tangents: Draw
    beta: Scalar
    members_with_z0: Parameters
    terms: Terms
    weights: Float[Array, " K"]
    chunk_size: int | None
    log_weights_at: Callable[[Samples, AuxiliarySamples], Float[Array, " K"]]

    @property
    def members(self) -> Members:
        """The members of the proposal, which every rule but the plain one needs."""
        members = self.request.proposal.members
        assert members is not None  # `needs_members`
        return members

    @property
    def member_tangents_at_fixed_z0(self) -> Parameters:
        """The tangent of the members' parameters without what a moving z_0 adds to it."""
        tangents = self.tangents.parameters
        if self.members_with_z0 is None:
            return tangents
        return jax.tree.map(jnp.subtract, tangents, self.members_with_z0)

    @property
    def reached_by_beta(self) -> Float[Array, " K"] | float:
        """1 where beta reaches a log-weight, 0 where free bits hold it constant."""
        return 1.0 if self.terms.clipped is None else 1.0 - self.terms.clipped

    def z0_along(self, factor: Float[Array, "K 1"]) -> Float[Array, "K D0"] | None:
        """The direction of z_0: its own path with this factor, the plain path if z_0 is shared, or None without z_0."""
        z0 = self.tangents.z0
        return factor * z0 if z0 is not None and self.members.own_z0 else z0

    def log_pi_over_q(self, parameters: Parameters) -> Float[Array, " K"]:
        """`log pi_j - log q_j` at the samples, as a function of the members' parameters."""
        if self.request.scores_are_constant or not self.request.weighting.compares_densities:
            return -self.members.own_densities(parameters, self.draw.z, self.chunk_size)
        request = self.request
        return log_pi_over_q_of_pairs(request.proposal, request.weighting, parameters, self.draw.z, self.chunk_size)


class Step(NamedTuple):
    """Where a rule moves the samples, and what it adds from the densities.

    Attributes:
      z: the direction [K, D] along which log w_j is differentiated in z_j.
      z0: likewise [K, D0] in z_0, or None.
      weights: the factor [K] of each log-weight's derivative.
      scores: scalar, the whole part of the tangent that does not pass through the generative model.
      draw_weights: [K]. If only some samples have a backward pass, they are drawn in proportion to these; `weights` if
        None.
    """

    z: Float[Array, "K D"]
    z0: Float[Array, "K D0"] | None
    weights: Float[Array, " K"]
    scores: Scalar | float = 0.0
    draw_weights: Float[Array, " K"] | None = None


class Rule(NamedTuple):
    """A gradient estimator of the bound. It does not change the bound's value.

    Attributes:
      name: the name for `gradient=`.
      unbiased: where it is unbiased. This and the next three are the rule's row in the documentation's table.
      cost: time or FLOPs of a step over those of the plain rule.
      noise: how noisy it is.
      when: what to use it for.
      step: the function that says where the samples move.
      needs: what the rule needs of a proposal and weighting.
      scores: whether the densities' parameters move too. If not, densities are differentiated in the samples only.
      follows_z0: whether the path includes a density's dependence on a sample's own z_0 through the members.
      fixes_samples: whether samples stay where they are and all parameters are reached by scores. Then the members'
        parameters are differentiated at a fixed z_0, even a shared one.
      refills: whether every sample is drawn a second time if the weighting compares the members' densities.
      automatic: whether automatic differentiation of the value gives the rule.
    """

    name: str
    unbiased: str
    cost: str
    noise: str
    when: str
    step: Callable[[RuleInputs], Step]
    needs: tuple[Need, ...]
    scores: bool = False
    follows_z0: bool = True
    fixes_samples: bool = False
    refills: bool = False
    automatic: bool = False


def outer_factor(
    log_weights: Float[Array, " K"], weights: Float[Array, " K"]
) -> tuple[Float[Array, " K"], Float[Array, "K 1"]]:
    """The factor of each log-weight's derivative, and its inverse, for directions that have weights of their own.

    The derivative of log w_j is pushed through once, with one factor for everything that moves. If a sample's direction
    is to have another factor, it is divided by this one first. A factor that underflows is raised to a size where it
    does not matter, so that the quotient is finite. A sample of weight zero takes no part.
    """
    least = float(np.finfo(weights.dtype).eps) ** 2
    factor = jnp.where(log_weights == -jnp.inf, 0.0, jnp.maximum(weights, least))
    return factor, (1.0 / jnp.maximum(factor, least))[:, None]


def base_scores(inputs: RuleInputs, score_weights: Float[Array, " K"]) -> Scalar:
    """`sum_j score_weights_j * d log q_0(z_0)` over the parameters of q_0 at fixed z_0."""
    family, z0 = inputs.members.base_family, inputs.draw.z0
    assert family is not None  # there is a z_0
    assert z0 is not None

    def total(base: Parameters) -> Scalar:
        densities = jax.vmap(family.log_prob, in_axes=(None, 0))(base, z0)
        return jnp.sum(score_weights * densities)

    scores: Array = jax.jvp(total, (inputs.draw.base,), (inputs.tangents.base,))[1]
    return scores


def without_clipped_scores(inputs: RuleInputs, step: Step) -> Step:
    """Correct a step for free bits: the weight of a score jumps where they clip, and no path can replace a jump.

    The paths of `step` replace the scores as if there were no free bits. The part that clipping removes is subtracted
    as scores.
    """
    clipped = inputs.terms.clipped
    if clipped is None:
        return step
    lost = -inputs.beta * inputs.weights * clipped
    total = lambda parameters: jnp.sum(lost * inputs.log_pi_over_q(parameters))
    # How the members follow a sample's own z_0 belongs to the path, and stays.
    scores = step.scores + jax.jvp(total, (inputs.draw.parameters,), (inputs.member_tangents_at_fixed_z0,))[1]
    if inputs.tangents.z0 is not None:
        scores += base_scores(inputs, -lost)
    return step._replace(scores=scores)
