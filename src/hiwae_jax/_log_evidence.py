"""Streaming estimates of log p(x): memory does not grow with the number of samples."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hiwae_jax import _checks
from hiwae_jax._log_weights.bounds import check_log_weights, log_sum_exp
from hiwae_jax._log_weights.control_variates import DRAWS_FOR_EACH, Moments, add_draws, corrected, no_moments
from hiwae_jax._log_weights.pareto import SMALLEST_TAIL, tail_length, tail_shape
from hiwae_jax._make_log_weights import LogWeights
from hiwae_jax._random_streams import draw_key
from hiwae_jax._types import Example, Key, Params, Scalar, Unchecked

_LONGEST_TAIL = 512  # the standard error of a shape k from so many values is (1 + k) / 23
_SORTED_FROM = 64  # values from which on a sort takes less time than to insert them one by one


Weigh = Callable[[Params, Example, Key], tuple[Float[Array, " K"], Float[Array, " K"]]]  # log-weights and shares


class LogEvidence(NamedTuple):
    """An estimate of log p(x) of one example.

    Attributes:
      estimate: log of the mean of the independent estimates of p(x), in nats; below log p(x) on average. With control
        variates the mean can come out negative, if the draws say next to nothing; then this is NaN.
      standard_error: Monte Carlo standard error of `estimate`, by the delta method; `inf` where every weight is zero,
        NaN where a log-weight is NaN or `inf`, and where `estimate` is NaN.
      effective_draws: `(sum v)^2 / sum v^2` of the independent estimates v; few of many is a warning that the estimate
        rests on a handful of draws and that its standard error is too small.
      pareto_khat: `pareto_khat` of all R * K weights where the samples of a draw are independent, and otherwise of the
        R estimates v. Above 0.7 neither `estimate` nor `standard_error` is to be believed, and more draws do not help.
        `inf` if there are fewer than 25 of them, NaN where a log-weight is NaN or `inf`. A small value is no
        guarantee: it knows nothing of a part of the posterior that no sample has found.
    """

    estimate: Scalar
    standard_error: Scalar
    effective_draws: Scalar
    pareto_khat: Scalar


class _Sums(NamedTuple):
    """What is kept of the draws so far. One draw gives one estimate v of p(x).

    Attributes:
      largest: the largest log v.
      total: the sum of v, in units of the largest.
      squares: the sum of v^2, in the same units.
      tail: the largest log-weights, or the largest log v where the samples of a draw depend on each other; ascending.
      moments: of v, in the same units, and the control variates; None without those.
    """

    largest: Scalar
    total: Scalar
    squares: Scalar
    tail: Float[Array, " T"]
    moments: Moments | None


@_checks.by_name
def make_log_evidence(
    log_weights: Callable[[Params, Example, PRNGKeyArray], Float[Array, " K"]],
    *,
    num_draws: int,
    chunk_size: int = 1,
    independent_samples: bool | None = None,
    control_variates: bool = False,
) -> Callable[[Params, Example, PRNGKeyArray], LogEvidence]:
    """Estimate log p(x) from many independent draws of K weights, a chunk of draws in memory at a time.

    Args:
      log_weights: from `make_log_weights`: `(params, x, key) -> [K]` with `E[sum_j w_j] = p(x)`.
      num_draws: R, the number of independent draws; R * K samples of z in all. At least 2.
      chunk_size: how many draws are evaluated at once, under `vmap`. Memory grows with it and, if the model is too
        small to fill the machine, speed too. The result does not depend on it beyond rounding (for keys of JAX's
        default kind; "rbg" keys draw other numbers under `vmap`).
      independent_samples: whether the K samples of one draw are independent of each other, so that `pareto_khat` may
        be that of single weights. None asks `log_weights`, which knows the answer if `make_log_weights` made it: the
        samples of `independent`, `defensive`, `hierarchical(shared=False)` and `mixture(draw="with_replacement")` are
        independent unless the caller gave a `sampler`. False is right for any function.
      control_variates: whether to use the members' shares of the samples, `c_i = sum_j q_i(z_j) / sum_m q_m(z_j)`, as
        control variates. Each has mean one, whatever the target is and even if samples are correlated. A power
        heuristic computes their densities anyway; under other weightings those of all pairs come on top. The estimate
        of p(x) stays unbiased: the coefficients from the even draws serve the odd ones, and the other way round. It is
        less noisy where the target is close to a combination of the members (docs/choosing.md says by how much).
        `log_weights` must come from `make_log_weights`, with members that differ.

    Returns:
      `log_evidence(params, x, key) -> LogEvidence`. The R keys are folded from `key`, one for each draw.

    The shape of the tail is fitted to the largest `min(n / 5, 3 sqrt(n), 512)` of n values; no others are kept. For
    independent samples n is R * K, so that the result does not depend on how samples are grouped into draws. Where the
    samples of a draw share a z_0 or are correlated, n is R: the mean of K weights hides the tail of a single one, and
    only R values of z_0 were seen. Take many draws of a small K to see more.

    *Gradients*: `estimate` has its own gradient, in which each draw has the weight v / sum v; `pareto_khat` has none.
    With control variates the weight is v over R times the estimate of p(x), and they have no gradient.

    Raises:
      ValueError: with `control_variates`, for log-weights whose members have no shares or constant ones. When called:
        for fewer than 4 draws for each member.

    Reference: Burda, Grosse and Salakhutdinov (2016), section 5; Huang and Courville (2017) for constant memory;
    Vehtari et al. (2024) for the shape of the tail; Kondapaneni et al. (2019), "Optimal multiple importance sampling",
    for the control variates.

    >>> two_weights = lambda params, x, key: params + jax.random.normal(key, (2,)) - 0.5  # E[w] = exp(params)
    >>> log_evidence = make_log_evidence(two_weights, num_draws=10_000, chunk_size=100)
    >>> result = jax.jit(log_evidence)(-100.0, None, jax.random.key(0))
    >>> bool(abs(result.estimate - (-100.0 + jnp.log(2.0))) < 4 * result.standard_error)
    True
    """
    if _checks.positive_integer("num_draws", num_draws) < 2:
        raise ValueError("num_draws: expected at least 2, which a standard error needs, got 1")
    chunk_size = min(_checks.positive_integer("chunk_size", chunk_size), num_draws)
    if independent_samples is None:
        independent_samples = getattr(log_weights, "independent_samples", False)
    _checks.function("log_weights", log_weights, "(params, x, key)", result="[K]")
    independent_samples = _checks.boolean("independent_samples", independent_samples)
    weigh = _weigh_with_shares(log_weights) if _checks.boolean("control_variates", control_variates) else None

    def log_evidence(params: Params, x: Example, key: PRNGKeyArray) -> LogEvidence:
        def of_one(draw: Int[Array, ""]) -> tuple[Float[Array, " K"], Float[Array, " K"] | None]:
            one_key = draw_key(key, draw)
            log_w, shares = (log_weights(params, x, one_key), None) if weigh is None else weigh(params, x, one_key)
            return _weights_of_one_example(log_w), shares

        def add(chunk: Int[Array, ""], sums: _Sums) -> _Sums:
            draws = chunk * chunk_size + jnp.arange(chunk_size)
            # The last chunk may run past the end: what it draws there has weight zero.
            is_drawn = (draws < num_draws)[:, None]
            log_w, shares = jax.vmap(of_one)(draws)
            log_w = jnp.where(is_drawn, log_w, -jnp.inf)
            log_estimates = log_sum_exp(log_w, -1)
            candidates = log_w.ravel() if independent_samples else log_estimates
            return _add(sums, log_estimates, candidates, shares, draws=draws, num_draws=num_draws)

        abstract, shares = jax.eval_shape(of_one, jnp.zeros((), jnp.int32))
        if shares is not None:
            _require_draws(num_draws, len(shares))
        start = _no_draws(abstract.dtype, None if shares is None else len(shares))
        sums = jax.lax.fori_loop(0, -(-num_draws // chunk_size), add, start)
        return _summary(sums, num_draws, num_draws * (abstract.shape[0] if independent_samples else 1))

    return log_evidence


def _weigh_with_shares(
    log_weights: Unchecked,
) -> Weigh:
    """The function that gives the members' shares too, or an error that says why there is none."""
    if not isinstance(log_weights, LogWeights):
        raise ValueError(
            "control_variates: the densities of all members are needed, and log_weights is a function that does not "
            "give them; take log_weights from hj.make_log_weights, or leave control_variates out"
        )
    if log_weights.with_shares is None:
        raise ValueError(f"control_variates: {log_weights.why_no_shares}; leave control_variates out")
    return log_weights.with_shares


def _require_draws(num_draws: int, num_members: int) -> None:
    """Raise if the coefficients of the control variates cannot be estimated."""
    if num_members == 1:
        raise ValueError("control_variates: one member alone has the constant share 1; leave control_variates out")
    if num_draws < DRAWS_FOR_EACH * num_members:
        raise ValueError(
            f"num_draws: expected at least {DRAWS_FOR_EACH * num_members}, {DRAWS_FOR_EACH} for each of {num_members} "
            f"members, from which the coefficients of the control variates come, got {num_draws}"
        )


def _weights_of_one_example(log_weights: Unchecked) -> Float[Array, " K"]:
    """What the user's function gave, or what is wrong with it."""
    checked = check_log_weights(log_weights, axis=-1)
    if checked.ndim != 1:
        raise ValueError(f"log_weights: expected log-weights [K] of one example, got shape {checked.shape}")
    return checked


def _no_draws(dtype: DTypeLike, num_variates: int | None) -> _Sums:
    """The sums before the first draw."""
    nothing = jnp.full((), -jnp.inf, dtype)
    zeros = jnp.zeros((), dtype), jnp.zeros((), dtype)
    moments = None if num_variates is None else no_moments(num_variates, dtype)
    return _Sums(nothing, *zeros, jnp.full(_LONGEST_TAIL + 1, -jnp.inf, dtype), moments)


def _summary(sums: _Sums, num_draws: int, num_values: int) -> LogEvidence:
    """What the sums over all draws say; `num_values` is the number of values that the tail was taken from."""
    # Where every weight is zero there is nothing to say but -inf.
    is_zero = sums.total == 0.0
    total, squares = (jnp.where(is_zero, 1.0, value) for value in (sums.total, sums.squares))
    mean, relative_error = total / num_draws, _relative_error(total, squares, num_draws)
    if sums.moments is not None:
        correction, variance = jax.lax.stop_gradient(corrected(sums.moments, num_draws))
        mean = jnp.where(is_zero, mean, mean + correction)
        # Below zero the logarithm is NaN, and so is its error; a variance is below zero by rounding only.
        mean = jnp.where(mean > 0.0, mean, jnp.nan)
        relative_error = jnp.sqrt(jnp.where(variance < 0.0, 0.0, variance)) / mean
    length = min(tail_length(num_values), _LONGEST_TAIL)
    has_tail = length >= SMALLEST_TAIL
    return LogEvidence(
        estimate=jnp.where(is_zero, -jnp.inf, sums.largest + jnp.log(mean)),
        standard_error=jnp.where(is_zero, jnp.inf, relative_error),
        effective_draws=jnp.where(is_zero, 0.0, total**2 / squares),
        pareto_khat=tail_shape(sums.tail[-length - 1 :]) if has_tail else jnp.asarray(jnp.inf, sums.total.dtype),
    )


def _relative_error(total: Scalar, squares: Scalar, num_draws: int) -> Scalar:
    """The standard error of the mean of the estimates v, in units of the mean, from their sum and that of v^2."""
    variance = (num_draws * squares / total**2 - 1.0) / (num_draws - 1.0)
    has_spread = variance > 0.0
    no_spread = jnp.where(jnp.isnan(variance), jnp.nan, 0.0)  # below zero by rounding only
    return jnp.where(has_spread, jnp.sqrt(jnp.where(has_spread, variance, 1.0)), no_spread)


def _add(
    sums: _Sums,
    log_estimates: Float[Array, " C"],
    candidates: Float[Array, " N"],
    shares: Float[Array, "C K"] | None,
    *,
    draws: Int[Array, " C"],
    num_draws: int,
) -> _Sums:
    """The sums with the estimates of one more chunk; `candidates` are its values for the tail, `draws` its numbers."""
    stopped = jax.lax.stop_gradient(log_estimates)
    largest = jnp.maximum(sums.largest, jnp.max(stopped))
    # Sums are kept relative to the largest, not as logarithms: at log p(x) = -100 one part in a million is lost to the
    # rounding of a logarithm, and the millionth draw with it. A shift of -inf - -inf would be NaN.
    shift = jnp.where(largest == -jnp.inf, 0.0, largest)
    rescale = jnp.exp(sums.largest - shift)
    values = jnp.exp(log_estimates - shift)
    moments = sums.moments
    if moments is not None and shares is not None:
        fixed, variates = jax.lax.stop_gradient((values, shares))
        moments = add_draws(moments, fixed, variates, draws=draws, num_draws=num_draws, rescale=rescale)
    return _Sums(
        largest,
        sums.total * rescale + jnp.sum(values),
        sums.squares * rescale**2 + jnp.sum(values**2),
        _largest(sums.tail, jax.lax.stop_gradient(candidates)),
        moments,
    )


def _largest(tail: Float[Array, " T"], values: Float[Array, " C"]) -> Float[Array, " T"]:
    """The T largest numbers of the tail and the values, in ascending order, as the tail is."""

    def insert(tail: Float[Array, " T"], value: Scalar) -> tuple[Float[Array, " T"], None]:
        # The smallest number falls out.
        above = jnp.append(tail[1:], jnp.inf)
        return jnp.maximum(tail, jnp.minimum(value, above)), None

    if len(values) >= _SORTED_FROM:
        return jnp.sort(jnp.concatenate([tail, values]))[-len(tail) :]
    return jax.lax.scan(insert, tail, values)[0]
