"""The default rule: every score becomes a path, and the mean of the gradient stays the same."""

from hiwae_jax._gradients.cross_paths import cross_paths_step
from hiwae_jax._gradients.needs import Need, Request, needs_inverse, needs_members
from hiwae_jax._gradients.own_paths import own_paths_step
from hiwae_jax._gradients.picked_paths import picked_paths_step
from hiwae_jax._gradients.rule import Rule, RuleInputs, Step


def doubly_reparameterized_step(inputs: RuleInputs) -> Step:
    """Own paths if only own densities are scored; more if the weighting compares the members, or picks depend."""
    if inputs.request.scores_are_constant:
        return own_paths_step(inputs)
    return cross_paths_step(inputs) if inputs.members.slots is None else picked_paths_step(inputs)


def _has_exchangeable_z0(request: Request) -> bool:
    """Whether a proof covers the further draws of the reverse model; see docs/gradients.md, section 10."""
    members = request.proposal.members
    if request.proposal.reverse_samples == 0:
        return True
    return members is not None and members.own_z0 and request.scores_are_constant and request.free_bits == 0.0


_needs_exchangeable_z0 = Need(
    _has_exchangeable_z0,
    "with reverse_samples > 0 is valid only if each sample has a z_0 of its own (shared=False), under the uniform "
    "weighting and without free bits; use gradient='reparameterized'",
)

DOUBLY_REPARAMETERIZED = Rule(
    name="doubly_reparameterized",
    unbiased="every weighting, with free bits too",
    cost="FLOPs 1.00 with an MLP decoder on 784 pixels, K <= 5",
    noise="lowest of the unbiased, or near it; with free bits see below",
    when="the default",
    step=doubly_reparameterized_step,
    needs=(needs_members, needs_inverse, _needs_exchangeable_z0),
)
