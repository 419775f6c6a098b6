"""A bound by a gradient rule, for functions that can be differentiated in reverse mode only.

`linearize.py` pushes the step of a rule forward through the log-weights. A function with a `jax.custom_vjp`, such as a
kernel or the solver of a differential equation, only says how to pull a gradient back. So here JAX differentiates the
log-weights themselves, at samples whose derivative is the step of the rule.

The step depends on the weights, for which the log-weights are evaluated a second time. Compilers merge the two
evaluations, but for what a `custom_vjp` computes in another way when its derivative is wanted.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from hiwae_jax._assembly.parts import CapturedArrays, Parts, Terms
from hiwae_jax._gradients.rule import Step
from hiwae_jax._log_weights.bounds import weighted_tangent
from hiwae_jax._programs import primitive_names
from hiwae_jax._proposals.draw import Draw
from hiwae_jax._types import Scalar, Tangent

_LogWeights = Float[Array, " K"]
_Primals = tuple[Draw, Scalar, CapturedArrays]
_Tangents = tuple[Draw, Tangent, CapturedArrays]


def is_reverse_only(parts: Parts, draw: Draw, arrays: CapturedArrays) -> bool:
    """Whether the generative model or the proposal's densities contain a `jax.custom_vjp`."""
    densities = draw.z, draw.z0, draw.parameters, draw.base
    programs = (
        jax.make_jaxpr(parts.model)(draw.z[0], *arrays.model),
        jax.make_jaxpr(parts.proposal_term)(*densities, *arrays.proposal_term),
    )
    return any("custom_vjp" in name for program in programs for name in primitive_names(program))


def bound_at_moved_samples(
    draw: Draw,
    beta: Scalar,
    arrays: CapturedArrays,
    *,
    terms_of: Callable[[Draw, CapturedArrays], Terms],
    step_of: Callable[[Draw, Draw, Scalar, CapturedArrays, Terms], Step],
    total: Callable[[_LogWeights, int], Scalar],
) -> Scalar:
    """`total` of the log-weights, differentiated along the rule's step.

    Args:
      draw: the samples and what made them.
      beta: the warm-up factor, times the power to which the weights are raised.
      arrays: the arrays that the log-weights close over.
      terms_of: `(draw, arrays) -> Terms`. It stops the gradients that the rule does not follow.
      step_of: `(draw, its tangents, beta, arrays, terms) -> Step` of the rule.
      total: `(log-weights [K], axis) -> scalar`.
    """

    def step(primals: _Primals, tangents: _Tangents) -> Step:
        draw, beta, arrays = primals
        return step_of(draw, tangents[0], beta, arrays, terms_of(draw, arrays))

    @jax.custom_jvp
    def moved(draw: Draw, beta: Scalar, arrays: CapturedArrays) -> Draw:
        del beta, arrays
        return draw

    @moved.defjvp
    def along_the_step(primals: _Primals, tangents: _Tangents) -> tuple[Draw, Draw]:
        taken = step(primals, tangents)
        return primals[0], tangents[0]._replace(z=taken.z, z0=taken.z0)

    @jax.custom_jvp
    def summed(log_weights: _LogWeights, draw: Draw, beta: Scalar, arrays: CapturedArrays) -> Scalar:
        del draw, beta, arrays
        return total(log_weights, -1)

    @summed.defjvp
    def with_its_weights(
        primals: tuple[_LogWeights, Draw, Scalar, CapturedArrays],
        tangents: tuple[_LogWeights, Draw, Tangent, CapturedArrays],
    ) -> tuple[Scalar, Scalar]:
        taken = step(primals[1:], tangents[1:])
        return total(primals[0], -1), weighted_tangent(taken.weights, tangents[0]) + taken.scores

    fixed: CapturedArrays = jax.tree.map(jax.lax.stop_gradient, arrays)
    terms = terms_of(moved(draw, beta, fixed), arrays)
    return summed(terms.log_weights, draw, beta, fixed)
