r"""Gradient estimators: one value, and a rule for the tangent of the proposal's parameters.

Notation, after the paper: sample `z_j` comes from member `q_j`; `l[j, i] = log q_i(z_j | z_0)`; `w_j` are the weights,
`wbar_j` the self-normalised ones. Every rule here differentiates

    bound = log sum_j w_j,
    log w_j = log p(x | z_j) + beta * (log p(z_j) + log r(z_0 | z_j) - log q_0(z_0) - l[j, j] + log pi_j(z_j))

The generative model, the reverse model and a learned weighting always receive the plain gradient
`sum_j wbar_j d log w_j`. What differs is how the proposal's parameters are reached: through the samples (*paths*) or
through the densities (*scores*). `paths.py`, `cross_paths.py` and `refilled.py` say where a rule sends the samples.

That direction depends on the weights, hence on the value. A rule therefore linearizes the log-weights once and pushes
its own direction through: one forward and one backward pass of the generative model.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._assembly import Evaluation, Terms, log_shares
from hiwae_jax._gradients.cross_paths import cross_paths
from hiwae_jax._gradients.model_passes import at_all_samples, at_drawn_samples, in_one_pass, one_pass_pays
from hiwae_jax._gradients.paths import Operands, Rows, Step, authors, own_paths, path_squared, plain
from hiwae_jax._gradients.refilled import refilled
from hiwae_jax._log_weights.bounds import log_sum_exp, normalized_weights, weighted_tangent
from hiwae_jax._proposals.proposal import Draw, Proposal, over_samples
from hiwae_jax._weightings import Weighting

GRADIENTS = ("reparameterized", "doubly_reparameterized", "refilled", "path_squared", "authors")


class _Captured(NamedTuple):
    """What the functions of an `Evaluation` close over; the arrays of the model first."""

    model: list[Any]
    rest: list[Any]
    combine: list[Any]
    members_at: list[Any]


def stopped(tree: Any) -> Any:
    """The tree with the gradient of every array stopped; what else it holds, such as a layer's function, as it is."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if _checks.is_array(leaf) else leaf, tree)


def scores_are_constant(proposal: Proposal, weighting: Weighting) -> bool:
    """Whether `l[j, j]` alone is scored, with weight -1, and samples are independent given z_0: no pairs matter."""
    independent = proposal.members is not None and proposal.members.joint_log_prob is None
    return independent and (proposal.equal_members or not weighting.of_densities)


def reparameterized(evaluation: Evaluation, draw: Draw) -> Float[Array, ""]:
    """The plain pathwise estimator: differentiate everything.

    Unbiased for every proposal and weighting where log_joint has no jumps in z.
    """
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
    backward_samples: int | None = None,
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
      backward_samples: how many samples are drawn by their weights for the backward pass through the model; None for
        all.
    """
    fixed = stopped(draw)
    members = proposal.members
    scored = gradient == "reparameterized"
    chunk_size = evaluation.chunk_size

    # Whatever the model closes over becomes an argument, so that its derivative is seen.
    of_densities = fixed.z, fixed.z0, fixed.base, fixed.members
    model_of_one, model_arrays = jax.closure_convert(evaluation.model, fixed.z[0])
    rest_of_all, rest_arrays = jax.closure_convert(evaluation.rest, *of_densities)
    of_one = jax.eval_shape(lambda *given: (evaluation.model(given[0][0]), evaluation.rest(*given)[0]), *of_densities)
    combine, combine_arrays = jax.closure_convert(evaluation.combine, *jax.tree.map(jnp.zeros_like, of_one))
    members_at, member_arrays = None, list[Any]()
    if members is not None and members.at is not None and gradient not in ("authors", "reparameterized"):
        at = members.at
        members_at, member_arrays = jax.closure_convert(lambda z0: at(*frozen_params, z0), fixed.z0)

    @jax.custom_jvp
    def bound(operands: Operands, captured: _Captured) -> Float[Array, ""]:
        values = over_samples(lambda z: model_of_one(z, *captured.model), operands.z, chunk_size)
        rest = rest_of_all(operands.z, operands.z0, operands.base, operands.members, *captured.rest)
        terms = jax.vmap(lambda values, rest: combine(values, rest, *captured.combine))(values, rest)
        return log_sum_exp(terms.log_weights, -1)

    def rule(primals: Any, tangents: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        operands, captured = primals
        leaves, structure = jax.tree.flatten(captured)
        # Arrays without a tangent (the data, stopped parameters) are constants here, not zeros to multiply.
        tangent_leaves = jax.tree.leaves(tangents[1])
        active = [i for i, tangent in enumerate(tangent_leaves) if not isinstance(tangent, SymbolicZero)]
        moving, moved = [leaves[i] for i in active], [tangent_leaves[i] for i in active]
        of_model = sum(i < len(captured.model) for i in active)

        def arrays(moving: Any) -> _Captured:
            """All arrays, the first few of the moving ones being these."""
            full = list(leaves)
            for i, array in zip(active, moving, strict=False):
                full[i] = array
            whole: _Captured = jax.tree.unflatten(structure, full)
            return whole

        def model(z: Any, *moving: Any) -> Any:
            return model_of_one(z, *arrays(moving).model)

        def rest_of(z: Any, z0: Any, densities: Any, *moving: Any) -> Any:
            full = arrays(moving)
            base, members = densities if scored else (operands.base, operands.members)
            if members_at is not None:
                members = members_at(z0, *full.members_at)
            return rest_of_all(z, z0, base, members, *full.rest)

        def terms_of(values: Any, rest: Any, *moving: Any) -> Terms:
            arrays_of_it = arrays(moving).combine
            terms: Terms = jax.vmap(lambda values, rest: combine(values, rest, *arrays_of_it))(values, rest)
            return terms

        def log_weights_at(z: Any, z0: Any) -> Any:
            return terms_of(over_samples(model, z, chunk_size), rest_of(z, z0, densities[0])).log_weights

        along = jax.tree.map(_instantiate, tangents[0], operands)
        densities = ((operands.base, operands.members), (along.base, along.members)) if scored else ((), ())
        rest, push_rest = jax.linearize(rest_of, operands.z, operands.z0, densities[0], *moving)
        of_pass = model, operands.z, moving[:of_model]
        if backward_samples is not None:
            model_pass = at_drawn_samples(
                *of_pass, chunk_size=chunk_size, num_samples=backward_samples, uniform=operands.uniform
            )
        elif chunk_size is not None and one_pass_pays(*of_pass, chunk_size=chunk_size):
            model_pass = in_one_pass(*of_pass, rest=rest, combine=terms_of, chunk_size=chunk_size)
        else:
            model_pass = at_all_samples(*of_pass, chunk_size=chunk_size)
        terms, push = jax.linearize(terms_of, model_pass.values, rest, *moving)

        weights = normalized_weights(terms.log_weights)
        with_z0 = None
        if members_at is not None:
            # How the members move with a sample's own z_0 while their parameters stay.
            with_z0 = jax.jvp(lambda z0: members_at(z0, *captured.members_at), (operands.z0,), (along.z0,))[1]
        rows = Rows(operands, along, with_z0, terms, weights, chunk_size)
        step = _step(gradient, proposal, weighting, rows, log_weights_at)
        # Weights may be wider than samples.
        step = step._replace(z=_as(operands.z, step.z), z0=_as(operands.z0, step.z0))
        pushed_values, of_model_alone = model_pass.push(step, moved[:of_model])
        pushed = push(pushed_values, push_rest(step.z, step.z0, densities[1], *moved), *moved).log_weights
        tangent = weighted_tangent(step.weights, pushed) + of_model_alone + step.scores
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
        uniform=fixed.uniform,
    )
    return bound(operands, _Captured(model_arrays, rest_arrays, combine_arrays, member_arrays))


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


def _as(primal: Any, tangent: Any) -> Any:
    return jax.tree.map(lambda tangent, primal: tangent.astype(primal.dtype), tangent, primal)


def _instantiate(tangent: Any, primal: Any) -> Any:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    is_continuous = jnp.issubdtype(jnp.result_type(primal), jnp.inexact)
    return jnp.zeros_like(primal) if is_continuous else np.zeros(jnp.shape(primal), jax.dtypes.float0)
