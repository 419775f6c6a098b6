"""`gradient="score_function"`: exact where log_joint jumps, with free bits, and without a path through any sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import hiwae_jax as hj
from tests import models
from tests.gradients.paired_draws import LARGEST_Z, paired

pytestmark = pytest.mark.usefixtures("double_precision")

LOC, EDGE, STEP = 0.8, 1.0, 3.3
RULE = np.polynomial.legendre.leggauss(40)


def step_joint(params, x, z):
    """A Gaussian with a box in the middle that is worth 3.3 nats more."""
    return -0.5 * z[0] ** 2 + jnp.where(jnp.abs(z[0]) < EDGE, STEP, 0.0)


def conditional(loc, x):
    return loc, jnp.ones(1)


def pieces(loc):
    """Points and weights for a standard normal around `loc`, with no point on an edge of the box."""
    points, weights = [], []
    for low, high in ((-12.0, -EDGE), (-EDGE, EDGE), (EDGE, 12.0)):
        z = low + 0.5 * (high - low) * (RULE[0] + 1.0)
        points.append(z)
        weights.append(0.5 * (high - low) * RULE[1] * scipy.stats.norm.pdf(z, loc))
    return np.concatenate(points), np.concatenate(weights)


def mean_bound(loc, num_samples):
    """`E[log 1/K sum_j w_j]`, integrated over the samples."""
    points, density = pieces(loc)
    z, weights = map(np.asarray, models.product_rule(points, density, num_samples))
    log_w = np.where(np.abs(z) < EDGE, STEP, 0.0) - 0.5 * z**2 - scipy.stats.norm.logpdf(z, loc)
    return float(np.sum(weights * (np.logaddexp.reduce(log_w, axis=1) - np.log(num_samples))))


@pytest.mark.parametrize("num_samples", [1, 2])
def test_it_has_the_surface_term_of_a_jump(num_samples):
    """Every path loses it: for K = 1 paths give -0.80 where -1.83 is right."""
    expected = (mean_bound(LOC + 1e-4, num_samples) - mean_bound(LOC - 1e-4, num_samples)) / 2e-4
    points, density = pieces(LOC)
    z, weights = models.product_rule(points, density, num_samples)

    @models.quick_jit
    def mean_gradient(loc, noise):
        found = []
        for gradient in ("score_function", "reparameterized"):
            proposal = hj.independent(conditional, num_samples=num_samples, sampler=models.leading)
            bound = hj.make_bound(step_joint, proposal, gradient=gradient)
            each = jax.vmap(jax.grad(bound), in_axes=(None, None, 0))(loc, None, noise)
            found.append(jnp.asarray(weights) @ each[:, 0])
        return found

    exact, lost = map(float, mean_gradient(jnp.array([LOC]), jnp.asarray(z) - LOC))
    assert exact == pytest.approx(expected, abs=1e-6)
    assert abs(lost - expected) > 0.1
    if num_samples == 1:
        assert (exact, lost) == pytest.approx((-1.83, -0.80), abs=5e-3)


@pytest.mark.parametrize(
    "case",
    [
        {"alpha": 1.0, "shared": False, "beta": 0.3, "free_bits": 0.4},
        {"alpha": 0.0, "equal": True},
    ],
    ids=str,
)
def test_it_is_unbiased_on_paired_draws(case):
    z, _ = paired("score_function", draws=20_000, **case)
    assert z < LARGEST_Z


def test_the_other_samples_are_a_baseline():
    """With the posterior as proposal all weights are equal, so that signals of three samples, and the noise, vanish."""
    model = models.LinearGaussian(seed=4)
    scale = jnp.sqrt(jnp.asarray(np.diag(model.posterior_cov)))

    def log_joint(params, x, z):
        return jnp.sum(jax.scipy.stats.norm.logpdf(z, jnp.asarray(model.posterior_mean), scale)) + 7.0

    proposal = hj.independent(lambda mean, x: (mean, scale), num_samples=3)
    bound = hj.make_bound(log_joint, proposal, gradient="score_function")
    value, gradient = jax.value_and_grad(bound)(jnp.asarray(model.posterior_mean), None, jax.random.key(0))
    assert float(value) == pytest.approx(7.0)
    plain_score = jax.grad(hj.make_bound(log_joint, proposal, gradient="reparameterized"))(
        jnp.asarray(model.posterior_mean), None, jax.random.key(0)
    )
    # d log w_j at fixed samples is left: the average of -d log q(z_j), as in the plain estimator.
    np.testing.assert_allclose(gradient, plain_score, atol=1e-12)


def test_a_bound_of_minus_infinity_has_no_signal():
    """All weights are zero: nothing is learned from the example, and no number is NaN."""
    proposal = hj.independent(conditional, num_samples=2)
    bound = hj.make_bound(lambda params, x, z: -jnp.inf + 0.0 * z[0], proposal, gradient="score_function")
    value, gradient = jax.value_and_grad(bound)(jnp.array([LOC]), None, jax.random.key(0))
    assert float(value) == -np.inf
    np.testing.assert_array_equal(gradient, 0.0)
