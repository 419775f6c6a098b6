"""Members that are not Gaussian: a user's own family, and Student's t against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import hiwae_jax as hj
from tests import models

from .conftest import KEY, mean_total_weights, params, powers, prior, wide_conditional


def _logistic_forward(parameters, noise):
    loc, scale = parameters
    return loc + scale * (jax.scipy.special.log_ndtr(noise) - jax.scipy.special.log_ndtr(-noise))


def _logistic_log_prob(parameters, z):
    loc, scale = parameters
    standardized = (z - loc) / scale
    return jnp.sum(-standardized - 2.0 * jax.nn.softplus(-standardized) - jnp.log(scale))


def _logistic_inverse(parameters, z):
    loc, scale = parameters
    standardized = (z - loc) / scale  # by the lower tail, where probabilities do not round to one
    return -jnp.sign(standardized) * jax.scipy.special.ndtri(jax.nn.sigmoid(-jnp.abs(standardized)))


LOGISTIC = hj.Family(_logistic_forward, _logistic_inverse, _logistic_log_prob)
"""A user's own family, on standard normal noise."""


@pytest.mark.parametrize("shared", [True, False])
def test_hierarchical_weights_of_another_family_integrate_to_the_evidence(shared):
    proposal = hj.hierarchical(
        models.scalar_base,
        lambda params, x, z0: jax.tree.map(lambda leaf: 0.8 * leaf, models.scalar_conditionals(params, x, z0)),
        models.scalar_reverse,
        shared=shared,
        family=LOGISTIC,
        sampler=models.leading,
    )
    weightings = [*powers(0.0, 1.0), models.learned(2)]
    grid = models.quadrature(3, 36) if shared else models.quadrature(4, 18)
    ratios = mean_total_weights(proposal, weightings, grid)
    np.testing.assert_allclose(ratios, 1.0, rtol=1e-5 if shared else 1e-3)


def test_doubly_reparameterized_is_unbiased_for_another_family():
    """A sample is re-expressed through the other member by the family's inverse."""
    proposal = hj.defensive(
        lambda params, x: (params["loc"][:1] + 0.2 * x, 0.5 * jnp.exp(params["log_scale"][:1])),
        lambda params, x: (params["loc"][1:], 0.6 * jnp.exp(params["log_scale"][1:])),
        num_samples=2,
        family=LOGISTIC,
        sampler=models.leading,
    )
    gradients = ("reparameterized", "doubly_reparameterized")
    means = models.mean_gradients(proposal, hj.power_heuristic(1.0), gradients, params(), dimensions=2, nodes=80)
    plain, other = (means[gradient, 1.0][1] for gradient in gradients)
    np.testing.assert_allclose(other, plain, atol=1e-6)


def test_weights_of_student_members_integrate_to_the_evidence():
    df = 4.0
    family, _ = hj.student_t(df)
    proposal = hj.defensive(wide_conditional, prior, num_samples=2, family=family, sampler=models.leading)
    # A trapezoidal rule in u, of noise sinh(u): exact to rounding for what decays at both ends.
    u = np.linspace(-7.0, 7.0, 100)
    density = scipy.stats.t.pdf(np.sinh(u), df) * np.cosh(u) * (u[1] - u[0])
    ratios = mean_total_weights(
        proposal, [*powers(0.0, 1.0, 3.0), models.learned(2)], models.product_rule(np.sinh(u), density, 2)
    )
    np.testing.assert_allclose(ratios, 1.0, rtol=1e-8)


def test_student_t_is_that_of_scipy():
    df = 1.7
    family, sampler = hj.student_t(df)
    loc, scale = np.array([0.3, -1.0]), np.array([0.5, 2.0])
    z = np.array([4.0, -30.0])
    expected = scipy.stats.t.logpdf(z, df, loc, scale).sum()
    parameters = jnp.asarray(loc), jnp.asarray(scale)
    assert float(family.log_prob(parameters, jnp.asarray(z))) == pytest.approx(expected, abs=1e-11)
    np.testing.assert_allclose(family.forward(parameters, family.inverse(parameters, jnp.asarray(z))), z, rtol=1e-13)
    noise = np.asarray(sampler(KEY, (40_000,), jnp.float32))
    assert scipy.stats.kstest(noise, scipy.stats.t(df).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_one_scale_for_all_dimensions_counts_for_each_of_them(shape):
    z, loc, one, all_of_them = jnp.linspace(-1.0, 2.0, 4), jnp.zeros(4), jnp.full(shape, 2.5), jnp.full(4, 2.5)
    for family in (hj.diagonal_gaussian, hj.student_t(5.0)[0]):
        np.testing.assert_allclose(family.log_prob((loc, one), z), family.log_prob((loc, all_of_them), z), rtol=1e-6)
    for one_map, other in zip(
        (hj.affine_map(lambda p, x: (0.0, one)), hj.coupling_map(lambda p, x, z: (0.0, one), kept=[True, False] * 2)),
        (
            hj.affine_map(lambda p, x: (loc, all_of_them)),
            hj.coupling_map(lambda p, x, z: (loc, all_of_them), kept=[True, False] * 2),
        ),
        strict=True,
    ):
        for direction in ("forward", "inverse"):
            ours, theirs = (getattr(m, direction)(None, None, z) for m in (one_map, other))
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)
