"""The scalar model, and the mean total weight of a proposal by quadrature over its noise."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

import hiwae_jax as hj
from tests import models

KEY = jax.random.key(3)
X = models.SCALAR_X


def params():
    """Parameters of the scalar model and of a learned weighting."""
    return models.with_logits(models.scalar_params(0.25))


def mean_total_weights(proposal, weightings, grid):
    """`E[sum_j w_j] / p(x)` of each weighting, by quadrature over the noise; p(x) of a one-dimensional latent."""
    points, weights = grid

    @models.quick_jit  # one program for all weightings
    def totals(params, points):
        def one(key):
            functions = [
                hj.make_log_weights(models.scalar_log_joint, proposal, weighting=weighting) for weighting in weightings
            ]
            return jnp.stack([jnp.sum(jnp.exp(f(params, jnp.asarray(X), key))) for f in functions])

        return jax.vmap(one)(points)

    return np.asarray(weights @ totals(params(), points)) / models.scalar_evidence(params())


def powers(*alphas):
    """Power heuristics."""
    return [hj.power_heuristic(alpha) for alpha in alphas]


def normal(z, loc, scale):
    """Log-densities by scipy."""
    return scipy.stats.norm.logpdf(np.asarray(z), np.asarray(loc), np.asarray(scale))


def wide_conditional(params, x):
    """A normal wider than the posterior."""
    return params["loc"][:1] + 0.2 * x, jnp.exp(params["log_scale"][:1] + 0.2)


def prior(params, x):
    """A standard normal."""
    return jnp.zeros(1), jnp.ones(1)
