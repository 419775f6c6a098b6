"""The check of a family's density by its draws alone, where noise cannot be found from a sample.

For any density n on a part of the support, `E_q[n(z) / q(z)] = 1`. If the draws are not from q, or q does not integrate
to one, the mean is another. Here n is uniform on the box between two quantiles of each dimension, so that it stays
inside of supports that end.
"""

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from hiwae_jax._families.disagreement import quick_jit
from hiwae_jax._families.family import Family, draw_noise, noise_structure
from hiwae_jax._types import Parameters

_DRAWS = 40_000
_BOXES = ((0.3, 0.7), (0.1, 0.5), (0.5, 0.9))  # quantiles of each dimension
_SPREAD = 5.0  # standard errors that are allowed


def check_draws(family: Family, parameters: Parameters, key: PRNGKeyArray) -> None:
    """Raise if `log_prob` is not the density of the draws of a family."""
    structure = noise_structure(family, parameters)
    noise = draw_noise(family.sampler, key, (_DRAWS, structure.size), structure.dtype)

    @quick_jit
    @jax.vmap
    def at_rows(noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = family.forward(parameters, noise)
        return z, family.log_prob(parameters, z)

    z, log_prob = (np.asarray(array, np.float64) for array in at_rows(noise))
    if not np.all(np.isfinite(z)) or not np.all(np.isfinite(log_prob)):
        raise ValueError("family: expected finite draws of finite log_prob, got others")
    for below, above in _BOXES:
        low, high = np.quantile(z, [below, above], axis=0)
        if not np.all(high > low):
            raise ValueError("family: expected draws with a density, got many that are equal")
        is_inside = np.all((z > low) & (z < high), axis=1)
        ratio = np.where(is_inside, np.exp(-np.sum(np.log(high - low)) - log_prob), 0.0)
        error = np.std(ratio) / np.sqrt(_DRAWS)
        if not abs(np.mean(ratio) - 1.0) < _SPREAD * error:
            raise ValueError(
                "family.log_prob: expected the density of what family.forward draws, got another: over a box in the "
                f"middle of the draws, the mean of 1 / exp(log_prob(z)) is {np.mean(ratio):.3f} +- {error:.3f} of the "
                "volume"
            )
