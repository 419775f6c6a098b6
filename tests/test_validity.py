"""`E[sum_j w_j] = p(x)` for every proposal, weighting and K, and the identities between bounds."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import hiwae_jax as hj
from tests import models


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def mean_total_weight(proposal, weighting, params, dimensions, nodes):
    """`E[sum_j w_j]` by quadrature over the injected noise."""
    log_weights = hj.make_log_weights(models.scalar_log_joint, proposal, weighting=weighting)
    points, weights = models.quadrature(dimensions, nodes)
    x = jnp.asarray(models.SCALAR_X)
    totals = models.quick_jit(jax.vmap(lambda key: jnp.sum(jnp.exp(log_weights(params, x, key)))))(points)
    return float(weights @ totals)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("shared", [True, False])
def test_hierarchical_weights_integrate_to_the_evidence(shared, alpha):
    params = models.scalar_params(0.25)
    total = mean_total_weight(
        models.scalar_proposal(shared=shared),
        hj.power_heuristic(alpha),
        params,
        3 if shared else 4,
        40 if shared else 28,
    )
    assert total == pytest.approx(models.scalar_evidence(params), rel=1e-6)


def equal_conditionals(params, x, z0):
    loc, scale = models.scalar_conditionals(params, x, z0)
    return loc[:1], scale[:1]


@pytest.mark.parametrize("num_samples", [1, 2, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_equal_members_integrate_to_the_evidence(shared, num_samples):
    params = models.scalar_params(0.25)
    proposal = models.scalar_proposal(shared=shared, conditionals=equal_conditionals, num_samples=num_samples)
    dimensions = num_samples + (1 if shared else num_samples)
    # What quadrature itself can do with the nodes that a grid in so many dimensions leaves.
    nodes, accuracy = {2: (60, 1e-7), 3: (40, 1e-6), 4: (28, 2e-6), 6: (9, 1e-3)}[dimensions]
    total = mean_total_weight(proposal, None, params, dimensions, nodes)
    assert total == pytest.approx(models.scalar_evidence(params), rel=accuracy)


def test_a_reverse_model_of_each_member_is_valid_under_the_uniform_weighting_only():
    def reverse(params, x, z):
        return z * jnp.array([[0.3], [-0.4]]), jnp.array([[0.9], [1.2]]) * jnp.ones_like(z)

    params = models.scalar_params(0.5)
    proposal = hj.hierarchical(models.scalar_base, models.scalar_conditionals, reverse, sampler=models.injected)
    assert mean_total_weight(proposal, None, params, 3, 40) == pytest.approx(models.scalar_evidence(params), rel=1e-6)
    # Through a back door that skips the check: what the library refuses is indeed not a bound.
    unchecked = proposal._replace(reverse_traits=None)
    total = mean_total_weight(unchecked, hj.power_heuristic(1.0), params, 3, 40)
    assert abs(total / models.scalar_evidence(params) - 1.0) > 1e-3


@pytest.mark.parametrize("num_samples", [1, 2, 4])
def test_independent_weights_average_to_the_evidence_in_closed_form(num_samples):
    model = models.LinearGaussian(seed=num_samples)

    def conditional(params, x):
        return jnp.asarray(model.posterior_mean + 0.1), 1.3 * jnp.sqrt(jnp.diag(jnp.asarray(model.posterior_cov)))

    log_weights = hj.make_log_weights(model.log_joint, hj.independent(conditional, num_samples=num_samples))
    keys = jax.random.split(jax.random.key(0), 100_000)
    of_one = lambda key: jax.nn.logsumexp(log_weights(None, jnp.asarray(model.x), key))
    totals = np.exp(np.asarray(models.quick_jit(jax.vmap(of_one))(keys)) - model.log_evidence)
    error = totals.std() / np.sqrt(len(keys))
    assert abs(totals.mean() - 1.0) < 4.0 * error < 0.05


def test_the_exact_posterior_gives_the_evidence_at_every_draw():
    model = models.LinearGaussian(seed=5, latent=1)

    def conditional(params, x):
        return jnp.asarray(model.posterior_mean), jnp.sqrt(jnp.asarray(model.posterior_cov[0]))

    for num_samples in (1, 7):
        bound = hj.make_bound(model.log_joint, hj.independent(conditional, num_samples=num_samples))
        value = models.quick_jit(bound)(None, jnp.asarray(model.x), jax.random.key(1))
        assert float(value) == pytest.approx(model.log_evidence, abs=1e-12)


def augmented_exact(model):
    """z_0 drawn first and z given z_0, jointly Gaussian with the posterior of z; r is the exact conditional of z_0."""
    mean, variance = model.posterior_mean, model.posterior_cov[0, 0]
    noise = 0.7 * np.sqrt(variance)  # z_0 = z + noise

    def base(params, x):
        return jnp.asarray(mean), jnp.sqrt(jnp.asarray([variance + noise**2]))

    def conditionals(params, x, z0):
        gain = variance / (variance + noise**2)
        loc = mean + gain * (z0 - mean)
        scale = jnp.sqrt(jnp.asarray([variance * (1.0 - gain)]))
        return jnp.stack([loc] * 3), jnp.stack([scale] * 3)

    def reverse(params, x, z):
        return z, noise * jnp.ones_like(z)

    return base, conditionals, reverse


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_exact_members_and_reverse_give_the_evidence_at_every_draw(alpha, shared):
    model = models.LinearGaussian(seed=6, latent=1)
    proposal = hj.hierarchical(*augmented_exact(model), shared=shared)
    bound = hj.make_bound(model.log_joint, proposal, weighting=hj.power_heuristic(alpha))
    value = models.quick_jit(bound)(None, jnp.asarray(model.x), jax.random.key(2))
    assert float(value) == pytest.approx(model.log_evidence, abs=1e-12)


def test_one_sample_is_the_hierarchical_elbo():
    params, x = models.scalar_params(), jnp.asarray(models.SCALAR_X)
    noise = jnp.array([0.4, -1.1])
    proposal = models.scalar_proposal(conditionals=equal_conditionals, num_samples=1)
    value = models.quick_jit(hj.make_bound(models.scalar_log_joint, proposal))(params, x, noise)

    def normal(z, loc, scale):
        return np.sum(scipy.stats.norm.logpdf(z, loc, scale))

    q0 = models.scalar_base(params, x)
    z0 = q0[0] + q0[1] * noise[:1]
    q = [row[0] for row in equal_conditionals(params, x, z0)]
    z = q[0] + q[1] * noise[1:]
    r = [row[0] for row in models.scalar_reverse(params, x, z[None])]
    expected = models.scalar_log_joint(params, x, z) + normal(z0, *r) - normal(z0, *q0) - normal(z, *q)
    assert float(value) == pytest.approx(float(expected), abs=1e-12)


def test_identical_members_give_the_same_under_every_weighting():
    def doubled(params, x, z0):
        return jax.tree.map(lambda row: jnp.concatenate([row] * 2), equal_conditionals(params, x, z0))

    params, x, noise = models.scalar_params(), jnp.asarray(models.SCALAR_X), jnp.array([0.4, -1.1, 0.7])
    equal = models.scalar_proposal(conditionals=equal_conditionals, num_samples=2)
    bounds = [
        hj.make_bound(
            models.scalar_log_joint,
            models.scalar_proposal(conditionals=doubled),
            weighting=hj.power_heuristic(alpha),
            gradient="doubly_reparameterized",
        )
        for alpha in (0.0, 1.0, 3.0)
    ]
    bounds.append(hj.make_bound(models.scalar_log_joint, equal))
    *values, expected = models.quick_jit(lambda *arguments: [bound(*arguments) for bound in bounds])(params, x, noise)
    np.testing.assert_allclose(values, expected, rtol=0.0, atol=1e-12)


def test_a_trivial_shared_variable_gives_the_iwlb():
    params, x = models.scalar_params(), jnp.asarray(models.SCALAR_X)

    def conditional(params, x):
        return params["loc"][:1] + 0.2 * x, jnp.exp(params["log_scale"][:1])

    def conditionals(params, x, z0):
        return tuple(row[None] for row in conditional(params, x))

    unit = (jnp.zeros(1), jnp.ones(1))
    proposal = hj.hierarchical(
        lambda params, x: unit,
        conditionals,
        lambda params, x, z: (jnp.zeros_like(z), jnp.ones_like(z)),
        num_samples=3,
        sampler=models.injected,
    )
    noise = jnp.array([0.9, -0.3, 0.4, 1.2])
    independent = hj.independent(conditional, num_samples=3, sampler=models.injected)

    @models.quick_jit
    def results(noise):
        hierarchical = hj.make_bound(models.scalar_log_joint, proposal)(params, x, noise)
        iwae = hj.make_bound(models.scalar_log_joint, independent)(params, x, noise[1:, None])
        return hierarchical, iwae, hj.make_log_weights(models.scalar_log_joint, independent)(params, x, noise[1:, None])

    hierarchical, iwae, log_weights = results(noise)
    assert float(hierarchical) == pytest.approx(float(iwae), abs=1e-12)
    assert float(hj.iwlb(log_weights + jnp.log(3.0))) == pytest.approx(float(iwae), abs=1e-12)


def test_the_balance_heuristic_is_the_bound_of_the_mixture():
    params, x, noise = models.scalar_params(), jnp.asarray(models.SCALAR_X), jnp.array([0.4, -1.1, 0.7])
    proposal = models.scalar_proposal()
    log_weights = hj.make_log_weights(models.scalar_log_joint, proposal, weighting=hj.power_heuristic(1.0))

    @models.quick_jit
    def results(params, noise):
        draw = proposal.draw(params, x, noise)
        log_p = jax.vmap(models.scalar_log_joint, in_axes=(None, None, 0))(params, x, draw.z)
        return draw, log_p, models.scalar_reverse(params, x, draw.z), log_weights(params, x, noise)

    draw, log_p, r, found = results(params, noise)
    loc, scale = draw.parameters
    normal = scipy.stats.norm.logpdf
    density = np.logaddexp.reduce(normal(draw.z, loc[:, 0], scale[:, 0]), axis=1)
    ratio = normal(draw.z0, *r) - normal(draw.z0, *draw.base)
    np.testing.assert_allclose(found, log_p + ratio[:, 0] - density, atol=1e-12)


@pytest.mark.parametrize("gradient", ["reparameterized", "doubly_reparameterized"])
def test_the_annealed_objective_at_beta_one_is_the_bound(gradient):
    params, x, noise = models.scalar_params(), jnp.asarray(models.SCALAR_X), jnp.array([0.4, -1.1, 0.7])
    proposal, weighting = models.scalar_proposal(), hj.power_heuristic(1.0)
    bound = hj.make_bound(models.scalar_log_joint, proposal, weighting=weighting, gradient=gradient)
    objective = hj.make_annealed_objective(
        models.scalar_log_likelihood, models.scalar_log_prior, proposal, weighting=weighting, gradient=gradient
    )
    functions = bound, lambda *arguments: objective(*arguments, 1.0)
    ours, theirs = models.quick_jit(lambda *a: [jax.value_and_grad(f)(*a) for f in functions])(params, x, noise)
    chex.assert_trees_all_close(ours, theirs, atol=1e-12)


def test_free_bits_floor_the_bracket():
    params, x, noise = models.scalar_params(), jnp.asarray(models.SCALAR_X), jnp.array([0.4, -1.1, 0.7])
    proposal = models.scalar_proposal()
    cases = ((1.0, 0.5), (0.4, 0.1), (1.0, 100.0), (0.0, 0.0))

    @models.quick_jit
    def results(params, noise):
        log_weights = hj.make_log_weights(models.scalar_log_joint, proposal)(params, x, noise)
        z = proposal.draw(params, x, noise).z
        likelihood = jax.vmap(models.scalar_log_likelihood, in_axes=(None, None, 0))(params, x, z)
        values = []
        for beta, bits in cases:
            objective = hj.make_annealed_objective(
                models.scalar_log_likelihood, models.scalar_log_prior, proposal, free_bits=bits
            )
            values.append(objective(params, x, noise, beta))
        return log_weights, likelihood, values

    log_weights, likelihood, values = jax.tree.map(np.asarray, results(params, noise))
    kl = likelihood - log_weights
    for (beta, bits), value in zip(cases, values, strict=True):
        expected = np.logaddexp.reduce(likelihood - (np.maximum(beta * kl, bits) if bits else beta * kl))
        assert float(value) == pytest.approx(float(expected), abs=1e-12)


class Network(eqx.Module):
    """Parameters in the manner of Equinox, with a function among the leaves."""

    layer: eqx.nn.MLP
    member: jax.Array
    shift: jax.Array

    def __init__(self, places):
        self.layer = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
        self.member, self.shift = jnp.asarray(places), jnp.zeros((3, 2))


def test_a_reverse_model_that_finds_its_member_by_an_integer_is_seen():
    """The shifts are zero to begin with; and the weights' mean would not be p(x) once they are not."""

    def bound(reverse):
        proposal = hj.hierarchical(
            lambda params, x: (x, jnp.ones(2)),
            lambda params, x, z0: (z0[None] + jnp.arange(3.0)[:, None], jnp.ones((3, 2))),
            reverse,
        )
        return hj.make_bound(lambda params, x, z: -0.5 * jnp.sum(z**2), proposal, weighting=hj.power_heuristic(1.0))

    def alike(params, x, z):
        return jax.vmap(params.layer)(z), jnp.ones_like(z)

    def by_member(params, x, z):
        return jax.vmap(params.layer)(z) + params.shift[params.member], jnp.ones_like(z)

    arguments = Network([0, 1, 2]), jnp.ones(2), jax.random.key(0)
    assert np.isfinite(eqx.filter_jit(bound(alike))(*arguments))
    with pytest.raises(ValueError, match="reverse: gives different rows for the same z"):
        bound(by_member)(*arguments)
