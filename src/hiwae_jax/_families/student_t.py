"""The Student t family, which has heavy tails."""

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from hiwae_jax import _checks
from hiwae_jax._families.family import Family, like_loc, log_volume, require_value
from hiwae_jax._families.gaussian import diagonal_gaussian, location_and_scale
from hiwae_jax._families.standardize import standardized
from hiwae_jax._types import Parameters, Scalar


def student_t(df: float) -> Family:
    """Independent Student t distributions in each dimension, with location and scale. The heavy tails suit `defensive`.

    Args:
      df: degrees of freedom, more than 0. The smaller, the heavier are the tails. The variance is finite above 2.

    Returns:
      A family; parameters are `(loc [D], scale [D])`, or pytrees as for `diagonal_gaussian`.

    Reference: Domke and Sheldon (2018), "Importance weighting and variational inference", section 5.

    >>> family = student_t(5.0)
    >>> round(float(family.log_prob((jnp.zeros(1), jnp.ones(1)), jnp.zeros(1))), 4)
    -0.9686
    """
    df = _checks.number("df", df, above=0.0, remark="; for a Gaussian leave the family out")
    log_constant = math.lgamma((df + 1.0) / 2.0) - math.lgamma(df / 2.0) - 0.5 * math.log(df * math.pi)

    def log_prob(parameters: Parameters, z: Float[Array, " D"]) -> Scalar:
        loc, scale = location_and_scale(parameters)
        residual = standardized(z, loc, scale)
        require_value("student_t", z, residual)
        tails = -0.5 * (df + 1.0) * jnp.sum(jnp.log1p(residual**2 / df))
        return tails - log_volume(scale, residual) + residual.size * log_constant

    def noise(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
        return jax.random.t(_checks.one_key(key), df, shape, dtype)

    return Family(diagonal_gaussian.forward, diagonal_gaussian.inverse, log_prob, noise, noise_like=like_loc)
