"""Correlated, chained, mirrored and mixed samples: `E[sum_j w_j] = p(x)` by quadrature, and densities against scipy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import hiwae_jax as hj
from tests import models
from tests.test_gradients_paired import LARGEST_Z, paired
from tests.test_validity import evidence

KEY = jax.random.key(3)
X = models.SCALAR_X


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def params():
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

    return np.asarray(weights @ totals(params(), points)) / evidence(params())


def powers(*alphas):
    return [hj.power_heuristic(alpha) for alpha in alphas]


def normal(z, loc, scale):
    return scipy.stats.norm.logpdf(np.asarray(z), np.asarray(loc), np.asarray(scale))


# Joint Gaussian


def correlated_conditional(params, x):
    (a, b), c = jnp.exp(params["log_scale"]), 0.5 + params["slope"][0]
    tril = jnp.stack([jnp.stack([1.1 * a, 0.0 * a]), jnp.stack([c, 0.8 * b])])
    return params["loc"][:, None] + 0.3 * x[None], tril[None]


def test_joint_gaussian_weights_integrate_to_the_evidence():
    proposal = hj.joint_gaussian(correlated_conditional, sampler=models.leading)
    weightings = [*powers(0.0, 0.5, 1.0, 3.0), models.learned(2)]
    ratios = mean_total_weights(proposal, weightings, models.quadrature(2, 60))
    np.testing.assert_allclose(ratios, 1.0, rtol=1e-7)


def random_joint(K, D, seed=0):
    random = np.random.default_rng(seed)
    diagonal = np.eye(K) * np.exp(0.3 * random.normal(size=(D, K, 1)))
    scale_tril = np.tril(random.normal(size=(D, K, K)), -1) + diagonal
    return random.normal(size=(K, D)), scale_tril


def test_joint_gaussian_densities_are_those_of_scipy():
    K, D = 3, 2
    loc, scale_tril = random_joint(K, D)
    above = np.triu(np.ones((K, K)), 1)  # only the lower triangle counts
    proposal = hj.joint_gaussian(
        lambda params, x: (jnp.asarray(loc), jnp.asarray(scale_tril + above)), sampler=models.leading
    )
    noise = jnp.asarray(np.random.default_rng(1).normal(size=K * D))

    @models.quick_jit
    def evaluate(noise):
        draw = proposal.draw(None, None, noise)
        return (
            jax.jacfwd(lambda noise: proposal.draw(None, None, noise).z)(noise),
            draw.z,
            proposal.draw(None, None, jnp.zeros_like(noise)).z,
            proposal.members.joint_log_prob(draw.joint, draw.z),
            proposal.pair_densities(draw.members, draw.z),
            proposal.own_densities(draw.members, draw.z),
        )

    matrix, z, centre, log_joint, pairs, own = (np.asarray(array) for array in evaluate(noise))
    covariance = scale_tril @ np.swapaxes(scale_tril, 1, 2)
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).T  # [K, D]

    # By construction: the sampler is affine in its noise, and its matrix times its transpose is the covariance.
    matrix = matrix.reshape(K * D, K * D)
    expected = np.zeros((K, D, K, D))
    for d in range(D):
        expected[:, d, :, d] = covariance[d]
    np.testing.assert_allclose((matrix @ matrix.T).reshape(K, D, K, D), expected, atol=1e-12)
    np.testing.assert_allclose(centre, loc, atol=1e-12)

    joint = sum(scipy.stats.multivariate_normal(loc[:, d], covariance[d]).logpdf(z[:, d]) for d in range(D))
    assert float(log_joint) == pytest.approx(joint, abs=1e-11)
    marginals = normal(z[:, None], loc[None], deviation[None]).sum(-1)  # [sample, member]
    np.testing.assert_allclose(pairs, marginals, atol=1e-11)
    np.testing.assert_allclose(own, np.diagonal(marginals), atol=1e-11)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_doubly_reparameterized_is_unbiased_for_correlated_samples(alpha):
    """With the joint density; the control below without it, as if the samples were independent."""
    proposal = hj.joint_gaussian(correlated_conditional, sampler=models.leading)
    unjoined = proposal._replace(members=proposal.members._replace(joint_log_prob=None))
    weighting = hj.power_heuristic(alpha)
    gradients = ("reparameterized", "doubly_reparameterized")
    setting = {"dimensions": 2, "nodes": 60, "betas": (1.0, 0.3)}
    means = models.mean_gradients(proposal, weighting, gradients, params(), **setting)
    for beta in setting["betas"]:
        plain, other = (means[gradient, beta] for gradient in gradients)
        assert plain[0] == pytest.approx(other[0], rel=1e-12)
        np.testing.assert_allclose(other[1], plain[1], atol=1e-6)
    if alpha == 1.0:
        wrong = models.mean_gradients(unjoined, weighting, gradients[1:], params(), dimensions=2, nodes=60)
        assert np.max(np.abs(wrong[gradients[1], 1.0][1] - means[gradients[0], 1.0][1])) > 1e-2


def correlated_four(params, x):
    """K = 4 samples in D = 3 from the parameters of the paired tests, correlated by rows of `scale`."""
    tril = 0.4 * jnp.einsum("jde,ide->dji", params["scale"], params["loc"])
    return params["shift"] + (params["loc"] @ (params["base"][0] @ x)), jnp.tril(tril, -1) + 0.8 * jnp.eye(4)[None]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_doubly_reparameterized_is_unbiased_for_four_correlated_samples(alpha):
    proposal = hj.joint_gaussian(correlated_four)
    z, _ = paired("doubly_reparameterized", alpha=alpha, proposal=proposal)
    assert z < LARGEST_Z


def test_a_diagonal_joint_gaussian_is_a_proposal_of_independent_samples():
    def narrow(params, x):
        return params["loc"][:1] + x, jnp.exp(params["log_scale"][:1])

    def broad(params, x):
        return params["loc"][1:] - x, 1.5 * jnp.exp(params["log_scale"][1:])

    def joint(params, x):
        (a, s), (b, t) = narrow(params, x), broad(params, x)
        return jnp.stack([a, b]), jnp.diag(jnp.concatenate([s, t]))[None]

    noise = jnp.array([0.8, -1.3])
    proposals = (
        hj.joint_gaussian(joint, sampler=models.leading),
        hj.defensive(narrow, broad, num_samples=2, sampler=models.leading),
    )
    functions = [
        [hj.make_log_weights(models.scalar_log_joint, proposal, weighting=weighting) for proposal in proposals]
        for weighting in (*powers(0.0, 1.0), models.learned(2))
    ]
    weights = models.quick_jit(lambda noise: [[f(params(), jnp.asarray(X), noise) for f in row] for row in functions])(
        noise
    )
    for ours, theirs in weights:
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


# Flow chain


def sinh_arcsinh(bend):
    """A user's own map: `y = sinh(arcsinh(z) + bend)`."""

    def shifted(z, by):
        u = jnp.arcsinh(z) + by
        return jnp.sinh(u), jnp.sum(jnp.log(jnp.cosh(u)) - 0.5 * jnp.log1p(z**2))

    return hj.Bijection(lambda params, h, z: shifted(z, bend), lambda params, h, y: shifted(y, -bend))


def flow_base(params, h):
    dimensions = h["dimensions"]
    return jnp.full(dimensions, 0.1) + params["loc"][0], jnp.full(dimensions, 1.1)


AFFINE = hj.affine_map(lambda params, h: (params["loc"][1:] + 0.2 * h["x"], -jnp.exp(params["log_scale"][:1] + 0.1)))
FLOWS = {
    "no map": (1, [], 60),
    "affine, own": (1, [AFFINE, sinh_arcsinh(0.4)], 120),
    "own, affine": (1, [sinh_arcsinh(-0.3), AFFINE], 120),
    "coupling": (
        2,
        [
            hj.coupling_map(lambda params, h, z: (jnp.sin(z[::-1]), jnp.exp(0.2 * z[::-1] / 2.0)), kept=[True, False]),
            hj.coupling_map(lambda params, h, z: (params["loc"] * z[1], jnp.full(2, 1.2)), kept=[False, True]),
        ],
        60,
    ),
}


def flow(name):
    dimensions, maps, _ = FLOWS[name]
    return hj.flow_chain(
        flow_base, maps, context=lambda params, x: {"x": x, "dimensions": dimensions}, sampler=models.leading
    )


@pytest.mark.parametrize("name", FLOWS)
def test_flow_chain_weights_integrate_to_the_evidence(name):
    dimensions, maps, nodes = FLOWS[name]
    weightings = [*powers(0.0, 1.0, 3.0), models.learned(len(maps) + 1)]
    ratios = mean_total_weights(flow(name), weightings, models.quadrature(dimensions, nodes))
    # The scalar model in two dimensions is two independent ones.
    accuracy = 1e-7 if dimensions == 1 else 1e-4
    np.testing.assert_allclose(ratios / evidence(params()) ** (dimensions - 1), 1.0, rtol=accuracy)


@pytest.mark.parametrize("name", ["own, affine", "coupling"])
def test_every_density_of_a_flow_chain_integrates_to_one_and_its_own_samples_have_it(name):
    dimensions, maps, _ = FLOWS[name]
    proposal = flow(name)
    axis = np.linspace(-14.0, 14.0, 141 if dimensions > 1 else 2_801)
    grid, _ = models.product_rule(axis, np.ones_like(axis), dimensions)

    @models.quick_jit
    def densities(noise, grid):
        draw = proposal.draw(params(), jnp.asarray(X), noise)
        own, pairs = (f(draw.members, draw.z) for f in (proposal.own_densities, proposal.pair_densities))
        return own, pairs, jnp.exp(proposal.pair_densities(draw.members, grid))

    own, pairs, on_grid = densities(jnp.asarray([0.7, -1.2][:dimensions]), grid)
    np.testing.assert_allclose(own, np.diagonal(pairs), atol=1e-12)
    assert on_grid.shape == (len(grid), len(maps) + 1)
    np.testing.assert_allclose(np.sum(on_grid, axis=0) * (axis[1] - axis[0]) ** dimensions, 1.0, atol=1e-6)


# Antithetic


def wide_conditional(params, x):
    return params["loc"][:1] + 0.2 * x, jnp.exp(params["log_scale"][:1] + 0.2)


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


# Markov


def markov_chain(num_samples):
    def transition(params, x, z, step):
        shift = 0.2 * step.astype(z.dtype)
        return 0.6 * z + params["loc"][0] + shift, jnp.exp(params["log_scale"][:1] + 0.1 * shift)

    def reverse(params, x, z, step):
        slope, shift, log_scale = params["reverse"]
        return slope * z + shift - 0.3 * step.astype(z.dtype), jnp.exp(log_scale * jnp.ones(1))

    return hj.markov(wide_conditional, transition, reverse, num_samples=num_samples, sampler=models.leading)


@pytest.mark.parametrize("num_samples", [1, 2, 3])
def test_markov_weights_integrate_to_the_evidence(num_samples):
    weightings = [hj.uniform_weighting(), models.learned(num_samples)]
    ratios = mean_total_weights(
        markov_chain(num_samples), weightings, models.quadrature(num_samples, {1: 80, 2: 60, 3: 36}[num_samples])
    )
    np.testing.assert_allclose(ratios, 1.0, rtol=1e-6)


def test_a_power_heuristic_of_transitions_is_refused_because_it_would_not_be_valid():
    chain = markov_chain(2)
    with pytest.raises(ValueError, match="weighting: a power heuristic compares the members' densities"):
        mean_total_weights(chain, powers(1.0), models.quadrature(2, 4))

    def pair_densities(members, z):
        """`log q_i(z_j | z_{i-1})` at [j, i], lifted so that the diagonal is the density of the whole chain."""
        members = jax.tree.map(lambda leaf: leaf[:, None], members)
        steps = jax.vmap(
            lambda z: jax.vmap(lambda loc, scale: hj.diagonal_gaussian.log_prob((loc, scale), z))(*members)
        )(z[:, None])
        own = chain.own_densities(jax.tree.map(lambda leaf: leaf[:, 0], members), z)
        return steps + (own - jnp.diagonal(steps))[:, None]

    unchecked = chain._replace(pair_densities=pair_densities)
    uniform, balance = mean_total_weights(unchecked, powers(0.0, 1.0), models.quadrature(2, 60))
    assert uniform == pytest.approx(1.0, abs=1e-7)
    assert abs(balance - 1.0) > 1e-2


def test_the_exact_reverse_chain_gives_the_weights_of_the_marginals():
    """A chain of Gaussians, its marginals by recursion and its reverse by conditioning."""
    slope, shift, noise = np.array([0.7, -0.5]), np.array([0.3, 0.9]), np.array([0.8, 1.1])
    mean, variance = [0.2], [1.3**2]
    for a, b, s in zip(slope, shift, noise, strict=True):
        mean.append(a * mean[-1] + b)
        variance.append(a**2 * variance[-1] + s**2)
    mean, variance = np.array(mean), np.array(variance)
    gain = slope * variance[:-1] / variance[1:]
    left = np.sqrt(variance[:-1] - gain * slope * variance[:-1])

    def pick(values, step):
        return jnp.asarray(values)[step][None]

    proposal = hj.markov(
        lambda params, x: (jnp.asarray(mean[:1]), jnp.sqrt(jnp.asarray(variance[:1]))),
        lambda params, x, z, step: (pick(slope, step) * z + pick(shift, step), pick(noise, step)),
        lambda params, x, z, step: (
            pick(mean[:-1], step) + pick(gain, step) * (z - pick(mean[1:], step)),
            pick(left, step),
        ),
        num_samples=3,
    )
    x = jnp.asarray(X)
    log_weights = models.quick_jit(hj.make_log_weights(models.scalar_log_joint, proposal))(params(), x, KEY)
    z = models.quick_jit(lambda key: proposal.draw(params(), x, key).z)(KEY)
    log_p = jax.vmap(models.scalar_log_joint, in_axes=(None, None, 0))(params(), x, z)
    expected = log_p - normal(z[:, 0], mean, np.sqrt(variance)) - math.log(3.0)
    np.testing.assert_allclose(log_weights, expected, atol=1e-12)


def test_a_chain_that_keeps_the_posterior_gives_the_evidence_at_every_draw():
    model = models.LinearGaussian(seed=5, latent=1)
    mean, deviation = jnp.asarray(model.posterior_mean), jnp.sqrt(jnp.asarray(model.posterior_cov[0]))

    def step(params, x, z, number):
        return mean - 0.6 * (z - mean), 0.8 * deviation

    for num_samples in (1, 4):
        chain = hj.markov(lambda params, x: (mean, deviation), step, step, num_samples=num_samples)
        value = models.quick_jit(hj.make_bound(model.log_joint, chain))(None, jnp.asarray(model.x), KEY)
        assert float(value) == pytest.approx(model.log_evidence, abs=1e-12)


def test_a_chain_of_one_sample_is_an_independent_one():
    one = hj.independent(wide_conditional, num_samples=1, sampler=models.leading)
    noise, x = jnp.array([0.4]), jnp.asarray(X)
    bounds = [hj.make_bound(models.scalar_log_joint, proposal) for proposal in (one, markov_chain(1))]
    values = models.quick_jit(lambda noise: [bound(params(), x, noise) for bound in bounds])(noise)
    assert float(values[0]) == pytest.approx(float(values[1]), abs=1e-13)


# Defensive mixture


def prior(params, x):
    return jnp.zeros(1), jnp.ones(1)


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
    loc, scale = proposal.draw(None, jnp.ones(2), KEY).members
    np.testing.assert_array_equal(loc[:, 0], [1.0, 1.0, 1.0, -1.0, -1.0])
    np.testing.assert_array_equal(scale[:, 1], [0.1, 0.1, 0.1, 3.0, 3.0])


# Families


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
