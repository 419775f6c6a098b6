"""`reverse_samples=`: densities without z_0 as means over draws of the reverse model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from tests import models

pytestmark = pytest.mark.usefixtures("double_precision")

X = models.SCALAR_X


def one_member(params, x, z0):
    loc, scale = models.scalar_conditionals(params, x, z0)
    return loc[:1], scale[:1]


def proposal_of(reverse_samples, *, num_samples=None, shared=True, sampler=models.leading):
    return hj.hierarchical(
        models.scalar_base,
        models.scalar_conditionals if num_samples is None else one_member,
        models.scalar_reverse,
        shared=shared,
        num_samples=num_samples,
        reverse_samples=reverse_samples,
        sampler=sampler,
    )


def log_weights_by_hand(params, z0, z, noise, *, alpha, shared):
    """The K log-weights in NumPy, from the formula; `z0` [K], `z` [K], `noise` [K, S]."""
    normal = lambda z, loc, scale: -0.5 * ((z - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2.0 * np.pi)
    base_loc, base_scale = (float(leaf[0]) for leaf in models.scalar_base(params, X))
    found = []
    for j in range(len(z)):
        slope, shift, log_scale = (float(value) for value in params["reverse"])
        reverse = slope * z[j] + shift, np.exp(log_scale)
        psi = np.concatenate([z0[j : j + 1], reverse[0] + reverse[1] * noise[j]])
        log_s = []
        for i in range(len(z)):
            loc = float(params["loc"][i]) + np.tanh(float(params["slope"][i])) * psi
            scale = np.exp(float(params["log_scale"][i]) + float(params["wiggle"][i]) * np.sin(psi))
            terms = normal(psi, base_loc, base_scale) + normal(z[j], loc, scale) - normal(psi, *reverse)
            log_s.append(np.logaddexp.reduce(terms) - np.log(len(psi)))
        log_s = np.array(log_s)
        log_pi = alpha * log_s - np.logaddexp.reduce(alpha * log_s)
        residual = X[0] - float(params["w"]) * np.tanh(z[j]) - 0.3 * z[j]
        found.append(float(-0.25 * residual**2 - 0.5 * z[j] ** 2) + log_pi[j] - log_s[j])
    return np.array(found)


@pytest.mark.parametrize(("alpha", "shared"), [(0.0, True), (1.0, True), (2.0, False)])
def test_the_weights_are_those_of_the_formula(alpha, shared):
    """In chunks too, and for fewer draws of the reverse model than the draw has."""
    params, noise = models.scalar_params(), np.random.default_rng(0).normal(size=10)
    proposal, weighting = proposal_of(2, shared=shared), hj.power_heuristic(alpha)
    log_weights = functools.partial(hj.make_log_weights, models.scalar_log_joint, weighting=weighting)

    @models.quick_jit
    def evaluate(params, noise):
        draw = proposal.draw(params, X, noise)
        weights = {
            "whole": log_weights(proposal)(params, X, draw),
            "chunks": log_weights(proposal, chunk_size=1)(params, X, draw),
            "first": log_weights(proposal, reverse_samples=1)(params, X, draw),
            "none": log_weights(proposal, reverse_samples=0)(params, X, draw),
            "today": log_weights(proposal_of(0, shared=shared))(params, X, noise),
        }
        return draw.z0[:, 0], draw.z[:, 0], draw.reverse_noise[:, :, 0], weights

    z0, z, reverse_noise, weights = jax.tree.map(np.asarray, evaluate(params, jnp.asarray(noise)))
    by_hand = lambda S: log_weights_by_hand(params, z0, z, reverse_noise[:, :S], alpha=alpha, shared=shared)
    np.testing.assert_allclose(weights["whole"], by_hand(2), rtol=1e-12)
    np.testing.assert_allclose(weights["chunks"], by_hand(2), rtol=1e-12)
    np.testing.assert_allclose(weights["first"], by_hand(1), rtol=1e-12)
    np.testing.assert_allclose(weights["none"], weights["today"], rtol=1e-13)


@pytest.mark.parametrize(("alpha", "reverse_samples"), [(0.0, 1), (1.0, 1), (1.0, 2)])
def test_the_weights_estimate_the_evidence(alpha, reverse_samples):
    """`E[w_1 + w_2]` by quadrature. A weight depends on z_0, its own sample and its own draws alone."""
    S, params = reverse_samples, models.scalar_params()
    log_weights = hj.make_log_weights(models.scalar_log_joint, proposal_of(S), weighting=hj.power_heuristic(alpha))
    points, weights = models.quadrature(2 + S, 40 if S == 1 else 20)
    zeros = jnp.zeros_like(points[:, :1])
    psi, no_psi = points[:, 2:], jnp.zeros_like(points[:, 2:])
    first = jnp.concatenate([points[:, :2], zeros, psi, no_psi], axis=1)
    second = jnp.concatenate([points[:, :1], zeros, points[:, 1:2], no_psi, psi], axis=1)

    @models.quick_jit
    def mean(params, noises):
        each = jax.vmap(jax.vmap(log_weights, in_axes=(None, None, 0)), in_axes=(None, None, 0))
        return jnp.einsum("spj,p->sj", jnp.exp(each(params, X, noises)), weights)

    found = np.asarray(mean(params, jnp.stack([first, second])))
    assert found[0, 0] + found[1, 1] == pytest.approx(models.scalar_evidence(params), rel=1e-6 if S == 1 else 5e-5)


def mean_bounds(reverse_samples, gradients):
    """`(E[bound], E[gradient])` of one sample for each gradient, by quadrature."""
    points, weights = models.quadrature(2 + reverse_samples, 20 if reverse_samples < 2 else 14)
    bounds = [
        hj.make_bound(
            models.scalar_log_joint,
            proposal_of(reverse_samples, num_samples=1, shared=False),
            gradient=gradient,
        )
        for gradient in gradients
    ]

    @models.quick_jit
    def mean(params, points):
        each = [jax.vmap(jax.value_and_grad(bound), in_axes=(None, None, 0))(params, X, points) for bound in bounds]
        return jax.tree.map(lambda rows: jnp.tensordot(weights, rows, 1), each)

    return [(float(value), np.asarray(ravel_pytree(slope)[0])) for value, slope in mean(models.scalar_params(), points)]


def bound_of_marginal_density():
    """The ELBO of the first member's marginal density, with z_0 integrated out on a grid."""
    points, weights = map(np.asarray, models.quadrature(1, 60))
    params = models.scalar_params()
    base_loc, base_scale = (float(leaf[0]) for leaf in models.scalar_base(params, X))
    z0 = base_loc + base_scale * points[:, 0]
    loc = float(params["loc"][0]) + np.tanh(float(params["slope"][0])) * z0
    scale = np.exp(float(params["log_scale"][0]) + float(params["wiggle"][0]) * np.sin(z0))
    z = (loc[:, None] + scale[:, None] * points[:, 0]).ravel()
    density = (np.exp(-0.5 * ((z[:, None] - loc) / scale) ** 2) / scale / np.sqrt(2.0 * np.pi)) @ weights
    residual = X[0] - float(params["w"]) * np.tanh(z) - 0.3 * z
    return float(np.kron(weights, weights) @ (-0.25 * residual**2 - 0.5 * z**2 - np.log(density)))


def test_the_bound_rises_with_every_draw_and_scores_become_paths():
    """One sample: S = 0, 1, 2 in turn, below the ELBO without z_0. The DReG mean gradient is the plain one."""
    none, one, two = (
        mean_bounds(S, gradients)
        for S, gradients in (
            (0, ["reparameterized"]),
            (1, ["reparameterized", "doubly_reparameterized"]),
            (2, ["reparameterized"]),
        )
    )
    assert none[0][0] + 1e-3 < one[0][0] < two[0][0] - 1e-4 < bound_of_marginal_density() - 1e-4
    plain, doubly = one
    assert doubly[0] == pytest.approx(plain[0], rel=1e-12)
    np.testing.assert_allclose(doubly[1], plain[1], atol=1e-6)


def test_many_draws_give_the_marginal_densities():
    """Linear Gaussian conditionals: with 2,000 draws the estimates of the marginals are those in closed form."""
    conditionals = lambda params, x, z0: (jnp.stack([0.8 * z0, -0.5 * z0 + 0.3]), jnp.full((2, 1), 0.6))
    proposal = hj.hierarchical(
        lambda params, x: (jnp.zeros(1), jnp.ones(1)),
        conditionals,
        lambda params, x, z: (0.4 * z, jnp.full_like(z, 1.2)),
        reverse_samples=2_000,
    )
    log_joint = lambda params, x, z: -0.5 * jnp.sum((z - 0.4) ** 2)
    log_weights = hj.make_log_weights(log_joint, proposal, weighting=hj.power_heuristic(1.0))
    bound = hj.make_bound(log_joint, proposal)
    draw = bound.draw({}, X, jax.random.key(2))
    found = np.asarray(models.quick_jit(log_weights)({}, X, draw))
    z = np.asarray(draw.z)[:, 0]
    normal = lambda z, loc, deviation: np.exp(-0.5 * ((z - loc) / deviation) ** 2) / deviation / np.sqrt(2.0 * np.pi)
    mixture = normal(z, 0.0, np.hypot(0.8, 0.6)) + normal(z, 0.3, np.hypot(0.5, 0.6))
    np.testing.assert_allclose(found, -0.5 * (z - 0.4) ** 2 - np.log(mixture), atol=0.05)


def test_scores_become_paths_where_each_sample_has_its_own_z0():
    """Two members, uniform weighting: z-scores of paired differences. Squared weights on a shared z_0 do not pass."""
    params = models.scalar_params()
    make = lambda gradient, **changes: hj.make_bound(
        models.scalar_log_joint, proposal_of(1, sampler=None, **changes), gradient=gradient
    )
    pairs = [make(gradient, shared=False) for gradient in ("reparameterized", "doubly_reparameterized")]

    @models.quick_jit
    def differences(params, keys):
        gradient = lambda bound: jax.vmap(lambda key: ravel_pytree(jax.grad(bound)(params, X, key))[0])(keys)
        plain, doubly = map(gradient, pairs)
        return doubly - plain, plain, doubly

    difference, plain, doubly = map(np.asarray, differences(params, jax.random.split(jax.random.key(7), 20_000)))
    deviation = np.std(difference, axis=0)
    moving = deviation > 1e-12
    z = np.mean(difference, axis=0)[moving] / deviation[moving] * np.sqrt(len(difference))
    assert np.max(np.abs(z)) < 4.5
    assert np.sum(np.var(doubly, axis=0)) < np.sum(np.var(plain, axis=0))
    names = list(jax.tree.leaves({name: [name] * np.size(value) for name, value in sorted(params.items())}))
    still = {name for name, moves in zip(names, moving, strict=True) if not moves}
    assert still == {"reverse", "w"}  # they have the plain gradient


@pytest.mark.parametrize(
    ("gradient", "shared", "alpha"),
    [("doubly_reparameterized", True, 0.0), ("doubly_reparameterized", False, 1.0), ("score_function", False, 0.0)],
)
def test_gradients_that_are_not_derived_are_refused(gradient, shared, alpha):
    with pytest.raises(ValueError, match=f"gradient: '{gradient}' .*reverse_samples > 0.*reparameterized"):
        hj.make_bound(
            models.scalar_log_joint,
            proposal_of(1, shared=shared, sampler=None),
            weighting=hj.power_heuristic(alpha),
            gradient=gradient,
        )


def test_other_refusals():
    learned = hj.learned_weighting(lambda params, x, z, z0: jnp.zeros(2))
    with pytest.raises(ValueError, match="weighting: expected one of densities with reverse_samples > 0"):
        hj.make_bound(models.scalar_log_joint, proposal_of(1), weighting=learned)
    independent = hj.independent(models.scalar_base, num_samples=2)
    with pytest.raises(ValueError, match="reverse_samples: expected None, because the reverse model of this proposal"):
        hj.make_log_weights(models.scalar_log_joint, independent, reverse_samples=1)
    draw = proposal_of(1, sampler=None).draw(models.scalar_params(), X, jax.random.key(0))
    log_weights = hj.make_log_weights(models.scalar_log_joint, proposal_of(0), reverse_samples=2)
    with pytest.raises(ValueError, match=r"key: expected a key, or a draw with 2 draws of the reverse model .* with 1"):
        log_weights(models.scalar_params(), X, draw)


@pytest.mark.parametrize("options", [{}, {"sampler": models.leading}], ids=["stream of its own", "one sampler"])
def test_further_draws_change_no_other_number(options):
    params = models.scalar_params()
    key = jax.random.key(3) if not options else jax.random.normal(jax.random.key(3), (9,))
    make = lambda S: proposal_of(S, **{"sampler": None, **options}).draw(params, X, key)
    without, with_three = make(0), make(3)
    np.testing.assert_array_equal(without.z, with_three.z)
    np.testing.assert_array_equal(without.z0, with_three.z0)
    assert with_three.reverse_noise.shape == (2, 3, 1)
    assert np.unique(np.concatenate([with_three.reverse_noise.ravel(), with_three.z.ravel()])).size == 8
