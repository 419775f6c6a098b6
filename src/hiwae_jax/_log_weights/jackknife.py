"""The jackknife estimate of log p(x) in time linear in K, and without the cancellation of its large coefficients.

The estimate is a sum of nearly equal numbers with alternating coefficients of size K^order. Computed as it stands, it
loses all digits in float32. Here the sum is first rearranged by hand.

Each term of the estimate leaves out a set S of samples. S consists of a set B of some of the `order` largest weights
and a set A of other samples. Let t(S) be the sum of the weights that remain without S. By inclusion and exclusion over
the subsets C of A there are numbers D_C(B) with

    log t(B and A) = sum over all subsets C of A of D_C(B),
    sum over all C of c samples of D_C(B) = -integral_0^inf exp(-s) e_c(expm1(s w / t(B))) ds / s.

Here e_c is the elementary symmetric polynomial, the sum of all products of c terms, and w are the weights that are not
among the largest. All its terms are positive. The number that multiplies each integral is exact and no larger than
about 60. The largest weights are set apart because a weight that dominates would make the integrand decay slowly.
Without them it decays at least like exp(-s / 2).
"""

import decimal
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hiwae_jax import _checks
from hiwae_jax._log_weights.bounds import check_log_weights, iwlb, log_sum_exp

_LARGEST_ORDER = 4


def jackknife(log_weights: Float[Array, "..."], *, order: int, axis: int = -1) -> Float[Array, "..."]:
    """Jackknife estimate of log p(x), `sum_j c_j mean_S log 1/(K-j) sum_{i not in S} w_i`, S of j <= order samples.

    `c_j = (-1)^j (K-j)^order / ((order-j)! j!)`. The bias of `iwlb`, of order 1/K, becomes one of order
    1/K^(order+1), at the price of more variance. For `order >= 1` it is *not* a bound: its mean may lie above log p(x).

    Args:
      log_weights: `log p(x, z_j) - log q(z_j | x)` of independent, equally distributed samples, without a mixing
        weight; any shape. `-inf` is a weight of zero.
      order: 0 to 4, less than K; 0 is `iwlb`.
      axis: the axis of the K samples.

    Returns:
      The log-weights' shape without `axis`, in nats. With no more than `order` weights above zero some subset has
      none: the value is then the limit of weights going to zero, `-inf` if their number is even and `inf` if odd.

    *Gradients*: ordinary, and they sum to one over the samples; zero where the value is infinite. Those that pass
    through a reparameterized z are unbiased for the estimate where log_joint has no jumps in z, but carry no guarantee
    of a bound.

    Cost: O(K) operations and memory for any order; the subsets are not enumerated.

    Reference: Nowozin (2018), "Debiasing evidence approximations: on importance-weighted autoencoders and jackknife
    variational inference", JVI-m; the coefficients are those of Sharot (1976), "The generalized jackknife".

    >>> log_weights = jnp.log(jnp.array([1.0, 3.0]))
    >>> leave_one_out = jnp.mean(log_weights)
    >>> bool(jnp.allclose(jackknife(log_weights, order=1), 2 * jnp.log(2.0) - leave_one_out))
    True
    """
    log_weights = check_log_weights(log_weights, axis=axis)
    number = _checks.integer(order)
    if number is None or number not in range(_LARGEST_ORDER + 1):
        raise ValueError(f"order: expected an integer from 0 to {_LARGEST_ORDER}, got {order!r:.80}; 0 is iwlb")
    if order >= log_weights.shape[axis]:
        raise ValueError(
            f"order: expected less than the number of samples, got order {order} for log_weights of shape "
            f"{log_weights.shape} along axis {axis}; leave out fewer or draw more samples"
        )
    if order == 0:
        return iwlb(log_weights, axis=axis)
    last = jnp.moveaxis(log_weights, axis, -1)
    estimate = jnp.vectorize(functools.partial(_estimate, order=int(order)), signature="(k)->()")
    value: jax.Array = estimate(jnp.sort(last, descending=True))
    return value


@functools.partial(jax.jit, static_argnames="order")
def _estimate(log_weights: Float[Array, " K"], *, order: int) -> Float[Array, ""]:
    """The estimate of one row of log-weights, sorted with the largest first."""
    num_positive = jnp.sum(log_weights > -jnp.inf)
    is_infinite = (num_positive <= order) & ~jnp.any(jnp.isnan(log_weights))
    limit = jnp.where(num_positive % 2 == 0, -jnp.inf, jnp.inf)
    # Rows with too few weights are replaced before the arithmetic, or their gradient would be NaN.
    usable = jnp.where(is_infinite, 0.0, log_weights)
    # The coefficients multiply rounding errors by up to 60: let them be those of small numbers, not of log p(x).
    shift = jax.lax.stop_gradient(usable[0])
    value = _expansion(usable - shift, order)
    return jnp.where(is_infinite, limit, value + shift)


def _expansion(log_weights: Float[Array, " K"], order: int) -> Float[Array, ""]:
    """The estimate of one sorted row with more than `order` weights above zero: the sum of the coefficients times D_C.

    Products are summed and not written as matrix products: a GPU rounds the inputs of a matrix product to ten bits.
    """
    dtype = log_weights.dtype
    coefficients, log_counts = _coefficients(len(log_weights), order)
    log_others = log_weights[order:]
    sets = _subsets(order)
    sizes = sets.sum(axis=1)
    log_remaining = _log_remaining(log_weights[:order], log_others, sets)

    # C = {}: D_C(B) = log t(B).
    of_largest = jnp.asarray(coefficients[sizes[1:], 0], dtype)
    value = log_remaining[0] - log_counts + jnp.sum(of_largest * (log_remaining[1:] - log_remaining[0]))
    # All C of c samples together: an integral for each B that leaves c samples to choose.
    num_sets = [int(np.sum(sizes + c <= order)) for c in range(1, min(order, log_others.size) + 1)]
    nodes, factors = (jnp.asarray(array, dtype) for array in _quadrature())
    terms = _integrand_terms(log_others, log_remaining[: num_sets[0]], nodes)
    for c, sums in enumerate(_elementary_sums(terms, num_sets), start=1):
        integrals = jnp.sum(sums * factors[None, :], axis=-1)
        value -= jnp.sum(jnp.asarray(coefficients[sizes[: len(sums)], c], dtype) * integrals)
    return value


def _log_remaining(
    log_largest: Float[Array, " order"], log_others: Float[Array, " others"], sets: Bool[np.ndarray, "B order"]
) -> Float[Array, " B"]:
    """`log t(B)` for each set B of the largest weights: the log of the sum of all weights but those in B."""
    log_kept = jnp.where(sets, -jnp.inf, jnp.broadcast_to(log_largest, sets.shape))
    log_rest = jnp.broadcast_to(log_sum_exp(log_others, -1), (len(sets), 1))
    return log_sum_exp(jnp.concatenate([log_kept, log_rest], axis=1), -1)


def _integrand_terms(
    log_others: Float[Array, " others"], log_remaining: Float[Array, " B"], nodes: Float[Array, " nodes"]
) -> Float[Array, "B nodes others"]:
    """`expm1(s w / t(B))` for each set B, node s and weight w."""
    fractions = jnp.exp(jnp.broadcast_to(log_others, (len(log_remaining), log_others.size)) - log_remaining[:, None])
    return jnp.expm1(nodes[None, :, None] * fractions[:, None, :])


def _elementary_sums(
    terms: Float[Array, "B nodes others"], num_sets: Sequence[int]
) -> Iterator[Float[Array, "sets nodes"]]:
    """The elementary symmetric polynomials e_1, e_2, ... of the terms along the last axis.

    e_c is the sum of all products of c terms. It is given for the first `num_sets[c - 1]` sets B.
    """
    # Entry k is the sum of all products of c terms whose last one is term k + c - 1.
    by_last_term = terms
    yield jnp.sum(by_last_term, axis=-1)
    for c, rows in enumerate(num_sets[1:], start=2):
        one_term_fewer = jnp.cumsum(by_last_term[:rows], axis=-1)[..., :-1]
        by_last_term = one_term_fewer * terms[:rows, :, c - 1 :]
        yield jnp.sum(by_last_term, axis=-1)


def _subsets(order: int) -> Bool[np.ndarray, "B order"]:
    """All subsets of `order` samples as rows of booleans, smaller ones first."""
    rows = np.array(list(itertools.product([False, True], repeat=order)))
    return rows[np.argsort(rows.sum(axis=1), kind="stable")]


@functools.lru_cache
def _coefficients(num_samples: int, order: int) -> tuple[np.ndarray, float]:
    """Exact coefficients `[|B|, |C|]` of `D_C(B)`, and the constant `sum_j c_j log(K - j)`."""
    signs = [
        Fraction((-1) ** j * (num_samples - j) ** order, math.factorial(order - j) * math.factorial(j))
        for j in range(order + 1)
    ]
    table = np.zeros((order + 1, order + 1))
    for b, c in itertools.product(range(order + 1), repeat=2):
        # The subsets of j samples that contain B, no other of the largest, and C, as a fraction of all of them.
        table[b, c] = sum(
            signs[j] * math.comb(num_samples - order - c, j - b - c) / math.comb(num_samples, j)
            for j in range(b + c, order + 1)
            if num_samples - order >= c
        )
    with decimal.localcontext(prec=60):
        log_counts = sum(
            decimal.Decimal(sign.numerator) / sign.denominator * decimal.Decimal(num_samples - j).ln()
            for j, sign in enumerate(signs)
        )
    return table, float(log_counts)


@functools.lru_cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Nodes s and factors such that `sum factors f(s)` is the integral of `exp(-s) f(s) / s`, by Gauss and Laguerre.

    The integrand decays like exp(-s / 2) at the slowest and like exp(-s) at the quickest. With the nodes stretched by
    1.5, each further node divides the error by 9 or more. Twelve nodes bring it to the rounding of float64.
    """
    y, weights = np.polynomial.laguerre.laggauss(12)
    return 1.5 * y, weights * np.exp(-0.5 * y) / y
