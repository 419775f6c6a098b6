"""The default rule: every score becomes a path, and the mean of the gradient stays the same."""

from hiwae_jax._gradients.cross_paths import cross_paths_step
from hiwae_jax._gradients.own_paths import own_paths_step
from hiwae_jax._gradients.picked_paths import picked_paths_step
from hiwae_jax._gradients.rule import Rule, RuleInputs, Step, needs_members


def doubly_reparameterized_step(inputs: RuleInputs) -> Step:
    """Own paths if only own densities are scored; more if the weighting compares the members, or picks depend."""
    if inputs.request.scores_are_constant:
        return own_paths_step(inputs)
    return cross_paths_step(inputs) if inputs.members.shares is None else picked_paths_step(inputs)


DOUBLY_REPARAMETERIZED = Rule(
    name="doubly_reparameterized",
    unbiased="every weighting, with free bits too",
    step=doubly_reparameterized_step,
    needs=(needs_members,),
)
