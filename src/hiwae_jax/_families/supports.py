"""Ready bijections from R^D onto bounded supports: an interval, the positive numbers, the simplex.

They have the same type as the maps of a flow chain, and ignore the parameters and the example. Each formula is exact
for every floating-point number inside the support. Outside, `log|det dy/dz|` of the inverse is `-inf`, so that a
density made with it is zero. The point z is then some finite one, so that gradients are finite.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from hiwae_jax._families.bijection import Bijection, Mapped
from hiwae_jax._types import Context, Params, Scalar, Unchecked

# Samples keep at least this many rounding errors away from an edge. Their distance to it is then known to 6 %.
_SPACINGS = 8.0


def _info(dtype: DTypeLike) -> np.finfo:  # before NumPy 2.2 it has no parameters
    return jnp.finfo(dtype)  # type: ignore[no-untyped-call]


def _end(name: str, value: Unchecked) -> np.ndarray:
    """Return an edge of an interval as an array, or raise."""
    expected = "a finite number, or an array [D] of them"
    if isinstance(value, (bool, str)) or not np.issubdtype(np.asarray(value).dtype, np.number):
        raise TypeError(f"{name}: expected {expected}, got {value!r:.80}")
    end = np.asarray(value, np.float64)
    if end.ndim > 1 or not end.size or not np.all(np.isfinite(end)):
        raise ValueError(f"{name}: expected {expected}, got {value!r:.80}; where one side is open take hj.positive")
    return end


def interval(low: ArrayLike, high: ArrayLike) -> Bijection:
    """`y = low + (high - low) sigmoid(z)`, from R^D onto the open box between `low` and `high`.

    `log|det dy/dz| = sum_d log(high - low) + log sigmoid(z_d) + log sigmoid(-z_d)`.

    Args:
      low: the lower edge, a finite number for all dimensions or an array of D.
      high: the upper edge, likewise, above `low`.

    Returns:
      A bijection for `transformed`. At its `limits`, y is 8 spacings of floating point away from an edge. For (0, 1) in
      float32 these are z = -85 and z = 13.9, since there are numbers down to 1e-38 next to 0, but none between 1 - 6e-8
      and 1. If the posterior gathers at an edge, choose coordinates in which that edge is 0.

    Raises:
      ValueError: unless `low` and `high` are finite and `low < high`. When used: if the numbers of the dtype are too
        coarse to tell the points of the interval apart.

    >>> y, log_det = interval(-1.0, 3.0).forward(None, None, jnp.zeros(2))
    >>> y.tolist(), round(float(log_det), 4)
    ([1.0, 1.0], 0.0)
    """
    ends = _end("low", low), _end("high", high)
    if ends[0].ndim == ends[1].ndim == 1 and ends[0].shape != ends[1].shape:
        raise ValueError(f"high: expected the shape of low, {ends[0].shape}, got {ends[1].shape}")
    if not np.all(ends[0] < ends[1]):
        raise ValueError(f"high: expected more than low, {low}, got {high}")

    def edges(z: Float[Array, " D"]) -> tuple[Array, Array, Array]:
        lower, upper = (jnp.asarray(end, z.dtype) for end in ends)
        return lower, upper, upper - lower

    def forward(_: Params, x: Context, z: Float[Array, " D"]) -> Mapped:
        lower, upper, width = edges(z)
        # Computed from the nearer edge, so that the distance to it is exact to the last bit, however small.
        y = jnp.where(z < 0.0, lower + width * jax.nn.sigmoid(z), upper - width * jax.nn.sigmoid(-z))
        return y, jnp.sum(jnp.log(width) + jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z))

    def inverse(_: Params, x: Context, y: Float[Array, " D"]) -> Mapped:
        lower, upper, width = edges(y)
        info = _info(y.dtype)
        below, above = (jnp.log(jnp.clip(gap, info.tiny, info.max)) for gap in (y - lower, upper - y))
        inside = jnp.all((y > lower) & (y < upper))
        return below - above, jnp.where(inside, jnp.sum(jnp.log(width) - below - above), -jnp.inf)

    def limits(dtype: DTypeLike) -> tuple[ArrayLike, ArrayLike]:
        info = _info(dtype)
        lower, upper = (np.asarray(end, dtype).astype(np.float64) for end in ends)
        width = upper - lower
        tiny = float(info.tiny) * np.maximum(1.0, width)
        nearest = [_SPACINGS * np.maximum(float(info.eps) * np.abs(end), tiny) for end in (lower, upper)]
        if not np.all(nearest[0] + nearest[1] < width / 64.0):
            raise ValueError(
                f"low: {np.dtype(dtype).name} cannot tell the points between {low} and {high} apart; move the "
                "interval nearer to zero, or use float64"
            )
        return -np.log(width / nearest[0]), np.log(width / nearest[1])

    return Bijection(forward, inverse, limits)


unit_interval = interval(0.0, 1.0)
"""`y = sigmoid(z)`, from R^D onto the open unit cube; see `interval`."""


def _exponential(_: Params, x: Context, z: Float[Array, " D"]) -> Mapped:
    return jnp.exp(z), jnp.sum(z)


def _logarithm(_: Params, x: Context, y: Float[Array, " D"]) -> Mapped:
    info = _info(y.dtype)
    z = jnp.log(jnp.clip(y, info.tiny, info.max))
    return z, jnp.where(jnp.all(y > 0.0), -jnp.sum(z), -jnp.inf)


def _exponents(dtype: DTypeLike) -> tuple[float, float]:
    info = _info(dtype)
    return math.log(float(info.tiny)) + 1.0, math.log(float(info.max)) - 1.0


positive = Bijection(_exponential, _logarithm, _exponents)
"""`y = exp(z)`, from R^D onto the vectors of positive numbers; `log|det dy/dz| = sum_d z_d`."""


def _softmax(_: Params, x: Context, z: Float[Array, " D"]) -> tuple[Float[Array, " D+1"], Scalar]:
    log_shares = jax.nn.log_softmax(jnp.concatenate([z, jnp.zeros_like(z, shape=1)]))
    return jnp.exp(log_shares), jnp.sum(log_shares)


def _log_ratios(_: Params, x: Context, y: Float[Array, " D"]) -> tuple[Float[Array, " D-1"], Scalar]:
    log_shares = jnp.log(jnp.maximum(y, _info(y.dtype).tiny))
    inside = jnp.all(y > 0.0)
    return log_shares[:-1] - log_shares[-1], jnp.where(inside, -jnp.sum(log_shares), -jnp.inf)


def _ratios(dtype: DTypeLike) -> tuple[float, float]:
    # The smallest share is that of two opposite limits, e^-2 times this, by the number of shares.
    half = 0.5 * (-math.log(float(_info(dtype).tiny)) - 10.0)
    return -half, half


simplex = Bijection(_softmax, _log_ratios, _ratios)
"""`y = softmax(z_1, ..., z_{D-1}, 0)`, from R^{D-1} onto the D positive shares that sum to one.

`log|det dy/dz| = sum_{d <= D} log y_d` is that of the first D - 1 shares. So a density made with it is one of the first
D - 1 shares, like that of a Dirichlet distribution. All D shares are exact to the last bit, however small. The inverse
treats a y that does not sum to one as `y / sum(y)`, but its volume does not.
"""
