"""Own paths with squared weights and no scores, for every weighting. The noise is low, and there is a bias."""

from hiwae_jax._gradients.needs import (
    needs_independent_picks,
    needs_independent_samples,
    needs_members,
    needs_one_z0_per_sample,
)
from hiwae_jax._gradients.rule import Rule, RuleInputs, Step


def path_squared_step(inputs: RuleInputs) -> Step:
    """Own paths with squared weights, and no scores. A shared z_0 keeps its plain path."""
    tangents, weights = inputs.tangents, inputs.weights
    return Step(weights[:, None] * tangents.z, inputs.z0_along(weights[:, None]), weights)


PATH_SQUARED = Rule(
    name="path_squared",
    unbiased="without a power heuristic, at beta = 1, without free bits",
    cost="1",
    noise="lowest",
    when="to see what a bias would buy",
    step=path_squared_step,
    needs=(needs_members, needs_independent_samples, needs_independent_picks, needs_one_z0_per_sample),
)
