"""Other families than the diagonal Gaussian: a user's own, Student's t, and Gaussians with any covariance."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import hiwae_jax as hj
from tests import models
from tests.proposals.scalar_weights import KEY, mean_total_weights, params, powers, prior, wide_conditional

pytestmark = pytest.mark.usefixtures("double_precision")


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
    family = hj.student_t(df)
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
    family = hj.student_t(df)
    loc, scale = np.array([0.3, -1.0]), np.array([0.5, 2.0])
    z = np.array([4.0, -30.0])
    expected = scipy.stats.t.logpdf(z, df, loc, scale).sum()
    parameters = jnp.asarray(loc), jnp.asarray(scale)
    assert float(family.log_prob(parameters, jnp.asarray(z))) == pytest.approx(expected, abs=1e-11)
    np.testing.assert_allclose(family.forward(parameters, family.inverse(parameters, jnp.asarray(z))), z, rtol=1e-13)
    noise = np.asarray(family.sampler(KEY, (40_000,), jnp.float32))
    assert scipy.stats.kstest(noise, scipy.stats.t(df).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_one_scale_for_all_dimensions_counts_for_each_of_them(shape):
    z, loc, one, all_of_them = jnp.linspace(-1.0, 2.0, 4), jnp.zeros(4), jnp.full(shape, 2.5), jnp.full(4, 2.5)
    for family in (hj.diagonal_gaussian, hj.student_t(5.0)):
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
            chex.assert_trees_all_close(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("base_family", ["Gaussian", "Student"])
@pytest.mark.parametrize("shared", [True, False])
def test_families_bring_their_own_noise(shared, base_family):
    """Also where that of z_0 is another. A Gaussian z_0 drawn with heavy tails would be off by ten nats."""
    student = hj.student_t(3.0)
    proposal = hj.hierarchical(
        lambda params, x: (jnp.zeros(1), 0.7 * jnp.ones(1)),
        lambda params, x, z0: (jnp.array([[-0.3], [0.3]]) + 0.5 * z0[0], jnp.ones((2, 1))),
        lambda params, x, z: (0.4 * z, 0.8 * jnp.ones_like(z)),
        shared=shared,
        family=student,
        base_family=hj.diagonal_gaussian if base_family == "Gaussian" else student,
    )
    log_joint = lambda params, x, z: hj.diagonal_gaussian.log_prob((jnp.zeros(1), jnp.ones(1)), z)
    bound = hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(1.0), gradient="refilled")
    keys = jax.random.split(KEY, 20_000)

    @models.quick_jit
    @jax.vmap
    def draw_and_bound(key):
        drawn = bound.draw(None, jnp.zeros(1), key)
        return drawn, bound(None, jnp.zeros(1), drawn)

    drawn, log_weights = draw_and_bound(keys)
    weights = np.exp(log_weights)
    assert abs(weights.mean() - 1.0) < 4.0 * weights.std() / np.sqrt(len(keys)) < 0.1
    # The refills are drawn from the same distributions, independently.
    for place, (first, second) in enumerate(((drawn.z, drawn.refill[0]), (drawn.z0, drawn.refill[1]))):
        assert scipy.stats.ks_2samp(first[:, 0, 0], second[:, 0, 0]).pvalue > 1e-3
        assert np.all(np.asarray(first != second)) or (shared and place == 1)


def test_full_rank_gaussian_is_that_of_scipy():
    random = np.random.default_rng(0)
    loc, z = random.normal(size=(2, 3))
    tril = np.tril(random.normal(size=(3, 3)), -1) + np.diag([0.5, 1.5, 0.8])
    family, parameters = hj.full_rank_gaussian, (jnp.asarray(loc), jnp.asarray(tril + np.triu(np.ones((3, 3)), 1)))
    expected = scipy.stats.multivariate_normal(loc, tril @ tril.T).logpdf(z)
    assert float(family.log_prob(parameters, jnp.asarray(z))) == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(family.forward(parameters, jnp.asarray(z)), loc + tril @ z, rtol=1e-13)
    np.testing.assert_allclose(family.inverse(parameters, family.forward(parameters, jnp.asarray(z))), z, rtol=1e-12)


def test_with_the_posterior_as_proposal_the_bound_is_the_evidence():
    model = models.LinearGaussian(seed=1)
    posterior = jnp.asarray(model.posterior_mean), jnp.asarray(np.linalg.cholesky(model.posterior_cov))
    proposal = hj.independent(lambda params, x: posterior, num_samples=3, family=hj.full_rank_gaussian)
    value = models.quick_jit(hj.make_bound(model.log_joint, proposal))(None, jnp.asarray(model.x), KEY)
    assert float(value) == pytest.approx(model.log_evidence, abs=1e-12)


def test_doubly_reparameterized_is_unbiased_for_full_rank_members():
    """Two members in two dimensions; paths between them go through triangular matrices."""

    def members(params, x, z0):
        loc = params["loc"][:, None] + jnp.array([[0.8, 0.0], [0.1, -0.9]]) + z0[0]
        tril = jnp.exp(params["log_scale"])[:, None, None] * jnp.array([[[0.8, 0.0], [0.5, 0.6]]])
        return loc, tril

    def target(params, x, z):
        return -0.5 * jnp.sum((z - 0.3) ** 2) - 0.4 * z[0] * z[1]

    proposal = hj.hierarchical(
        lambda params, x: (jnp.zeros(1), 0.5 * jnp.ones(1)),
        members,
        lambda params, x, z: (0.2 * z[:, :1], 0.6 * jnp.ones((2, 1))),
        family=hj.full_rank_gaussian,
    )
    keys, params = jax.random.split(KEY, 20_000), {"loc": jnp.array([0.1, -0.2]), "log_scale": jnp.array([0.1, -0.1])}

    names = ("reparameterized", "doubly_reparameterized", "path_squared")
    bounds = [hj.make_bound(target, proposal, weighting=hj.power_heuristic(3.0), gradient=name) for name in names]
    of_all = jax.vmap(lambda params, key: [jax.grad(bound)(params, None, key) for bound in bounds], in_axes=(None, 0))
    trees = models.quick_jit(of_all)(params, keys)
    each = {
        name: np.concatenate([tree[leaf] for leaf in params], axis=1) for name, tree in zip(names, trees, strict=True)
    }

    def z_scores(gradient):
        difference = each[gradient] - each["reparameterized"]
        return difference.mean(0) / (difference.std(0) / np.sqrt(len(keys)))

    assert np.max(np.abs(z_scores("doubly_reparameterized"))) < 4.0
    assert np.max(np.abs(z_scores("path_squared"))) > 10.0  # as it must be where members differ


@pytest.mark.parametrize("family", [hj.diagonal_gaussian, hj.student_t(5.0), hj.full_rank_gaussian])
def test_a_value_of_another_shape_than_its_parameters_is_refused(family):
    """A number beside vectors of length 3 would count one constant in place of three."""
    scale = jnp.eye(3) if family is hj.full_rank_gaussian else jnp.ones(1)
    for value, shape in ((2.0, r"\(\)"), (jnp.ones(1), r"\(1,\)")):
        with pytest.raises(ValueError, match=rf"log_prob: expected a value of .*, \(3,\), got {shape}; jnp.reshape"):
            family.log_prob((jnp.zeros(3), scale), value)


def test_a_number_has_no_dimension():
    found = hj.diagonal_gaussian.log_prob((jnp.array(0.5), jnp.array(2.0)), 1.0)
    np.testing.assert_allclose(found, scipy.stats.norm(0.5, 2.0).logpdf(1.0), rtol=1e-6)
