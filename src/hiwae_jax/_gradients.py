r"""Gradient estimators: one value, and a rule for the tangent of the proposal's parameters.

Notation, after the paper: sample `z_j` comes from member `q_j`; `l[j, i] = log q_i(z_j | z_0)`; `w_j` are the weights,
`wbar_j` the self-normalised ones. Every rule here differentiates

    bound = log sum_j w_j,
    log w_j = log p(x | z_j) + beta * (log p(z_j) + log r(z_0 | z_j) - log q_0(z_0) - l[j, j] + log pi_j(z_j))

The generative model, the reverse model and a learned weighting always receive the plain gradient
`sum_j wbar_j d log w_j`. What differs is how the proposal's parameters are reached: through the samples (*paths*) or
through the densities (*scores*). `_paths.py`, `_cross_paths.py` and `_refilled.py` say where a rule sends the samples.

That direction depends on the weights, hence on the value. A rule therefore linearizes the log-weights once and pushes
its own direction through: one forward and one backward pass of the generative model.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from hiwae_jax._bounds import log_sum_exp, normalized_weights, weighted_tangent
from hiwae_jax._cross_paths import cross_paths
from hiwae_jax._paths import Operands, Rows, Step, authors, own_paths, path_squared, plain
from hiwae_jax._proposal import Draw, Proposal, over_samples
from hiwae_jax._refilled import refilled
from hiwae_jax._resampling import systematic_indices
from hiwae_jax._terms import Evaluation, Terms, log_shares
from hiwae_jax._weightings import Weighting

GRADIENTS = ("reparameterized", "doubly_reparameterized", "refilled", "path_squared", "authors")


class Backward(NamedTuple):
    """A backward pass of the generative model for some of the samples only.

    Attributes:
      num_samples: M, how many are drawn by their weights.
      uniform: the number in [0, 1) that draws them.
    """

    num_samples: int
    uniform: Float[Array, ""]


def scores_are_constant(proposal: Proposal, weighting: Weighting) -> bool:
    """Whether `l[j, j]` alone is scored, with weight -1, and samples are independent given z_0: no pairs matter."""
    independent = proposal.members is not None and proposal.members.joint_log_prob is None
    return independent and (proposal.equal_members or not weighting.of_densities)


def reparameterized(evaluation: Evaluation, draw: Draw) -> Float[Array, ""]:
    """The plain pathwise estimator: differentiate everything. Unbiased for every proposal and weighting."""
    return log_sum_exp(evaluation.terms(draw.z, draw.z0, draw.base, draw.members).log_weights, -1)


def with_path_rule(
    evaluation: Evaluation,
    proposal: Proposal,
    weighting: Weighting,
    draw: Draw,
    *,
    beta: Float[Array, ""],
    gradient: str,
    frozen_params: tuple[Any, Any],
    backward: Backward | None = None,
) -> Float[Array, ""]:
    """The same value as `reparameterized`, differentiated by the rule that `gradient` names.

    Args:
      evaluation: the log-weights as a function of samples and density parameters.
      proposal: as given to `make_bound`.
      weighting: as given to `make_bound`.
      draw: the samples and what made them.
      beta: the warm-up factor.
      gradient: a member of `GRADIENTS`.
      frozen_params: `(params, context)`, both stopped: with a z_0 of its own for each sample, the densities still
        depend on z_0 through the members, and that dependence belongs to the path.
      backward: None for a backward pass through the model at every sample.
    """
    fixed = jax.lax.stop_gradient(draw)
    members = proposal.members
    scored = gradient == "reparameterized"

    # Whatever the model closes over becomes an argument, so that its derivative is seen.
    values = jax.tree.map(jnp.zeros_like, jax.eval_shape(jax.vmap(evaluation.model), fixed.z))
    model_of_one, model_arrays = jax.closure_convert(evaluation.model, fixed.z[0])
    weigh, weigh_arrays = jax.closure_convert(evaluation.weigh, values, fixed.z, fixed.z0, fixed.base, fixed.members)
    members_at, member_arrays = None, list[Any]()
    if members is not None and members.at is not None and gradient not in ("authors", "reparameterized"):
        at = members.at
        members_at, member_arrays = jax.closure_convert(lambda z0: at(*frozen_params, z0), fixed.z0)

    def model(z: Any, *arrays: Any) -> Any:
        return over_samples(lambda one: model_of_one(one, *arrays), z, evaluation.chunk_size)

    ends = len(model_arrays), len(model_arrays) + len(weigh_arrays)

    @jax.custom_jvp
    def bound(operands: Operands, captured: list[Any]) -> Float[Array, ""]:
        terms = weigh(
            model(operands.z, *captured[: ends[0]]),
            operands.z,
            operands.z0,
            operands.base,
            operands.members,
            *captured[ends[0] : ends[1]],
        )
        return log_sum_exp(terms.log_weights, -1)

    def rule(primals: Any, tangents: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        operands, captured = primals
        # Arrays without a tangent (the data, stopped parameters) are constants here, not zeros to multiply.
        active = [i for i, tangent in enumerate(tangents[1]) if not isinstance(tangent, SymbolicZero)]
        moving, moved = [captured[i] for i in active], [tangents[1][i] for i in active]

        def arrays(moving: Any) -> list[Any]:
            full = list(captured)
            for i, array in zip(active, moving, strict=True):
                full[i] = array
            return full

        def model_of(z: Any, *moving: Any) -> Any:
            return model(z, *arrays(moving)[: ends[0]])

        def terms_of(values: Any, z: Any, z0: Any, densities: Any, *moving: Any) -> Terms:
            full = arrays(moving)
            base, members = densities if scored else (operands.base, operands.members)
            if members_at is not None:
                members = members_at(z0, *full[ends[1] :])
            terms: Terms = weigh(values, z, z0, base, members, *full[ends[0] : ends[1]])
            return terms

        along = jax.tree.map(_instantiate, tangents[0], operands)
        densities = ((operands.base, operands.members), (along.base, along.members)) if scored else ((), ())
        if backward is None:
            values, push_model = jax.linearize(model_of, operands.z, *moving)
        else:
            values = model_of(operands.z, *moving)
        terms, push = jax.linearize(terms_of, values, operands.z, operands.z0, densities[0], *moving)

        def log_weights_at(z: Any, z0: Any) -> Any:
            return terms_of(model_of(z, *moving), z, z0, densities[0], *moving).log_weights

        weights = normalized_weights(terms.log_weights)
        with_z0 = None
        if members_at is not None:
            # How the members move with a sample's own z_0 while their parameters stay.
            arrays_at = arrays(moving)[ends[1] :]
            with_z0 = jax.jvp(lambda z0: members_at(z0, *arrays_at), (operands.z0,), (along.z0,))[1]
        rows = Rows(operands, along, with_z0, terms, weights, evaluation.chunk_size)
        step = _step(gradient, proposal, weighting, rows, log_weights_at)
        least = float(np.finfo(weights.dtype).tiny)
        if backward is None:
            pushed_values = push_model(step.z, *moved)
        else:
            shares = step.weights if step.shares is None else step.shares
            shares /= jnp.maximum(jnp.sum(shares), least)
            chosen = systematic_indices(operands.uniform, shares, num_samples=backward.num_samples)
            _, push_model = jax.linearize(model_of, operands.z[chosen], *moving)
            scale = 1.0 / (backward.num_samples * jnp.maximum(shares[chosen], least))
            pushed_values = jax.tree.map(
                lambda value, tangent: jnp.zeros_like(value).at[chosen].add(scale * tangent),
                values,
                push_model(step.z[chosen], *moved),
            )
        pushed = push(pushed_values, step.z, step.z0, densities[1], *moved)
        tangent = weighted_tangent(step.weights, pushed.log_weights) + step.scores
        return log_sum_exp(terms.log_weights, -1), tangent

    bound.defjvp(rule, symbolic_zeros=True)
    operands = Operands(
        members=draw.members,
        base=draw.base,
        z0=draw.z0,
        z=draw.z,
        joint=fixed.joint,
        refill=fixed.refill,
        beta=jax.lax.stop_gradient(beta),
        uniform=None if backward is None else backward.uniform,
    )
    return bound(operands, [*model_arrays, *weigh_arrays, *member_arrays])


def _step(gradient: str, proposal: Proposal, weighting: Weighting, rows: Rows, log_weights_at: Any) -> Step:
    """Where the rule of this name sends the samples."""
    if gradient == "reparameterized":
        return plain(rows)
    members = proposal.members
    assert members is not None  # make_bound refuses the others by name
    if gradient == "path_squared":
        return path_squared(members, rows)
    if gradient == "authors":
        return authors(members, rows)
    if scores_are_constant(proposal, weighting):
        return own_paths(members, rows)
    if gradient == "refilled":
        return refilled(members, weighting.alpha, rows, log_weights_at)

    def shares(parameters: Any) -> Any:
        if not weighting.of_densities:
            return -members.own_densities(parameters, rows.operands.z)
        return log_shares(proposal, weighting, parameters, rows.operands.z, rows.chunk_size)

    return cross_paths(members, weighting.alpha, rows, shares)


def _instantiate(tangent: Any, primal: Any) -> Any:
    return jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent
