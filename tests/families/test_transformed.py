"""Families on bounded supports, by quadrature on the support itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from tests import models

NODES, WEIGHTS = np.polynomial.legendre.leggauss(120)
NODES, WEIGHTS = 0.5 * (NODES + 1.0), 0.5 * WEIGHTS  # on (0, 1)


pytestmark = pytest.mark.usefixtures("double_precision")


def triangle():
    """The first two of three shares: a square, of which one side is drawn together to a point."""
    first, other = np.meshgrid(NODES, NODES, indexing="ij")
    weights = np.outer(WEIGHTS, WEIGHTS) * (1.0 - first)
    return np.stack([first, (1.0 - first) * other, (1.0 - first) * (1.0 - other)], -1).reshape(-1, 3), weights.ravel()


def square(low, high):
    points = np.stack(np.meshgrid(NODES, NODES), -1).reshape(-1, 2)
    return low + (high - low) * points, np.outer(WEIGHTS, WEIGHTS).ravel() * np.prod(high - low)


def quadrant():
    points, weights = square(np.zeros(2), np.ones(2))
    return points / (1.0 - points), weights / np.prod((1.0 - points) ** 2, axis=1)


LOW, HIGH = np.array([-1.0, 2.0]), np.array([0.5, 2.5])
SUPPORTS = {
    "unit square": (hj.unit_interval, square(np.zeros(2), np.ones(2))),
    "box": (hj.interval(LOW, HIGH), square(LOW, HIGH)),
    "positive": (hj.positive, quadrant()),
    "simplex": (hj.simplex, triangle()),
}
BASES = {
    "Gaussian": (hj.diagonal_gaussian, (np.array([0.3, -0.6]), np.array([0.7, 0.5]))),
    "full rank": (hj.full_rank_gaussian, (np.array([0.3, -0.6]), np.array([[0.7, 0.0], [-0.4, 0.5]]))),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", SUPPORTS)
def test_the_density_integrates_to_one_and_the_samples_have_it(name, base):
    bijection, (points, weights) = SUPPORTS[name]
    family, parameters = BASES[base]
    ours = hj.transformed(family, bijection)
    noise, noise_weights = models.quadrature(2, 40)

    @jax.jit
    def evaluate(parameters, points, noise):
        samples = jax.vmap(ours.forward, in_axes=(None, 0))(parameters, noise)
        again = jax.vmap(ours.inverse, in_axes=(None, 0))(parameters, samples)
        return jax.vmap(ours.log_prob, in_axes=(None, 0))(parameters, points), samples, again

    log_density, samples, again = evaluate(jax.tree.map(jnp.asarray, parameters), jnp.asarray(points), noise)
    mass = np.exp(log_density) * weights
    assert np.sum(mass) == pytest.approx(1.0, abs=1e-6)
    for moment in (lambda z: z, lambda z: z**2, lambda z: z[:, :1] * z, np.tanh):
        np.testing.assert_allclose(mass @ moment(points), noise_weights @ moment(samples), rtol=1e-5)
    np.testing.assert_allclose(again, noise, atol=1e-9)


def test_the_log_normal_distribution_is_that_of_scipy():
    ours = hj.transformed(hj.diagonal_gaussian, hj.positive)
    z = np.array([0.02, 1.0, 30.0])
    expected = scipy.stats.lognorm.logpdf(z, 0.8, scale=np.exp(0.5)).sum()
    parameters = jnp.full(3, 0.5), jnp.full(3, 0.8)
    assert float(ours.log_prob(parameters, jnp.asarray(z))) == pytest.approx(expected, rel=1e-12)


def box_joint(params, x, z):
    """A uniform prior on (0, 1) and a likelihood whose best place is beyond the edge."""
    inside = (z[0] > 0.0) & (z[0] < 1.0)
    return jnp.where(inside, -0.5 * ((z[0] - 1.3 * params["shift"]) / 0.3) ** 2, -jnp.inf)


def gamma_joint(params, x, z):
    return jnp.where(z[0] > 0.0, params["shift"] * jnp.log(z[0]) - 2.0 * z[0], -jnp.inf)


def dirichlet_joint(params, x, z):
    return jnp.sum(jnp.array([params["shift"], 2.0]) * jnp.log(z))


# On one axis: the model, where a node of (0, 1) lies on the support, and how much of the support it stands for.
AXES = {
    "box": (hj.unit_interval, box_joint, lambda t: t[:, None], 1.0),
    "positive": (hj.positive, gamma_joint, lambda t: (t / (1.0 - t))[:, None], (1.0 - NODES) ** -2),
    "simplex": (hj.simplex, dirichlet_joint, lambda t: np.stack([t, 1.0 - t], -1), 1.0),
}
PARAMS = {
    "shift": 0.9,
    "base": np.array([0.1, -0.5]),
    "loc": np.array([0.4, -0.3]),
    "log_scale": np.array([-0.5, -0.7]),
    "slope": np.array([0.3, -0.2]),
}


def conditional(params, x):
    return params["loc"][:1], jnp.exp(params["log_scale"][:1])


def base(params, x):
    return params["base"][:1], jnp.exp(params["base"][1:])


def conditionals(params, x, z0):
    return (params["loc"] + params["slope"] * z0)[:, None], jnp.exp(params["log_scale"])[:, None]


def reverse(params, x, z):
    return params["slope"][:1, None] * jnp.log(z[:, :1]), 0.7 * jnp.ones((len(z), 1))


def mean_bound_on_the_support(name, proposal_name):
    """`params -> E[bound]` as an integral over the samples themselves: its derivative takes no path anywhere."""
    bijection, log_joint, place, jacobian = AXES[name]
    normal, family = hj.diagonal_gaussian.log_prob, hj.transformed(hj.diagonal_gaussian, bijection)
    nodes, weights = jnp.asarray(place(NODES)), jnp.asarray(WEIGHTS * jacobian)

    def independent(params, *, num_samples):
        log_q = jax.vmap(family.log_prob, in_axes=(None, 0))(conditional(params, None), nodes)
        log_w = jax.vmap(log_joint, in_axes=(None, None, 0))(params, None, nodes) - log_q
        mass = weights * jnp.exp(log_q)
        if num_samples == 1:
            return mass @ log_w
        return mass @ (jnp.logaddexp(log_w[:, None], log_w[None]) - np.log(2.0)) @ mass

    def hierarchical(params):
        z0 = jnp.linspace(-4.0, 4.2, 60)[:, None]

        def at(z0):
            members = conditionals(params, None, z0)
            log_q = jax.vmap(lambda z: jax.vmap(family.log_prob, in_axes=(0, None))(members, z))(nodes)
            log_p = jax.vmap(log_joint, in_axes=(None, None, 0))(params, None, nodes)
            log_r = jax.vmap(lambda row: normal(row, z0))(reverse(params, None, nodes))
            log_w = log_p + log_r - normal(base(params, None), z0) - jax.nn.logsumexp(log_q, axis=1)
            first, second = (weights * jnp.exp(log_q[:, member]) for member in range(2))
            return first @ jnp.logaddexp(log_w[:, None], log_w[None]) @ second

        log_q0 = jax.vmap(normal, in_axes=(None, 0))(base(params, None), z0)
        return jnp.sum(jnp.exp(log_q0) * jax.vmap(at)(z0)) * (z0[1, 0] - z0[0, 0])

    return hierarchical if proposal_name == "hierarchical" else lambda p: independent(p, num_samples=int(proposal_name))


@pytest.mark.parametrize("proposal_name", ["1", "2", "hierarchical"])
@pytest.mark.parametrize("name", AXES)
def test_gradients_are_those_of_the_mean_bound(name, proposal_name):
    """Also of the box, where log_joint is -inf beyond the edges: what lives on the support has no edge to cross."""
    bijection, log_joint, *_ = AXES[name]
    family, is_hierarchical = hj.transformed(hj.diagonal_gaussian, bijection), proposal_name == "hierarchical"
    options = {"family": family, "sampler": models.leading}
    if is_hierarchical:
        proposal = hj.hierarchical(base, conditionals, reverse, **options)
    else:
        proposal = hj.independent(conditional, num_samples=int(proposal_name), **options)
    dimensions = 3 if is_hierarchical else int(proposal_name)
    points, weights = models.quadrature(dimensions, 30 if is_hierarchical else 50)
    params = jax.tree.map(jnp.asarray, PARAMS)

    @models.quick_jit
    def evaluate(params, points, weights):
        expected = jax.value_and_grad(mean_bound_on_the_support(name, proposal_name))(params)
        found = []
        for gradient in ("reparameterized", "doubly_reparameterized"):
            bound = hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(1.0), gradient=gradient)
            each = jax.vmap(jax.value_and_grad(bound), in_axes=(None, None, 0))(params, None, points)
            found.append(jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), each))
        return expected, found

    expected, found = evaluate(params, points, weights)
    for mean in found:
        np.testing.assert_allclose(ravel_pytree(mean)[0], ravel_pytree(expected)[0], atol=1e-5)


def step_joint(params, x, z):
    """A Gaussian with a box in the middle that is worth 3.3 nats more."""
    return -0.5 * z[0] ** 2 + jnp.where(jnp.abs(z[0]) < 1.0, 3.3, 0.0)


def test_pathwise_gradients_lose_a_surface_term_where_log_joint_jumps():
    """The negative control: the mean gradient of every path is -0.80, and the mean bound has a derivative of -1.83."""
    loc = jnp.array([0.8])
    points, weights = models.quadrature(1, 20)
    for gradient in ("reparameterized", "doubly_reparameterized"):
        proposal = hj.independent(lambda loc, x: (loc, jnp.ones(1)), num_samples=1, sampler=models.leading)
        bound = hj.make_bound(step_joint, proposal, gradient=gradient)
        each = jax.jit(jax.vmap(jax.grad(bound), in_axes=(None, None, 0)))(loc, None, points)
        assert float(weights @ each[:, 0]) == pytest.approx(-0.80, abs=1e-10)

    def mean_bound(loc):
        value = 0.0
        for low, high in ((loc - 12.0, -1.0), (-1.0, 1.0), (1.0, loc + 12.0)):  # no node on an edge
            z = low + (high - low) * NODES
            log_q = scipy.stats.norm.logpdf(z, loc)
            log_p = np.array(jax.vmap(step_joint, in_axes=(None, None, 0))(None, None, jnp.asarray(z)[:, None]))
            value += (high - low) * np.sum(WEIGHTS * np.exp(log_q) * (log_p - log_q))
        return value

    derivative = (mean_bound(0.8 + 1e-4) - mean_bound(0.8 - 1e-4)) / 2e-4
    surface = 3.3 * (scipy.stats.norm.pdf(-1.0 - 0.8) - scipy.stats.norm.pdf(1.0 - 0.8))
    assert derivative == pytest.approx(-0.80 + surface, abs=1e-6)
    assert derivative == pytest.approx(-1.83, abs=5e-3)


def single(*arrays):
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


FLOAT32 = {"unit square": hj.unit_interval, "box": hj.interval(-100.0, 100.5), "positive": hj.positive}
FLOAT32["simplex"] = hj.simplex


@pytest.mark.parametrize("name", FLOAT32)
def test_draws_that_would_round_to_an_edge_stay_inside_with_finite_densities_and_gradients(name):
    ours = hj.transformed(hj.diagonal_gaussian, FLOAT32[name])
    low, high = {"unit square": (0.0, 1.0), "box": (-100.0, 100.5), "simplex": (0.0, 1.0)}.get(name, (0.0, np.inf))

    @jax.jit
    def evaluate(loc, scale, noise):
        def log_prob(loc, scale, noise):
            z = ours.forward((loc, scale), noise)
            return ours.log_prob((loc, scale), z), z

        (value, z), gradients = jax.value_and_grad(log_prob, argnums=(0, 1, 2), has_aux=True)(loc, scale, noise)
        slope = jax.grad(ours.log_prob, argnums=1)((loc, scale), z)
        return z, ours.inverse((loc, scale), z), value, gradients, slope

    far = np.array([0.0, 5.0, -12.0, 15.0, -20.0, 40.0, -80.0, 100.0, -1e4, 1e4, -1e30, 1e30])
    pairs = np.stack(np.meshgrid(far, far), -1).reshape(-1, 2)
    locs, scales, noise = single(pairs, np.full_like(pairs, 0.1), np.tile([0.7, -1.3], (len(pairs), 1)))
    z, *rest = jax.vmap(evaluate)(locs, scales, noise)
    assert z.dtype == jnp.float32
    # A share may be all there is: the others are numbers that are known as well.
    assert np.all(z > low)
    assert np.all(z <= high) if name == "simplex" else np.all(z < high)
    for leaf in jax.tree.leaves(rest):
        assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("loc", [5.0, 12.0, 13.7, 14.0, 16.0, 20.0, 100.0, -90.0])
def test_a_proposal_beyond_what_float32_tells_apart_weighs_too_little_rather_than_too_much(loc, scale):
    """Of a uniform target the mean weight is at most its mass, one.

    At loc = 100 and scale 1 the density at the last number, taken at its word, would give weights of exp(3700).
    """
    parameters = single(np.array([loc]), np.array([scale]))
    ours = hj.transformed(hj.diagonal_gaussian, hj.unit_interval)
    noise = np.linspace(-8.0, 8.0, 4_001)
    z = jax.vmap(ours.forward, in_axes=(None, 0))(parameters, single(noise[:, None])[0])
    log_w = -np.asarray(jax.vmap(ours.log_prob, in_axes=(None, 0))(parameters, z), np.float64)
    mass = scipy.stats.norm.pdf(noise) * (noise[1] - noise[0])
    assert np.sum(mass * np.exp(log_w)) < 1.01


@pytest.mark.parametrize("gradient", ["reparameterized", "doubly_reparameterized"])
def test_the_gradient_leads_back_from_beyond_what_float32_tells_apart(gradient):
    proposal = hj.independent(
        lambda loc, x: (loc, single(np.array([0.1]))[0]),
        num_samples=1,
        family=hj.transformed(hj.diagonal_gaussian, hj.unit_interval),
    )
    bound = hj.make_bound(lambda loc, x, z: 0.0 * z[0], proposal, gradient=gradient)
    for loc, sign in ((30.0, -1.0), (-100.0, 1.0)):
        slope = jax.jit(jax.grad(bound))(single(np.array([loc]))[0], None, jax.random.key(0))
        np.testing.assert_allclose(slope, sign, rtol=1e-3)  # of log(z (1 - z)), the volume there


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_density_is_finite_at_every_number_inside_and_zero_elsewhere(dtype):
    parameters = jnp.zeros(1, dtype), jnp.full(1, 3.0, dtype)
    info = np.finfo(dtype)
    cases = {
        "unit square": ([info.tiny, 1e-30, 0.5, 1.0 - info.epsneg], [0.0, 1.0, -0.5, 1.5, -np.inf, np.inf]),
        "positive": ([info.tiny, 1.0, info.max], [0.0, -1.0, -np.inf]),
    }
    for name, (inside, outside) in cases.items():
        ours = hj.transformed(hj.diagonal_gaussian, FLOAT32[name])
        evaluate = jax.jit(jax.vmap(jax.value_and_grad(lambda z, ours=ours: ours.log_prob(parameters, z))))
        values, slopes = evaluate(jnp.asarray(inside, dtype)[:, None])
        assert np.all(np.isfinite([values, slopes[:, 0]]))
        values, slopes = evaluate(jnp.asarray(outside, dtype)[:, None])
        assert np.all(values == -np.inf)
        assert np.all(np.isfinite(slopes))


def test_what_is_close_to_an_edge_is_exact_in_float32():
    """Against the formula in float64 at the same number."""
    ours = hj.transformed(hj.diagonal_gaussian, hj.unit_interval)
    for z in (1e-30, 1e-12, 1e-3, 0.3, 1.0 - 1e-3, 1.0 - 2.0**-18):
        (rounded,) = single(np.array([z]))
        exact = np.asarray(rounded, np.float64)
        u = np.log(exact) - np.log1p(-exact)
        expected = float((scipy.stats.norm.logpdf(u, -1.0, 20.0) - np.log(exact) - np.log1p(-exact))[0])
        found = ours.log_prob(single(np.array([-1.0]), np.array([20.0])), rounded)
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_arguments_that_are_no_support_are_refused():
    finite = "expected a finite number, or an array"
    for low, high, message in (
        (1.0, 0.0, r"high: expected more than low, 1.0, got 0.0"),
        (0.0, 0.0, r"high: expected more than low, 0.0, got 0.0"),
        (0.0, np.inf, rf"high: {finite} .* got inf; where one side is open take hj.positive"),
        (np.nan, 1.0, rf"low: {finite} .* got nan"),
        (np.zeros(2), np.ones(3), r"high: expected the shape of low, \(2,\), got \(3,\)"),
        (0.0, np.eye(2), rf"high: {finite}"),
    ):
        with pytest.raises(ValueError, match=message):
            hj.interval(low, high)
    too_narrow = hj.transformed(hj.diagonal_gaussian, hj.interval(1e6, 1e6 + 1.0))
    with pytest.raises(ValueError, match=r"low: float32 cannot tell the points .* nearer to zero, or use float64"):
        too_narrow.forward(single(np.zeros(1), np.ones(1)), *single(np.zeros(1)))
    with pytest.raises(
        TypeError, match=r"bijection: expected hj.unit_interval, .* or another hj.Bijection, got function"
    ):
        hj.transformed(hj.diagonal_gaussian, conditional)
    with pytest.raises(TypeError, match=r"family: expected hj.diagonal_gaussian, .* got Bijection"):
        hj.transformed(hj.positive, hj.positive)


def test_a_family_with_more_entries_than_noise_is_refused_where_its_parameters_stand_for_its_shape():
    shares = hj.transformed(hj.diagonal_gaussian, hj.simplex)
    proposals = [
        hj.hierarchical(base, conditionals, reverse, base_family=shares),
        hj.flow_chain(base, [], family=shares),
        hj.markov(
            base, lambda p, x, z, step: base(p, x), lambda p, x, z, step: base(p, x), num_samples=2, family=shares
        ),
    ]
    params = jax.tree.map(jnp.asarray, PARAMS)
    for proposal in proposals:
        with pytest.raises(
            ValueError, match=r"base: expected a family whose z has as many entries as its noise, \(1,\)"
        ):
            proposal.draw(params, None, jax.random.key(0))


@pytest.mark.parametrize("u", [-70.0, -20.0, -1.0, 1.0, 20.0, 70.0])
def test_draws_next_to_an_edge_at_zero_keep_all_their_digits_in_float32(u):
    """An edge at zero may be the lower or the upper one; and a share may be as small as it likes."""
    sigmoid = np.exp(-np.logaddexp(0.0, -u))
    (at,) = single(np.array([u]))
    for bijection, expected in (
        (hj.interval(0.0, 3.0), [3.0 * sigmoid]),
        (hj.interval(-3.0, 0.0), [-3.0 * np.exp(-np.logaddexp(0.0, u))]),
        (hj.simplex, [sigmoid, np.exp(-np.logaddexp(0.0, u))]),
    ):
        z, log_det = bijection.forward(None, None, at)
        assert z.dtype == jnp.float32
        np.testing.assert_allclose(z, expected, rtol=2e-6)
        back, inverse_log_det = bijection.inverse(None, None, z)
        if abs(expected[0]) < 2.9:  # not next to the other edge, where there are no digits to keep
            np.testing.assert_allclose(back, u, rtol=1e-5)
            np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-5)
