r"""Gradient estimators: one value, and a rule for the tangent of the proposal's parameters.

Notation, after the paper: sample `z_j` comes from member `q_j`; `l[j, i] = log q_i(z_j | z_0)`; `w_j` are the weights,
`wbar_j` the self-normalised ones. Every rule here differentiates

    bound = log sum_j w_j,
    log w_j = log p(x | z_j) + beta * (log p(z_j) + log r(z_0 | z_j) - log q_0(z_0) - l[j, j] + log pi_j(z_j))

The generative model and the reverse model always receive the plain gradient `sum_j wbar_j d log w_j`. What differs is
how the proposal's parameters are reached: through the samples (*paths*) or through the densities (*scores*).

Scores have weights `h[j, i] = beta * wbar_j * G[j, i]`, `G = d (log pi_j - l[j, j]) / d l[j, i]`. The generalised
reparameterization identity (Bauer and Mnih, ICML 2021) turns them into paths without changing the mean,

    E_{z_j ~ q_j}[h d log q_i(z_j)] = E[(grad h + h * (grad log q_j - grad log q_i))(z_j) . J_i(z_j) d eta_i],

where `J_i(z)` says how z would move with the parameters of member i if member i had drawn it. Since
`grad_z wbar_j = wbar_j (1 - wbar_j) grad log w_j`, the expensive gradient of log w_j appears once, along the direction
`sum_i M[j, i] J_i(z_j) d eta_i` with `M = I + beta (1 - wbar_j) G`; all else is arithmetic on densities.

The direction depends on the weights, hence on the value. Each rule therefore linearizes the log-weights once and pushes
its own direction through: one forward and one backward pass of the generative model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from hiwae_jax._bounds import log_sum_exp, normalized_weights, weighted_tangent
from hiwae_jax._proposals import Draw, Proposal
from hiwae_jax._weightings import Weighting, density_score_weights, log_partition

GRADIENTS = ("reparameterized", "doubly_reparameterized", "path_squared", "authors")


class Terms(NamedTuple):
    """What the log-weights of K samples are made of.

    Attributes:
      log_weights: [K], mixing weight included.
      densities: `l[j, i]` [K, K], or only the diagonal [K] where the weighting is uniform.
      clipped: [K], 1 where free bits hold the bracket of sample j and beta does not reach it; None without free bits.
    """

    log_weights: Float[Array, " K"]
    densities: Float[Array, "..."]
    clipped: Float[Array, " K"] | None


Evaluate = Callable[[Any, Any, Any, Any], Terms]  # (z, z0, base, members) -> Terms


class _Operands(NamedTuple):
    """Everything through which the bound may be differentiated, besides the captured arrays of the model."""

    members: Any
    base: Any
    z0: Any
    z: Any
    noise: Any


def reparameterized(evaluate: Evaluate, draw: Draw) -> Float[Array, ""]:
    """The plain pathwise estimator: differentiate everything. Unbiased for every proposal and weighting."""
    return log_sum_exp(evaluate(draw.z, draw.z0, draw.base, draw.members).log_weights, -1)


def with_path_rule(
    evaluate: Evaluate,
    proposal: Proposal,
    weighting: Weighting,
    draw: Draw,
    *,
    beta: Float[Array, ""],
    gradient: str,
    frozen_params: tuple[Any, Any],
) -> Float[Array, ""]:
    """The same value as `reparameterized`, differentiated by the rule that `gradient` names.

    Args:
      evaluate: the log-weights as a function of samples and density parameters.
      proposal: as given to `make_bound`.
      weighting: as given to `make_bound`.
      draw: the samples and what made them.
      beta: the warm-up factor.
      gradient: a member of `GRADIENTS` besides "reparameterized".
      frozen_params: `(params, context)`, both stopped: with a z_0 of its own for each sample, the densities still
        depend on z_0 through the members, and that dependence belongs to the path.
    """
    fixed = jax.lax.stop_gradient(draw)
    follow_z0 = not proposal.shared and gradient != "authors"

    def terms_at(z: Any, z0: Any) -> Terms:
        members = proposal.members_at(*frozen_params, z0) if follow_z0 else fixed.members
        return evaluate(z, z0, fixed.base, members)

    # Whatever the model closes over becomes an argument, so that its derivative is seen.
    terms_at, captured = jax.closure_convert(terms_at, fixed.z, fixed.z0)

    @jax.custom_jvp
    def bound(operands: _Operands, captured: list[Any]) -> Float[Array, ""]:
        return log_sum_exp(terms_at(operands.z, operands.z0, *captured).log_weights, -1)

    def rule(primals: Any, tangents: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        operands, captured = primals
        # Arrays without a tangent (the data, stopped parameters) are constants here, not zeros to multiply.
        active = [i for i, tangent in enumerate(tangents[1]) if not isinstance(tangent, SymbolicZero)]

        def terms_of(z: Any, z0: Any, *moving: Any) -> Terms:
            arrays = list(captured)
            for i, array in zip(active, moving, strict=True):
                arrays[i] = array
            return terms_at(z, z0, *arrays)

        terms, push = jax.linearize(terms_of, operands.z, operands.z0, *(captured[i] for i in active))
        along = jax.tree.map(_instantiate, tangents[0], operands)
        moving = [tangents[1][i] for i in active]
        weights = normalized_weights(terms.log_weights)
        step = _step(gradient, proposal, weighting, operands, along, terms, weights, beta)
        pushed = push(step.z, step.z0, *moving)
        tangent = weighted_tangent(weights, pushed.log_weights) + step.scores
        if step.follow_density is not None:
            # How the densities move with a sample's own z_0 while z stays. Nothing of the generative model is in it.
            still = jax.tree.map(jnp.zeros_like, (step.z, moving))
            tangent += jnp.sum(step.follow_density * push(still[0], along.z0, *still[1]).densities)
        return log_sum_exp(terms.log_weights, -1), tangent

    bound.defjvp(rule, symbolic_zeros=True)
    operands = _Operands(draw.members, draw.base, draw.z0, fixed.z, fixed.noise)
    return bound(operands, captured)


class _Step(NamedTuple):
    """Where a rule sends the samples, and what it adds from the densities.

    Attributes:
      z: the direction [K, D] along which log w_j is differentiated in z_j.
      z0: likewise [K, D0] in z_0, or None.
      scores: scalar, all of the tangent that does not pass through the generative model.
      follow_density: [K, K] or [K] weights of the densities' dependence on each sample's own z_0, or None.
    """

    z: Any
    z0: Any
    scores: Float[Array, ""]
    follow_density: Any


def _step(
    gradient: str,
    proposal: Proposal,
    weighting: Weighting,
    operands: _Operands,
    along: _Operands,
    terms: Terms,
    weights: Float[Array, " K"],
    beta: Float[Array, ""],
) -> _Step:
    own_path = _own_path(proposal, operands, along)
    nothing = jnp.zeros((), weights.dtype)

    if gradient in ("path_squared", "authors"):
        z = weights[:, None] * own_path
        if gradient == "path_squared" or along.z0 is None:
            z0 = along.z0 if proposal.shared else weights[:, None] * along.z0
            return _Step(z, z0, nothing, None)
        through = 1.0 if terms.clipped is None else 1.0 - terms.clipped
        score = _base_scores(proposal, operands, along, -beta * through * weights**2)
        return _Step(z, weights[:, None] * along.z0, score, None)

    constant = proposal.equal_members or weighting.alpha == 0.0
    own_factor = 1.0 - beta * (1.0 - weights)
    z0 = along.z0 if proposal.shared else own_factor[:, None] * along.z0
    if constant:
        score_weights = -jnp.ones_like(weights)
        z, scores, follow = own_factor[:, None] * own_path, nothing, None
    else:
        partition = jnp.exp(log_partition(weighting, terms.densities))
        score_weights = density_score_weights(weighting.alpha, partition)
        z, scores, follow = _cross_paths(
            proposal,
            weighting.alpha,
            operands,
            along,
            terms.densities,
            partition,
            score_weights,
            weights,
            beta,
        )
    if terms.clipped is None:
        return _Step(z, z0, scores, follow)

    # Free bits: the weight of a score jumps where the floor takes hold, and no path can replace a jump. The paths above
    # stand for the scores without a floor; what the floor takes away is taken away as scores.
    lost = -beta * weights * terms.clipped
    lost_scores = (lost if constant else lost[:, None]) * score_weights
    scores += _member_scores(proposal, operands, along, lost_scores)
    if along.z0 is not None:
        scores += _base_scores(proposal, operands, along, -lost)
    if not proposal.shared:
        follow = -lost_scores if follow is None else follow - lost_scores
    return _Step(z, z0, scores, follow)


def _own_path(proposal: Proposal, operands: _Operands, along: _Operands) -> Float[Array, "K D"]:
    """`J_j(z_j) d eta_j`: how each sample moves with the member that drew it."""

    def samples(members: Any) -> Float[Array, "K D"]:
        own, axis = proposal.own_members(members)
        return jax.vmap(proposal.family.forward, in_axes=(axis, 0))(own, operands.noise)

    path: jax.Array = jax.jvp(samples, (operands.members,), (along.members,))[1]
    return path


def _cross_paths(
    proposal: Proposal,
    alpha: float,
    operands: _Operands,
    along: _Operands,
    densities: Float[Array, "K K"],
    partition: Float[Array, "K K"],
    score_weights: Float[Array, "K K"],
    weights: Float[Array, " K"],
    beta: Float[Array, ""],
) -> tuple[Float[Array, "K D"], Float[Array, ""], Float[Array, "K K"] | None]:
    """Direction of the samples, density corrections and their dependence on z_0, under a weighting that is not uniform.

    A control variate of mean zero is included: `sum_j E_{q_j}[rho_i(z_j) d log q_i(z_j)] = 0` for `rho` the balance
    heuristic, and `E_{q_i}[d log q_i(z_i)] = 0`. It makes every term vanish where the weights are equal and the
    integrand is flat.
    """
    K = weights.shape[0]
    identity = jnp.eye(K, dtype=weights.dtype)
    balance = jax.nn.softmax(densities, axis=-1)
    own_weights = (beta * weights)[:, None]
    per_sample = beta / K

    direction = identity + beta * (1.0 - weights)[:, None] * score_weights
    score = own_weights * score_weights + per_sample * (alpha * balance - (alpha - 1.0) * identity)
    # B[j, i] = score (s_j - s_i) - alpha beta wbar_j grad pi_i + alpha beta / K grad rho_i, in terms of the gradients
    # s_m = grad_z l[j, m] and their means under pi and rho.
    from_own = score
    from_other = -score - alpha**2 * own_weights * partition + alpha * per_sample * balance
    from_partition = alpha**2 * own_weights * partition
    from_balance = -alpha * per_sample * balance

    def moved(member: Any, tangent: Any, z: Float[Array, " D"]) -> Float[Array, " D"]:
        noise = proposal.family.inverse(member, z)
        move: jax.Array = jax.jvp(lambda eta: proposal.family.forward(eta, noise), (member,), (tangent,))[1]
        return move

    pairs = proposal.over_pairs
    moves = pairs(lambda both, z: moved(both[0], both[1], z), (operands.members, along.members), operands.z)
    slopes = pairs(jax.grad(proposal.family.log_prob, argnums=1), operands.members, operands.z)
    own, _ = proposal.own_members(operands.members)
    own_slope = jax.vmap(jax.grad(proposal.family.log_prob, argnums=1))(own, operands.z)
    partition_slope = jnp.sum(partition[..., None] * slopes, axis=1)
    balance_slope = jnp.sum(balance[..., None] * slopes, axis=1)

    z = jnp.sum(direction[..., None] * moves, axis=1)
    correction = from_other[..., None] * slopes
    correction += from_own[..., None] * own_slope[:, None]
    correction += from_partition[..., None] * partition_slope[:, None]
    correction += from_balance[..., None] * balance_slope[:, None]
    scores = jnp.sum(correction * moves)
    if proposal.shared:
        return z, scores, None
    follow = from_other + identity * jnp.sum(from_own, axis=1, keepdims=True)
    follow += partition * jnp.sum(from_partition, axis=1, keepdims=True)
    follow += balance * jnp.sum(from_balance, axis=1, keepdims=True)
    return z, scores, follow


def _member_scores(
    proposal: Proposal, operands: _Operands, along: _Operands, score_weights: Float[Array, "..."]
) -> Float[Array, ""]:
    """`sum score_weights * d l` over the members' parameters at fixed samples; weights [K] are for own densities."""

    def total(members: Any) -> Float[Array, ""]:
        if score_weights.ndim == 1:
            densities = proposal.own_densities(members, operands.z)
        else:
            densities = proposal.over_pairs(proposal.family.log_prob, members, operands.z)
        return jnp.sum(score_weights * densities)

    scores: jax.Array = jax.jvp(total, (operands.members,), (along.members,))[1]
    return scores


def _base_scores(
    proposal: Proposal, operands: _Operands, along: _Operands, score_weights: Float[Array, " K"]
) -> Float[Array, ""]:
    """`sum_j score_weights_j * d log q_0(z_0)` over the parameters of q_0 at fixed z_0."""

    def total(base: Any) -> Float[Array, ""]:
        densities = jax.vmap(proposal.base_family.log_prob, in_axes=(None, 0))(base, operands.z0)
        return jnp.sum(score_weights * densities)

    scores: jax.Array = jax.jvp(total, (operands.base,), (along.base,))[1]
    return scores


def _instantiate(tangent: Any, primal: Any) -> Any:
    return jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent
