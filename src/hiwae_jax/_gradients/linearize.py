"""A bound with the usual value, and with a derivative that a gradient rule defines.

The direction in which a rule moves the samples depends on the weights, which come from the value. So the log-weights
are linearized once, and then the rule's direction is pushed through. This takes one forward and one backward pass of
the generative model, in three steps:

1. `_capture` turns the arrays that the model closes over into arguments, so that their derivatives are seen;
2. `_linearize` evaluates the log-weights and keeps how they change;
3. `_push` gives the derivative along the step of a rule.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._assembly.parts import CapturedArrays, ModelDensities, Parts, Terms, log_weight_terms
from hiwae_jax._gradients.model_passes import ModelPass, at_all_samples, at_drawn_samples, in_one_pass, one_pass_pays
from hiwae_jax._gradients.moved_samples import bound_at_moved_samples, is_reverse_only
from hiwae_jax._gradients.needs import Request
from hiwae_jax._gradients.rule import Rule, RuleInputs, Step
from hiwae_jax._log_weights.bounds import normalized_weights, weighted_tangent
from hiwae_jax._proposals.draw import Draw, Structures
from hiwae_jax._types import Arrays, AuxiliarySamples, Context, Parameters, Params, Samples, Scalar, Tangent, Tree

# The parameters of the members and of q_0, where the densities are differentiated in them.
_Scored = tuple[Parameters, Parameters] | tuple[()]


@runtime_checkable
class _MembersAt(Protocol):
    """The members' parameters as a function of z_0."""

    def __call__(self, z0: AuxiliarySamples, /, *arrays: jax.Array) -> Parameters: ...


class _Functions(NamedTuple):
    """Functions that take the arrays that they depend on as arguments, instead of closing over them.

    Attributes:
      parts: the functions of the log-weights.
      members_at: `(z0, *arrays) -> the members' parameters`, for a rule that follows each sample's own z_0; otherwise
        None.
    """

    parts: Parts
    members_at: _MembersAt | None


class _Moving(NamedTuple):
    """The captured arrays that have a tangent. The others (the data, stopped parameters) are constants.

    Attributes:
      arrays: the primals, those of the generative model first.
      tangents: their tangents.
      num_of_model: how many of the arrays the generative model captures.
      among_all: `arrays -> CapturedArrays`. It returns all captured arrays, with the first few moving ones replaced by
        the arrays given.
    """

    arrays: Arrays
    tangents: Arrays
    num_of_model: int
    among_all: Callable[[Sequence[jax.Array]], CapturedArrays]


class _Linearized(NamedTuple):
    """The log-weights, and how they change.

    Attributes:
      terms: the log-weights.
      model: the generative model at the samples.
      push_proposal_term: `(z, z0, densities' parameters, *moving) -> [K]`, tangents to tangent.
      push_combined: `(ModelDensities, proposal term, *moving) -> Terms`, likewise.
    """

    terms: Terms
    model: ModelPass
    push_proposal_term: Callable[..., Float[Array, " K"]]
    push_combined: Callable[..., Terms]


def stopped(tree: Tree) -> Tree:
    """The tree with the gradient of every array stopped. Other leaves, such as a layer's function, stay as they are."""
    fixed: Tree = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if _checks.is_array(leaf) else leaf, tree)
    return fixed


def bound_by_rule(
    parts: Parts,
    draw: Draw,
    *,
    rule: Rule,
    request: Request,
    total: Callable[[Float[Array, " K"], int], Scalar],
    beta: Scalar,
    frozen_params: tuple[Params, Context],
    backward_samples: int | None = None,
) -> Scalar:
    """`log sum_j w_j` up to a constant, differentiated by a rule.

    Args:
      parts: the log-weights as functions.
      draw: the samples and what made them.
      rule: the rule.
      request: proposal, weighting and free bits.
      total: `(log-weights [K], axis) -> scalar`, the value; `log_sum_exp` or `log_mean_exp`.
      beta: the warm-up factor, times the power to which the weights are raised.
      frozen_params: `(params, context)`, both stopped. If each sample has a z_0 of its own, the densities still depend
        on z_0 through the members, and that dependence belongs to the path.
      backward_samples: how many samples are drawn by their weights for the backward pass through the model; None for
        all.
    """
    fixed = stopped(draw)
    functions, arrays = _capture(parts, fixed, _members_at(request, rule, draw.structures, frozen_params))

    moved = fixed._replace(z=draw.z, z0=draw.z0, parameters=draw.parameters, base=draw.base, context=None)
    beta = jax.lax.stop_gradient(beta)

    def step_of(draw: Draw, tangents: Draw, beta: Scalar, arrays: CapturedArrays, terms: Terms) -> Step:
        step = rule.step(_rule_inputs(functions, request, draw, tangents, beta, arrays, terms))
        # The dtype of the weights may be wider than that of the samples.
        return step._replace(z=_as(draw.z, step.z), z0=_as(draw.z0, step.z0))

    if is_reverse_only(functions.parts, fixed, arrays):
        if backward_samples is not None:
            raise ValueError(
                "backward_samples: not available for a log_joint or a proposal with a jax.custom_vjp, which runs in "
                "reverse mode only; leave backward_samples out"
            )
        terms_of = functools.partial(_terms, functions, scores=rule.scores)
        return bound_at_moved_samples(moved, beta, arrays, terms_of=terms_of, step_of=step_of, total=total)

    @jax.custom_jvp
    def bound(draw: Draw, beta: Scalar, arrays: CapturedArrays) -> Scalar:
        return total(log_weight_terms(functions.parts, draw, arrays).log_weights, -1)

    def derivative(
        primals: tuple[Draw, Scalar, CapturedArrays], tangents: tuple[Draw, Tangent, CapturedArrays]
    ) -> tuple[Scalar, Scalar]:
        draw, beta, arrays = primals
        moving = _moving(arrays, tangents[2])
        draw_tangents: Draw = jax.tree.map(_instantiate, tangents[0], draw)
        linearized = _linearize(functions, draw, moving, scores=rule.scores, backward_samples=backward_samples)
        step = step_of(draw, draw_tangents, beta, arrays, linearized.terms)
        scored = (draw_tangents.parameters, draw_tangents.base) if rule.scores else ()
        return total(linearized.terms.log_weights, -1), _push(linearized, step, scored, moving)

    bound.defjvp(derivative, symbolic_zeros=True)
    return bound(moved, beta, arrays)


def _terms(functions: _Functions, draw: Draw, arrays: CapturedArrays, *, scores: bool) -> Terms:
    """The log-weights, as a function of the samples, the arrays and, if `scores`, the densities' parameters."""
    if not scores:
        draw = draw._replace(parameters=stopped(draw.parameters), base=stopped(draw.base))
    if functions.members_at is not None:
        draw = draw._replace(parameters=functions.members_at(draw.z0, *arrays.members_at))
    return log_weight_terms(functions.parts, draw, arrays)


def _members_at(
    request: Request, rule: Rule, structures: Structures, frozen_params: tuple[Params, Context]
) -> _MembersAt | None:
    """The members' parameters as a function of z_0 alone, where the rule tells apart how they move with z_0."""
    members = request.proposal.members
    if members is None or members.at is None:
        return None
    at, follows_own_z0 = members.at, rule.follows_z0 and members.own_z0

    def at_vectors(z0: AuxiliarySamples, *_: jax.Array) -> Parameters:
        return at(*frozen_params, structures.restored_z0(z0))

    return at_vectors if follows_own_z0 or rule.fixes_samples else None


def _capture(parts: Parts, draw: Draw, members_at: _MembersAt | None) -> tuple[_Functions, CapturedArrays]:
    """The functions with the arrays that they close over as further arguments, and these arrays."""
    densities = draw.z, draw.z0, draw.parameters, draw.base
    model, model_arrays = jax.closure_convert(parts.model, draw.z[0])
    proposal_term, term_arrays = jax.closure_convert(parts.proposal_term, *densities)
    of_one = jax.eval_shape(lambda *given: (parts.model(given[0][0]), parts.proposal_term(*given)[0]), *densities)
    combine, combine_arrays = jax.closure_convert(parts.combine, *jax.tree.map(jnp.zeros_like, of_one))
    members_arrays: Arrays = []
    if members_at is not None:
        members_at, members_arrays = jax.closure_convert(members_at, draw.z0)
    functions = _Functions(Parts(model, proposal_term, combine, parts.chunk_size), members_at)
    return functions, CapturedArrays(model_arrays, term_arrays, combine_arrays, members_arrays)


def _moving(arrays: CapturedArrays, tangents: CapturedArrays) -> _Moving:
    leaves, structure = jax.tree.flatten(arrays)
    tangent_leaves = jax.tree.leaves(tangents)
    active = [i for i, tangent in enumerate(tangent_leaves) if not isinstance(tangent, SymbolicZero)]

    def among_all(moving: Sequence[jax.Array]) -> CapturedArrays:
        full = list(leaves)
        for i, array in zip(active, moving, strict=False):
            full[i] = array
        whole: CapturedArrays = jax.tree.unflatten(structure, full)
        return whole

    return _Moving(
        arrays=[leaves[i] for i in active],
        tangents=[tangent_leaves[i] for i in active],
        num_of_model=sum(i < len(arrays.model) for i in active),
        among_all=among_all,
    )


def _linearize(
    functions: _Functions, draw: Draw, moving: _Moving, *, scores: bool, backward_samples: int | None
) -> _Linearized:
    """Evaluate the log-weights, and keep how they change with samples, moving arrays and, if `scores`, parameters."""
    parts = functions.parts

    def model(z: Float[Array, " D"], *arrays: jax.Array) -> ModelDensities:
        return parts.model(z, *moving.among_all(arrays).model)

    def proposal_term(z: Samples, z0: AuxiliarySamples, scored: _Scored, *arrays: jax.Array) -> Float[Array, " K"]:
        captured = moving.among_all(arrays)
        parameters, base = scored or (draw.parameters, draw.base)
        if functions.members_at is not None:
            parameters = functions.members_at(z0, *captured.members_at)
        return parts.proposal_term(z, z0, parameters, base, *captured.proposal_term)

    def combine(densities: ModelDensities, term: Float[Array, " C"], *arrays: jax.Array) -> Terms:
        return parts.combine_all(densities, term, *moving.among_all(arrays).combine)

    scored = (draw.parameters, draw.base) if scores else ()
    term, push_term = jax.linearize(proposal_term, draw.z, draw.z0, scored, *moving.arrays)
    of_model = model, draw.z, moving.arrays[: moving.num_of_model]
    chunk_size = parts.chunk_size
    if backward_samples is not None:
        assert draw.uniform is not None  # the bound draws it
        model_pass = at_drawn_samples(
            *of_model, chunk_size=chunk_size, num_samples=backward_samples, uniform=draw.uniform
        )
    elif chunk_size is not None and one_pass_pays(*of_model, chunk_size=chunk_size):
        model_pass = in_one_pass(*of_model, proposal_term=term, combine=combine, chunk_size=chunk_size)
    else:
        model_pass = at_all_samples(*of_model, chunk_size=chunk_size)
    terms, push_combined = jax.linearize(combine, model_pass.densities, term, *moving.arrays)
    return _Linearized(terms, model_pass, push_term, push_combined)


def _rule_inputs(
    functions: _Functions,
    request: Request,
    draw: Draw,
    tangents: Draw,
    beta: Scalar,
    arrays: CapturedArrays,
    terms: Terms,
) -> RuleInputs:
    members_with_z0 = None
    members_at = functions.members_at
    if members_at is not None:
        # How the members move with a sample's own z_0, while the arrays that they depend on stay.
        members_with_z0 = _members_along(lambda z0: members_at(z0, *arrays.members_at), draw.z0, tangents.z0)

    def log_weights_at(z: Samples, z0: AuxiliarySamples) -> Float[Array, " K"]:
        parameters = draw.parameters if members_at is None else members_at(z0, *arrays.members_at)
        elsewhere = draw._replace(z=z, z0=z0, parameters=parameters)
        return log_weight_terms(functions.parts, elsewhere, arrays).log_weights

    return RuleInputs(
        request=request,
        draw=draw,
        tangents=tangents,
        beta=beta,
        members_with_z0=members_with_z0,
        terms=terms,
        weights=normalized_weights(terms.log_weights),
        chunk_size=functions.parts.chunk_size,
        log_weights_at=log_weights_at,
    )


def _members_along(
    at: Callable[[AuxiliarySamples], Parameters], z0: AuxiliarySamples, tangent: AuxiliarySamples
) -> Parameters:
    """The tangent of the members' parameters along z_0."""
    try:
        return jax.jvp(at, (z0,), (tangent,))[1]
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise TypeError(
            "conditionals: this gradient differentiates them in z_0 in forward mode, and they have a jax.custom_vjp, "
            "which runs in reverse mode only; use gradient='reparameterized', or give them a jax.custom_jvp instead"
        ) from error


def _push(linearized: _Linearized, step: Step, scored: _Scored, moving: _Moving) -> Scalar:
    """The derivative of the bound along a rule's step, and along the moving arrays."""
    densities, of_model_alone = linearized.model.push(step, moving.tangents[: moving.num_of_model])
    term = linearized.push_proposal_term(step.z, step.z0, scored, *moving.tangents)
    log_weights = linearized.push_combined(densities, term, *moving.tangents).log_weights
    return weighted_tangent(step.weights, log_weights) + of_model_alone + step.scores


def _as(primal: Tree, tangent: Tree) -> Tree:
    cast: Tree = jax.tree.map(lambda tangent, primal: tangent.astype(primal.dtype), tangent, primal)
    return cast


def _instantiate(tangent: Tangent, primal: jax.Array) -> jax.Array | np.ndarray:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    is_continuous = jnp.issubdtype(jnp.result_type(primal), jnp.inexact)
    return jnp.zeros_like(primal) if is_continuous else np.zeros(jnp.shape(primal), jax.dtypes.float0)
