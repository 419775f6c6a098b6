"""What the log-weights say about the quality of a proposal."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax._bounds import check_log_weights, normalized_weights


def effective_sample_size(log_weights: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Effective sample size of self-normalised importance sampling, `(sum_j w_j)^2 / sum_j w_j^2`.

    Args:
      log_weights: log-weights up to a common constant; any shape.
      axis: the axis of the K samples.

    Returns:
      The log-weights' shape without `axis`, between 1 and K; 0 where every weight is zero.

    Reference: Kong (1992), "A note on importance sampling using standardized weights".

    >>> float(effective_sample_size(jnp.zeros(4)))
    4.0
    """
    weights = normalized_weights(check_log_weights(log_weights, axis=axis), axis=axis)
    squares = jnp.sum(weights**2, axis=axis)
    return jnp.where(squares == 0.0, 0.0, 1.0 / jnp.where(squares == 0.0, 1.0, squares))
