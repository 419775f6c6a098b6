"""Mirrored samples: `E[sum_j w_j] = p(x)`, and where they lie."""

import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import models
from tests.proposals.scalar_weights import KEY, mean_total_weights, powers, wide_conditional


@pytest.mark.parametrize("num_samples", [2, 4])
def test_antithetic_weights_integrate_to_the_evidence(num_samples):
    proposal = hj.antithetic(wide_conditional, num_samples=num_samples, sampler=models.leading)
    weightings = [*powers(0.0, 1.0), models.learned(num_samples)]
    ratios = mean_total_weights(proposal, weightings, models.quadrature(num_samples // 2, 60))
    np.testing.assert_allclose(ratios, 1.0, rtol=1e-8)


def test_antithetic_samples_are_mirrored_in_the_centre():
    def conditional(params, x):
        return x, 0.7 * jnp.ones_like(x)

    x = jnp.array([0.5, -1.0])
    z = hj.antithetic(conditional, num_samples=6).draw(None, x, KEY).z
    np.testing.assert_allclose(0.5 * (z[:3] + z[3:]), jnp.stack([x] * 3), atol=1e-12)
    np.testing.assert_allclose(z[:3], hj.independent(conditional, num_samples=3).draw(None, x, KEY).z, atol=1e-12)
