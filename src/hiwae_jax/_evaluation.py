"""Streaming estimates of log p(x): memory does not grow with the number of samples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._bounds import log_sum_exp
from hiwae_jax._proposal import Example, Params


class LogEvidence(NamedTuple):
    """An estimate of log p(x) of one example.

    Attributes:
      estimate: log of the mean of the independent estimates of p(x), in nats; below log p(x) on average.
      standard_error: Monte Carlo standard error of `estimate`, by the delta method.
      effective_draws: `(sum v)^2 / sum v^2` of the independent estimates v; few of many is a warning that the estimate
        rests on a handful of draws and that its standard error is too small.
    """

    estimate: Float[Array, ""]
    standard_error: Float[Array, ""]
    effective_draws: Float[Array, ""]


def make_log_evidence(
    log_weights: Callable[[Params, Example, Any], Float[Array, " K"]], *, num_draws: int
) -> Callable[[Params, Example, Any], LogEvidence]:
    """Estimate log p(x) from many independent draws of K weights, one draw in memory at a time.

    Args:
      log_weights: from `make_log_weights`: `(params, x, key) -> [K]` with `E[sum_j w_j] = p(x)`.
      num_draws: R, the number of independent draws; R * K samples of z in all. At least 2.

    Returns:
      `log_evidence(params, x, key) -> LogEvidence`. The R keys are folded from `key`.

    Reference: Burda, Grosse and Salakhutdinov (2016), section 5; Huang and Courville (2017) for constant memory.
    """
    if _checks.positive_integer("num_draws", num_draws) < 2:
        raise ValueError("num_draws: at least 2 are needed for a standard error, got 1")

    def log_evidence(params: Params, x: Example, key: Any) -> LogEvidence:
        def add(draw: Any, sums: Any) -> Any:
            log_total = log_sum_exp(log_weights(params, x, jax.random.fold_in(key, draw)), -1)
            return jnp.logaddexp(sums[0], log_total), jnp.logaddexp(sums[1], 2.0 * log_total)

        dtype = jax.eval_shape(log_weights, params, x, key).dtype
        empty = (jnp.full((), -jnp.inf, dtype),) * 2
        log_sum, log_squares = jax.lax.fori_loop(0, num_draws, add, empty)
        # (sum v)^2 / sum v^2; where every weight is zero there is nothing to say but -inf.
        effective = jnp.where(log_sum == -jnp.inf, 0.0, jnp.exp(2.0 * log_sum - log_squares))
        relative_variance = (num_draws / effective - 1.0) / (num_draws - 1.0)
        return LogEvidence(
            estimate=log_sum - jnp.log(jnp.asarray(num_draws, dtype)),
            standard_error=jnp.sqrt(jnp.maximum(relative_variance, 0.0)),
            effective_draws=effective,
        )

    return log_evidence
