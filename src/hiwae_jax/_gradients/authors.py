"""The rule of the code that was released with the paper. It is there to compare with published runs."""

from hiwae_jax._gradients.needs import (
    needs_independent_picks,
    needs_independent_samples,
    needs_members,
    needs_one_z0_per_sample,
)
from hiwae_jax._gradients.rule import Rule, RuleInputs, Step, base_scores


def authors_step(inputs: RuleInputs) -> Step:
    """Squared weights for the whole proposal: on the paths, on a shared z_0, and on the score of q_0, which is kept."""
    tangents, weights = inputs.tangents, inputs.weights
    z = weights[:, None] * tangents.z
    if tangents.z0 is None:
        return Step(z, None, weights)
    scores = base_scores(inputs, -inputs.beta * inputs.reached_by_beta * weights**2)
    return Step(z, weights[:, None] * tangents.z0, weights, scores)


AUTHORS = Rule(
    name="authors",
    unbiased="no, but for path-squared where there is no z_0",
    cost="1",
    noise="low",
    when="reproducing runs of the released code",
    step=authors_step,
    needs=(needs_members, needs_independent_samples, needs_independent_picks, needs_one_z0_per_sample),
    follows_z0=False,
)
