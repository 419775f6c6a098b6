"""Each sample moves along its own path, if the weighting does not compare the members.

Then only own densities are scored, with weight -1. The identity of `rule.py` with `Q = q_j` turns that score into
`-beta wbar_j (1 - wbar_j)` on the sample's own path.
"""

import jax.numpy as jnp

from hiwae_jax._gradients.rule import RuleInputs, Step, without_clipped_scores


def own_paths_step(inputs: RuleInputs) -> Step:
    """`wbar_j (1 - beta (1 - wbar_j))` on each sample's own path.

    At beta = 1 that is the `wbar_j^2` of Tucker et al. (2019).
    """
    tangents, weights = inputs.tangents, inputs.weights
    factor = 1.0 - inputs.beta * (1.0 - weights)[:, None]
    step = Step(factor * tangents.z, inputs.z0_along(factor), weights, jnp.zeros((), weights.dtype))
    return without_clipped_scores(inputs, step)
