r"""No paths at all: samples stay where they are, and the proposal's parameters are reached through its density.

Let L be the bound, and `u` all that is drawn. Then

    d E[L] = E[ sum_j wbar_j d log w_j + sum_j signal_j d log q_j(z_j) + signal_0 d log q_0(z_0) ],

where `d log w_j` is taken at fixed samples. This is the product rule for the integral of L times the density of u. It
asks nothing of log_joint but that it can be evaluated: where log_joint jumps in z, every path loses a surface term, and
this rule does not.

A signal is L minus a baseline that does not depend on what is scored. The baseline of sample j is the bound with `w_j`
replaced by the geometric mean of the other weights (Mnih and Rezende, 2016). It is a control variate of mean zero,
because the other weights do not depend on z_j. A shared z_0 has no such baseline: all weights depend on it, so that
`signal_0 = L`. A sample's own z_0 has the signal of the sample.

Where the members of a mixture are picked in dependence on one another, `q_j` is the density of sample j given the picks
of the others, and not the one that weighs it. The baseline knows the others and nothing of sample j, as before.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax._discrete.score_function import bound_signals, leave_one_out_signals
from hiwae_jax._gradients.needs import needs_independent_samples, needs_members, needs_one_z0_per_sample
from hiwae_jax._gradients.rule import Rule, RuleInputs, Step, base_scores


def score_function_step(inputs: RuleInputs) -> Step:
    """No sample moves; densities and signals make up the whole derivative in the proposal's parameters."""
    draw, weights = inputs.draw, inputs.weights
    signals = _signals(inputs.terms.log_weights)
    of_density = inputs.beta * inputs.reached_by_beta * weights

    def total(parameters: object) -> Float[Array, ""]:
        log_pi_over_q = inputs.log_pi_over_q(parameters)
        drawn = inputs.members.drawn_densities(parameters, draw.z, inputs.chunk_size)
        return jnp.sum(of_density * log_pi_over_q + signals * drawn)

    scores = jax.jvp(total, (draw.parameters,), (inputs.member_tangents_at_fixed_z0,))[1]
    if draw.z0 is None:
        return Step(jnp.zeros_like(draw.z), None, weights, scores)
    # The rows of a shared z_0 are equal: its signal may be split among them.
    base_signals = signals if inputs.members.own_z0 else bound_signals(inputs.terms.log_weights) / len(weights)
    scores += base_scores(inputs, base_signals - of_density)
    return Step(jnp.zeros_like(draw.z), jnp.zeros_like(draw.z0), weights, scores)


def _signals(log_weights: Float[Array, " K"]) -> Float[Array, " K"]:
    """The signal of each sample; one sample alone has no baseline."""
    return leave_one_out_signals(log_weights) if len(log_weights) > 1 else bound_signals(log_weights)


SCORE_FUNCTION = Rule(
    name="score_function",
    unbiased="every weighting, with free bits, and also where log_joint jumps",
    cost="1",
    noise="highest by far; a shared z_0 has no baseline",
    when="log_joint jumps, and the jump must stay",
    step=score_function_step,
    needs=(needs_members, needs_independent_samples, needs_one_z0_per_sample),
    fixes_samples=True,
)
