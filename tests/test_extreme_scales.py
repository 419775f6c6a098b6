"""Scales from 1e-30 to 1e30 under every proposal: gradients are finite, and right where float64 can tell."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from hiwae_jax._families.gaussian_pairs import gaussian_pairs
from hiwae_jax._families.pairs import Own, one_by_one
from hiwae_jax._families.standardize import RESIDUAL_LIMIT, standardized
from tests.models import quick_jit

K, D = 4, 2
X, KEY = jnp.array([0.3, -0.2]), jax.random.key(0)
SCALES = (1e-30, 1e-20, 1e-15, 1e15, 1e20, 1e30)
# Which of the members, of q_0 and of the reverse model have the extreme scale; and whether locations are zero.
PLACES = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)]
LOC = np.array([[0.1, 0.2], [-0.3, 0.4], [0.7, -0.2], [0.0, 0.5]])
CORRELATED = np.linalg.cholesky(0.5 * np.eye(K) + 0.5)
SKEW = np.array([[1.0, 0.0], [0.5, 1.0]])


def scale_of(place):
    """The scale of the members (0), of q_0 (1) or of the reverse model (2)."""
    return lambda params: jnp.where(params["is_extreme"][place] > 0.0, params["scale"], 1.0)


members, base_scale, reverse_scale = map(scale_of, range(3))


def one(params, x):
    return params["centre"] * params["loc"][0], members(params) * jnp.exp(0.1 * params["loc"][0])


def base(params, x):
    return 0.5 * params["centre"] * params["loc"][1], base_scale(params) * jnp.ones(D)


def rows(params, x, z0):
    loc = params["centre"] * params["loc"] + params["slope"] * z0[None]
    return loc, members(params) * jnp.exp(0.1 * params["loc"])


def unconditioned(params, x):
    return rows(params, x, jnp.zeros(D))


def skew_rows(params, x, z0):
    skew = jnp.broadcast_to(jnp.asarray(SKEW, z0.dtype), (K, D, D))
    return params["centre"] * params["loc"] + params["slope"] * z0[None], members(params) * skew


def reverse(params, x, z):
    return params["slope"] * z, reverse_scale(params) * jnp.ones_like(z)


def correlated(params, x):
    tril = jnp.broadcast_to(jnp.asarray(CORRELATED, params["loc"].dtype), (D, K, K))
    return params["centre"] * params["loc"], members(params) * tril


def transition(params, x, z, step):
    return params["slope"] * z + params["centre"] * params["loc"][0], members(params) * jnp.ones(D)


def step_back(params, x, z, step):
    return params["slope"] * z, reverse_scale(params) * jnp.ones(D)


def broad(params, x):
    return 0.0 * params["loc"][0], params["slope"] * jnp.ones(D)


heavy = hj.student_t(5.0)
MAP = hj.affine_map(lambda params, x: (params["centre"] * params["loc"][0], members(params) * jnp.ones(D)))
PROPOSALS = {
    "independent": hj.independent(one, num_samples=K),
    "antithetic": hj.antithetic(one, num_samples=K),
    "shared z_0": hj.hierarchical(base, rows, reverse),
    "own z_0": hj.hierarchical(base, rows, reverse, shared=False),
    "defensive": hj.defensive(one, broad, num_samples=K),
    "mixture": hj.mixture(unconditioned, num_samples=2),
    "joint": hj.joint_gaussian(correlated),
    "flow": hj.flow_chain(one, [MAP, MAP]),
    "markov": hj.markov(base, transition, step_back, num_samples=3),
    "Student t": hj.hierarchical(base, rows, reverse, family=heavy, base_family=heavy),
    "full rank": hj.hierarchical(base, skew_rows, reverse, family=hj.full_rank_gaussian),
}
PLAIN, DEFAULT = "reparameterized", "doubly_reparameterized"
CASES = [
    ("independent", PLAIN, 0.0),
    ("independent", DEFAULT, 0.0),
    ("antithetic", PLAIN, 0.0),
    ("shared z_0", PLAIN, 0.0),
    ("shared z_0", PLAIN, 3.0),
    ("shared z_0", DEFAULT, 0.5),
    ("shared z_0", "refilled", 1.0),
    ("shared z_0", "authors", 1.0),
    ("own z_0", DEFAULT, 1.0),
    ("defensive", DEFAULT, 1.0),
    ("mixture", DEFAULT, 0.0),
    ("joint", PLAIN, 1.0),
    ("joint", DEFAULT, 1.0),
    ("flow", PLAIN, 1.0),
    ("markov", PLAIN, 0.0),
    ("Student t", DEFAULT, 1.0),
    ("full rank", PLAIN, 1.0),
]


def log_joint(params, x, z):
    return -0.5 * jnp.sum((x - params["slope"] * z) ** 2) - 0.5 * jnp.sum(z**2)


@pytest.mark.parametrize(("name", "gradient", "alpha"), CASES)
def test_gradients_are_finite(name, gradient, alpha):
    bound = hj.make_bound(log_joint, PROPOSALS[name], weighting=hj.power_heuristic(alpha), gradient=gradient)

    @quick_jit
    @jax.vmap
    def value_and_gradient(is_extreme, centre, scale):
        def of(params):
            return bound({**params, "is_extreme": is_extreme, "centre": centre}, X, KEY)

        return jax.value_and_grad(of)({"loc": jnp.asarray(LOC, jnp.float32), "slope": jnp.float32(1.1), "scale": scale})

    cases = list(itertools.product(PLACES, (0.0, 1.0), SCALES))
    values, gradients = value_and_gradient(*(jnp.asarray(column, jnp.float32) for column in zip(*cases, strict=True)))
    assert not np.any(np.isnan(values) | (values == np.inf))
    for leaf in jax.tree.leaves(gradients):
        wrong = ~np.all(np.isfinite(np.reshape(leaf, (len(cases), -1))), axis=1)
        assert not np.any(wrong), [case for case, is_wrong in zip(cases, wrong, strict=True) if is_wrong]


# In float64 nothing of this overflows, so there the plain formulas are an oracle.
@pytest.mark.parametrize(
    ("name", "gradient", "alpha"),
    [
        ("independent", DEFAULT, 0.0),
        ("shared z_0", PLAIN, 1.0),
        ("shared z_0", DEFAULT, 1.0),
        ("joint", PLAIN, 1.0),
        ("full rank", DEFAULT, 1.0),
    ],
)
def test_values_and_gradients_are_those_of_double_precision(name, gradient, alpha):
    bound = hj.make_bound(log_joint, PROPOSALS[name], weighting=hj.power_heuristic(alpha), gradient=gradient)
    noise = np.random.default_rng(4).normal(size=64)

    def injected(key, shape, dtype):
        return jnp.asarray(noise[: int(np.prod(shape))].reshape(shape), dtype)

    def found(dtype):
        params = {"loc": jnp.asarray(LOC, dtype), "slope": jnp.asarray(1.1, dtype), "scale": jnp.asarray(1e-30, dtype)}
        # All of them are narrow, about zero, where their points can be told apart.
        narrow = {"is_extreme": jnp.ones(3, dtype), "centre": jnp.zeros((), dtype)}
        x = X.astype(dtype)
        return quick_jit(jax.value_and_grad(lambda params: bound({**params, **narrow}, x, KEY)))(params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "normal", injected)
        single = found(np.float32)
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            double = found(np.float64)
    np.testing.assert_allclose(single[0], double[0], rtol=1e-5)
    for ours, right in zip(*map(jax.tree.leaves, (single[1], double[1])), strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-3, atol=1e-3 * float(np.max(np.abs(right))))


def test_pairs_of_narrow_members_are_those_of_double_precision():
    """All narrow, all wide, and one far narrower than the others: its own sample is differentiated as it stands."""
    loc, direction = np.random.default_rng(0).normal(size=(2, K, D))
    noise = np.random.default_rng(1).normal(size=D)

    def densities_along(dtype, pairs, unit, scales):
        parameters = jnp.asarray(unit * loc, dtype), jnp.asarray(unit * scales, dtype)
        z = parameters[0][0] + parameters[1][0] * jnp.asarray(noise, dtype)
        own = jax.tree.map(lambda leaf: leaf[0], parameters)
        moved = jax.tree.map(lambda leaf: jnp.asarray(unit * direction, dtype), parameters)
        own_moved = Own(np.zeros((), jax.dtypes.float0), jax.tree.map(lambda leaf: leaf[0], moved))
        of = lambda parameters, z, own: pairs.log_prob(parameters, z, own)
        along = lambda parameters, z, own: jax.jvp(
            of, (parameters, z, Own(0, own)), (moved, jnp.zeros_like(z), own_moved)
        )
        return quick_jit(along)(parameters, z, own)[1]

    ordinary = np.exp(0.3 * direction)
    for unit in (1e-30, 1e-20, 1.0, 1e20, 1e30):
        single = densities_along(np.float32, gaussian_pairs, unit, ordinary)
        with jax.enable_x64(True):
            double = densities_along(np.float64, one_by_one(hj.diagonal_gaussian), unit, ordinary)
        np.testing.assert_allclose(single, double, rtol=1e-4)
    one_narrow = np.where(np.arange(K)[:, None] == 0, 1e-25, ordinary)
    single = densities_along(np.float32, gaussian_pairs, 1.0, one_narrow)
    assert np.all(np.isfinite(single))


def test_a_residual_is_held_and_still_says_where_to_go():
    f = jnp.float32
    assert float(standardized(f(3e20), f(0.0), f(1.0))) == np.float32(RESIDUAL_LIMIT)
    assert float(standardized(f(-1.0), f(0.0), f(1e-30))) == pytest.approx(-RESIDUAL_LIMIT * 1e-15, rel=1e-5)
    for family, ndim in ((hj.diagonal_gaussian, 1), (hj.full_rank_gaussian, 2)):

        def density(z, loc, scale, family=family, ndim=ndim):
            return family.log_prob((loc[None], scale.reshape((1,) * ndim)), z[None])

        value, slopes = quick_jit(jax.value_and_grad(density, argnums=(0, 1, 2)))(f(1.0), f(0.0), f(1e-30))
        assert all(np.isfinite(slopes))
        assert float(slopes[0]) < 0.0 < float(slopes[1])  # z towards loc, loc towards z
        assert float(slopes[2]) > 0.0  # a wider distribution
        # Far below what a weight can be told from zero by.
        assert -np.inf < float(value) < -1e5


def test_a_sample_that_overflows_has_weight_zero():
    """Of three samples, each the last one times 1e25, the third is infinite; what the model says of it is not asked."""
    grow = hj.affine_map(lambda params, x: (jnp.zeros(1), params * jnp.ones(1)))
    proposal = hj.flow_chain(lambda params, x: (jnp.ones(1), 0.1 * jnp.ones(1)), [grow, grow])
    log_joint = lambda params, x, z: -jnp.sum(jnp.sqrt(jnp.abs(z)))

    @quick_jit
    def results(factor):
        bound = jax.value_and_grad(hj.make_bound(log_joint, proposal))
        return hj.make_log_weights(log_joint, proposal)(factor, None, KEY), *bound(factor, None, KEY)

    log_weights, _, gradient = results(jnp.float32(1e25))
    assert float(log_weights[2]) == -np.inf
    assert np.all(np.isfinite(log_weights[:2]))
    assert np.isfinite(gradient)
    # A sample that is not a number is not hidden so.
    assert np.isnan(results(jnp.float32(np.nan))[1])
