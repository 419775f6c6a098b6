"""The plain pathwise rule, which differentiates everything."""

from hiwae_jax._gradients.rule import Rule, RuleInputs, Step


def plain_step(inputs: RuleInputs) -> Step:
    """Every sample moves along its path, and the densities' parameters move too."""
    return Step(inputs.tangents.z, inputs.tangents.z0, inputs.weights)


PLAIN = Rule(
    name="reparameterized",
    unbiased="every proposal and weighting",
    cost="1",
    noise="grows with K relative to the signal",
    when="correlated samples; K = 1",
    step=plain_step,
    needs=(),
    scores=True,
    follows_z0=False,  # the members' parameters move with it already
    automatic=True,
)
