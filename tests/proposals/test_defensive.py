"""Mixtures with a broad part: `E[sum_j w_j] = p(x)`, and total weights that are bounded."""

import jax
import jax.numpy as jnp
import numpy as np

import hiwae_jax as hj
from tests import models
from tests.proposals.scalar_weights import KEY, X, mean_total_weights, params, powers, prior, wide_conditional


def test_defensive_weights_integrate_to_the_evidence():
    proposal = hj.defensive(wide_conditional, prior, num_samples=3, sampler=models.leading)
    weightings = [*powers(0.0, 1.0, 3.0), models.learned(3)]
    ratios = mean_total_weights(proposal, weightings, models.quadrature(3, 32))
    np.testing.assert_allclose(ratios, 1.0, rtol=1e-5)


def test_the_balance_heuristic_bounds_the_total_weight_of_a_defensive_mixture():
    def narrow(params, x):
        return 0.5 * x, jnp.full(1, 0.25)

    def log_joint(params, x, z):  # max p(x | z) = 1
        return models.scalar_log_likelihood(params, x, z) + hj.diagonal_gaussian.log_prob(prior(params, x), z)

    proposal = hj.defensive(narrow, prior, num_samples=8, num_broad=2)

    @models.quick_jit
    def largest(keys):
        def totals(key):
            weigh = [hj.make_log_weights(log_joint, proposal, weighting=weighting) for weighting in powers(0.0, 1.0)]
            return jnp.stack([jnp.sum(jnp.exp(f(params(), jnp.asarray(X), key))) for f in weigh])

        return jnp.max(jax.vmap(totals)(keys), axis=0)

    uniform, balance = largest(jax.random.split(KEY, 4_000))
    assert balance <= 8 / 2
    assert uniform > 2 * 8 / 2  # q alone is too narrow for its own weights


def test_the_last_samples_of_a_defensive_mixture_are_the_broad_ones():
    proposal = hj.defensive(
        lambda params, x: (x, jnp.full(2, 0.1)), lambda params, x: (-x, jnp.full(2, 3.0)), num_samples=5, num_broad=2
    )
    loc, scale = proposal.draw(None, jnp.ones(2), KEY).parameters
    np.testing.assert_array_equal(loc[:, 0], [1.0, 1.0, 1.0, -1.0, -1.0])
    np.testing.assert_array_equal(scale[:, 1], [0.1, 0.1, 0.1, 3.0, 3.0])
