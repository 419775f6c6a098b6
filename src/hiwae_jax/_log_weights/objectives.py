"""Objectives besides the importance-weighted bound, as functions of arrays of log-weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._log_weights.bounds import (
    check_log_weights,
    elbo,
    log_power_mean,
    log_sum_exp,
    normalized_weights,
    weighted_tangent,
)


def renyi_bound(log_weights: Float[Array, "..."], *, alpha: float, axis: int = -1) -> Float[Array, "..."]:
    """Variational Renyi bound: `1/(1 - alpha) log 1/K sum_j w_j^(1 - alpha)`.

    alpha = 0 is `iwlb`, alpha = 1 (the limit) `elbo`, alpha = inf the smallest log-weight and alpha = -inf the largest.
    The bound is the logarithm of a power mean, so for each draw it falls as alpha grows.

    For alpha >= 0 and every K it is at most `iwlb` at the same draw. So it is a lower bound on log p(x) on average. For
    alpha < 0 it is a bound in neither direction: it tends to an upper bound as K grows, and at K = 1 it is the ELBO.
    More samples raise its mean for alpha < 1 and lower it for alpha > 1.

    Args:
      log_weights: `log p(x, z_j) - log q(z_j | x)`, without a mixing weight; any shape. Those of `make_log_weights`
        contain it, so add log K to them. `-inf` is a weight of zero.
      alpha: the order, a number that is not NaN.
      axis: the axis of the K samples.

    Returns:
      The log-weights' shape without `axis`, in nats. It is `-inf` where every weight is zero and, for alpha >= 1, where
      any weight is zero.

    *Gradients*: the plain pathwise ones, so log-weight j receives `w_j^(1 - alpha) / sum_m w_m^(1 - alpha)`. All
      receive zero where the value is `-inf`. The exception is alpha = 1, which has the gradient of `elbo`.

    Raises:
      ValueError: if `alpha` is NaN.

    Reference: Li and Turner (2016), theorems 1 and 2.

    >>> log_weights = jnp.log(jnp.array([1.0, 4.0]))
    >>> bool(jnp.allclose(renyi_bound(log_weights, alpha=0.5), 2.0 * jnp.log(1.5)))
    True
    """
    if not isinstance(alpha, (int, float, np.number)) or isinstance(alpha, bool):
        raise TypeError(f"alpha: expected a number that is known when the function is called, got {alpha!r:.80}")
    alpha = float(alpha)
    if math.isnan(alpha):
        raise ValueError("alpha: expected a number, got nan; 0 is the importance-weighted bound, 1 the ELBO")
    log_weights = check_log_weights(log_weights, axis=axis)
    return elbo(log_weights, axis=axis) if alpha == 1.0 else log_power_mean(log_weights, 1.0 - alpha, axis)


def chi_square(log_weights: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Logarithm of the second moment of the weights, `log 1/N sum_n w_n^2`, to be minimised.

    `E[w^2] = p(x)^2 + Var(w) = p(x)^2 (1 + chi^2(p(z | x), q))`. So for a fixed model, the proposal that minimises it
    estimates p(x) with the least variance. Half of it estimates CUBO_2, an upper bound on log p(x), from below.
    Minimise it over the proposal only, and stop the gradient of the model's parameters. Otherwise they would learn to
    lower p(x).

    If the K samples of an estimate `sum_j w_j` depend on each other, the variances of its terms do not give its own.
    Then take N independent draws of the K log-weights of `make_log_weights`, [N, K]. Give `chi_square` their N totals,
    `logsumexp(., axis=-1)`, which contain the mixing weight as they should.

    Args:
      log_weights: logarithms of N independent estimates of p(x); any shape. They are `log p(x, z_n) - log q(z_n | x)`
        of single samples, or totals as above. `-inf` is a weight of zero.
      axis: the axis of the N estimates.

    Returns:
      The log-weights' shape without `axis`; `-inf` where every weight is zero.

    *Gradients*: log-weight n receives `2 w_n^2 / sum_m w_m^2`, plain pathwise. All receive zero where every weight is
    zero. The gradient of the exponential of this function would be unbiased, but would have the scale p(x)^2. That of
    the logarithm is self-normalised: it is free of that scale, and has a bias of order 1/N. At N = 1 it is twice the
    gradient of `log w`.

    Reference: Dieng et al. (2017), CUBO_2; Huang et al. (2019), footnote 5.

    >>> bool(jnp.allclose(chi_square(jnp.log(jnp.array([1.0, 3.0]))), jnp.log(5.0)))
    True
    """
    log_weights = check_log_weights(log_weights, axis=axis)
    num_draws = log_weights.shape[axis]
    return log_sum_exp(2.0 * log_weights, axis) - jnp.log(jnp.asarray(num_draws, log_weights.dtype))


def wake_phase(
    log_weights: Float[Array, "..."], log_proposal: Float[Array, "..."], *, axis: int = -1
) -> Float[Array, "..."]:
    """Wake-phase objective for a proposal, `sum_j wbar_j log q(z_j | x)` with stopped `wbar`, to be maximised.

    `wbar` are the self-normalised weights. The objective estimates minus the inclusive divergence KL(p(z | x), q), up
    to a constant. It works for any q with a density, continuous or discrete. It is no bound, and the model learns
    nothing from it, so train the model with `iwlb`.

    The samples must not carry a gradient. Draw them and stop their gradient, here with `q = (loc, scale)`:

        noise = jax.random.normal(key, (K, D))
        z = jax.lax.stop_gradient(jax.vmap(hj.diagonal_gaussian.forward, in_axes=(None, 0))(q, noise))
        log_proposal = jax.vmap(hj.diagonal_gaussian.log_prob, in_axes=(None, 0))(q, z)

    With a hierarchical proposal, `log_proposal` is `log q_0(z_0) + log q_j(z_j | z_0)`, and the log-weights are those
    of `make_log_weights`. Stop the gradient of z_0 too. If the samples share z_0, normalise over several draws at once,
    [N, K] reshaped to [N K]. Within one draw the weights cannot tell a good z_0 from a bad one.

    Args:
      log_weights: log-weights up to a common constant, so with or without a mixing weight 1/K; any shape. `-inf` is a
        weight of zero.
      log_proposal: log-densities of the samples under the proposal, of the same shape.
      axis: the axis of the K samples.

    Returns:
      The log-weights' shape without `axis`; 0 where every weight is zero.

    *Gradients*: `log_proposal` receives the self-normalised weights, and `log_weights` nothing. As a gradient of the
    divergence it has a bias of order 1/K. At K = 1 its mean is zero, so use several samples.

    Reference: Bornschein and Bengio (2015), wake-phase update of q; Le et al. (2019).

    >>> log_weights, log_proposal = jnp.log(jnp.array([1.0, 3.0])), jnp.array([-2.0, -1.0])
    >>> float(wake_phase(log_weights, log_proposal))
    -1.25
    """
    log_weights = check_log_weights(log_weights, axis=axis)
    log_proposal = same_shape(log_proposal, log_weights)
    weights = normalized_weights(jax.lax.stop_gradient(log_weights), axis=axis)
    return weighted_tangent(weights, log_proposal, axis=axis)


def same_shape(log_proposal: Float[Array, "..."], log_weights: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return `log_proposal` in at least float32, or raise if it does not have one entry for each log-weight."""
    log_proposal = _checks.float_array("log_proposal", log_proposal)
    if log_proposal.shape != log_weights.shape:
        raise ValueError(
            f"log_proposal: expected one log-density for each log-weight, shape {log_weights.shape}, "
            f"got {log_proposal.shape}; sum the log-densities of latent dimensions"
        )
    return log_proposal
