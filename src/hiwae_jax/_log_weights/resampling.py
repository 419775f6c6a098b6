"""Resampling: from weighted samples to equally weighted ones."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hiwae_jax import _checks
from hiwae_jax._log_weights.bounds import normalized_weights
from hiwae_jax._types import Unchecked

Samples = TypeVar("Samples")


def posterior_resample(key: PRNGKeyArray, log_weights: Float[Array, " K"], z: Samples, *, num_samples: int) -> Samples:
    """Draw samples of z given x from K weighted samples (sampling-importance-resampling).

    The draws are independent, with replacement, and pick sample j with probability `w_j / sum_m w_m`. They follow the
    posterior only in the limit of large K. They are no better than the weights: see `effective_sample_size` and
    `pareto_khat`.

    Args:
      key: one typed key, `jax.random.key(seed)`.
      log_weights: the log-weights [K] of one example, up to a common constant. A weight of zero is never drawn; if
        every weight is zero, all samples are equally likely.
      z: the samples, an array [K, ...] or a pytree of such arrays.
      num_samples: how many to draw.

    Returns:
      `z` with leading axis `num_samples` in place of K. If a log-weight is NaN, its floating-point entries are NaN.

    *Gradients*: they pass through the values of `z`. The choice of samples has none, so the log-weights receive none.

    Reference: Rubin (1988), "Using the SIR algorithm to simulate posterior distributions".

    >>> posterior_resample(jax.random.key(0), jnp.array([0.0, -jnp.inf]), jnp.array([3.0, 5.0]), num_samples=3).tolist()
    [3.0, 3.0, 3.0]
    """
    weights = normalized_weights(_one_example("log_weights", log_weights))
    num_samples = _checks.positive_integer("num_samples", num_samples)
    if not jax.tree.leaves(z):
        raise ValueError("z: expected an array or a pytree of arrays, got none; one row for each of the log_weights")
    for leaf in jax.tree.leaves(z):
        if not _checks.is_array(leaf):
            raise TypeError(f"z: expected arrays, got a leaf of type {type(leaf).__name__}")
        if jnp.shape(leaf)[:1] != weights.shape:
            raise ValueError(
                f"z: expected leaves with leading axis {weights.shape[0]}, one row for each of the log_weights, got "
                f"shape {jnp.shape(leaf)}"
            )
    indices = _invert(weights, jax.random.uniform(_checks.one_key(key), (num_samples,), weights.dtype))
    known = ~jnp.any(jnp.isnan(weights))

    def pick(leaf: ArrayLike) -> Array:
        picked = jnp.asarray(leaf)[indices]
        return jnp.where(known, picked, jnp.nan) if jnp.issubdtype(picked.dtype, jnp.inexact) else picked

    samples: Samples = jax.tree.map(pick, z)
    return samples


def systematic_resample(key: PRNGKeyArray, weights: Float[Array, " K"], *, num_samples: int) -> Int[Array, " n"]:
    """Draw indices in ascending order, in which index j occurs `num_samples w_j / sum_m w_m` times on average.

    One uniform number u determines all of them, at `(i + u) / num_samples` of the cumulative weights. So the count of
    an index always differs from its mean by less than one.

    Args:
      key: one typed key, `jax.random.key(seed)`.
      weights: weights [K] of at least zero, not their logarithms. They need not sum to one. A weight of zero is never
        picked. Under `jit`, a negative weight counts as zero. If every weight is zero, or one is NaN, all are taken to
        be equal.
      num_samples: how many indices to draw.

    Returns:
      Integers [num_samples] from 0 to K - 1.

    *Gradients*: none; indices are integers.

    Raises:
      ValueError: outside of `jit`, for a weight that is negative or NaN.

    Reference: Kitagawa (1996), "Monte Carlo filter and smoother for non-Gaussian nonlinear state space models".

    >>> systematic_resample(jax.random.key(0), jnp.array([0.5, 0.0, 0.25, 0.25]), num_samples=4).tolist()
    [0, 0, 2, 3]
    """
    weights = _one_example("weights", weights)
    known = _checks.known_range(weights)
    if known is not None and not known[0] >= 0.0:
        raise ValueError(
            f"weights: expected numbers of at least 0, got {known[0]:g}; take the exponential of log-weights first"
        )
    num_samples = _checks.positive_integer("num_samples", num_samples)
    uniform = jax.random.uniform(_checks.one_key(key), (), weights.dtype)
    return systematic_indices(uniform, weights, num_samples=num_samples)


def systematic_indices(uniform: Float[Array, ""], weights: Float[Array, " K"], *, num_samples: int) -> Int[Array, " n"]:
    """`systematic_resample` for a given uniform number."""
    indices: Array = _invert(weights, (jnp.arange(num_samples, dtype=weights.dtype) + uniform) / num_samples)
    return indices


@jax.jit
def _invert(weights: Float[Array, " K"], levels: Float[Array, " n"]) -> Int[Array, " n"]:
    """The inverse of the cumulative distribution at levels in [0, 1), robust against rounding."""
    weights = jax.lax.stop_gradient(weights)
    # Relative to the largest, so that their sum is finite. Beside an infinite weight, finite ones count as zero.
    largest = jnp.max(weights)
    weights = jnp.where(largest == jnp.inf, (weights == jnp.inf).astype(weights.dtype), weights / largest)
    weights = jnp.where(largest > 0.0, jnp.maximum(weights, 0.0), 1.0)
    # The rounding of a parallel cumulative sum may differ across a weight of zero, so make the sum exactly flat there.
    cumulative = jnp.where(weights > 0.0, jnp.cumsum(weights), 0.0)
    cumulative = jax.lax.cummax(cumulative)
    indices = jnp.searchsorted(cumulative, levels * cumulative[-1], side="right")
    # A level that was rounded up to one belongs to the last weight above zero.
    last = jnp.searchsorted(cumulative, cumulative[-1], side="left")
    return jnp.minimum(indices, last)


def _one_example(name: str, values: Unchecked) -> Float[Array, " K"]:
    array = _checks.float_array(name, values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name}: expected shape [K] for one example, got shape {array.shape}; use jax.vmap over a batch"
        )
    return array
