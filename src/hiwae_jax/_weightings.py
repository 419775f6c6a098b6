"""Weightings: partitions of unity that share the target out among the members of a proposal."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Weighting(NamedTuple):
    """The power heuristic `pi_i(z) = q_i(z)^alpha / sum_m q_m(z)^alpha`; make one with the functions below.

    Attributes:
      alpha: the power; 0 gives each member 1/K wherever z is.
    """

    alpha: float


def uniform_weighting() -> Weighting:
    """The arithmetic weighting `pi_i(z) = 1/K`.

    The only one under which each member may have a reverse model of its own.

    Reference: Huang et al. (2019), section 3.2, alpha = 0.
    """
    return Weighting(alpha=0.0)


def power_heuristic(alpha: float) -> Weighting:
    """The power heuristic `pi_i(z) = q_i(z)^alpha / sum_m q_m(z)^alpha`.

    Args:
      alpha: a finite number, at least 0. 0 is `uniform_weighting()`, 1 the balance heuristic, under which the bound
        becomes that of the mixture of all members; larger values leave a point to the member that covers it best.

    Raises:
      ValueError: if `alpha` is negative or not finite.

    Reference: Veach and Guibas (1995); Huang et al. (2019), section 3.2.

    >>> power_heuristic(1.0)
    Weighting(alpha=1.0)
    """
    alpha = float(alpha)
    if not (math.isfinite(alpha) and alpha >= 0.0):
        raise ValueError(f"alpha: expected a finite number of at least 0, got {alpha}; 0 is the uniform weighting")
    return Weighting(alpha=alpha)


def log_partition(weighting: Weighting, log_densities: Float[Array, "K K"]) -> Float[Array, "K K"]:
    """`log pi_i(z_j)` at row j, column i, from `log q_i(z_j)` at row j, column i."""
    return jax.nn.log_softmax(weighting.alpha * log_densities, axis=-1)


def density_score_weights(alpha: float, partition: Float[Array, "K K"]) -> Float[Array, "K K"]:
    """`d [log pi_j(z_j) - log q_j(z_j)] / d log q_i(z_j)` at [j, i]: `(alpha - 1) delta_ij - alpha pi[j, i]`."""
    return (alpha - 1.0) * jnp.eye(partition.shape[0], dtype=partition.dtype) - alpha * partition
