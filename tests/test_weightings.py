"""A learned weighting: a partition of unity whatever the network is, with the plain gradient under every estimator."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from hiwae_jax import GRADIENTS
from tests import models

X = models.SCALAR_X
NOISE = np.array([0.4, -1.1, 0.7, 0.2])
TOLERANCE = 1e-6


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def params():
    return models.with_logits(models.scalar_params(0.25))


def narrow(params, x):
    return params["loc"][:1] + 0.2 * x, jnp.exp(params["log_scale"][:1] - 0.2)


def broad(params, x):
    return params["loc"][1:], jnp.exp(params["log_scale"][1:] + 0.2)


def joint(params, x):
    tril = jnp.stack([1.1, 0.0, 0.6, 0.8]).at[2].add(params["slope"][0]).reshape(1, 2, 2)
    return params["loc"][:, None] + 0.3 * x[None], tril


def hierarchical(*, shared=True):
    return hj.hierarchical(
        models.scalar_base, models.scalar_conditionals, models.scalar_reverse, shared=shared, sampler=models.leading
    )


PROPOSALS = {
    "shared": hierarchical(),
    "own z_0": hierarchical(shared=False),
    "defensive": hj.defensive(narrow, broad, num_samples=2, sampler=models.leading),
    "joint": hj.joint_gaussian(joint, sampler=models.leading),
}


@pytest.mark.parametrize("name", ["own z_0", "joint"])
def test_each_sample_takes_the_share_of_its_own_member(name):
    """Against the uniform weighting the log-weights differ by the logits' log-softmax at the sample's own place."""
    proposal, x = PROPOSALS[name], jnp.asarray(X)
    functions = [
        hj.make_log_weights(models.scalar_log_joint, proposal, weighting=weighting)
        for weighting in (models.learned(2), None)
    ]

    @models.quick_jit
    def evaluate(noise):
        return [f(params(), x, noise) for f in functions], proposal.draw(params(), x, noise)

    (log_weights, uniform), draw = evaluate(jnp.asarray(NOISE))
    z, z0 = np.asarray(draw.z), 0.0 if draw.z0 is None else np.asarray(draw.z0)
    slope, curve, by_z0 = np.asarray(params()["logits"])
    place = np.array([-1.0, 1.0])
    logits = (slope * np.sin(z) + by_z0 * np.sin(z0)) * place + curve * (place + place**2)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares.sum(1), 1.0)
    np.testing.assert_allclose(log_weights - uniform, np.log(2.0 * np.diagonal(shares)), atol=1e-12)


def test_a_partition_of_unity_passes_unchanged_and_the_balance_heuristic_is_one():
    """The members' own densities as logits: `power_heuristic(1)` in other words, though nothing is known of them."""

    def log_densities(params, x, z, z0):
        loc, scale = models.scalar_conditionals(params, x, z0)
        return jax.nn.log_softmax(jax.scipy.stats.norm.logpdf(z[:, None], loc, scale)[:, 0])

    functions = [
        hj.make_log_weights(models.scalar_log_joint, PROPOSALS["shared"], weighting=weighting)
        for weighting in (hj.learned_weighting(log_densities), hj.power_heuristic(1.0))
    ]
    ours, theirs = models.quick_jit(lambda noise: [f(params(), jnp.asarray(X), noise) for f in functions])(
        jnp.asarray(NOISE)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_networks_parameters_receive_the_same_gradient_under_every_estimator():
    """At every draw, not on average; and an estimator that needs no densities of others is the same as another."""
    bounds = {
        gradient: hj.make_bound(
            models.scalar_log_joint,
            PROPOSALS["own z_0"]._replace(independent_noise=True),  # quadrature weighs the noise so
            weighting=models.learned(2),
            gradient=None if gradient == "recommended" else gradient,
        )
        for gradient in (*GRADIENTS, "recommended")
    }
    gradients = models.quick_jit(
        lambda p: {name: jax.grad(f)(p, jnp.asarray(X), jnp.asarray(NOISE)) for name, f in bounds.items()}
    )(params())
    plain = gradients["reparameterized"]
    assert float(jnp.min(jnp.abs(plain["logits"]))) > 1e-4
    for gradient in gradients.values():
        np.testing.assert_allclose(gradient["logits"], plain["logits"], atol=1e-13)
    for name in ("refilled", "recommended"):
        chex.assert_trees_all_equal(gradients[name], gradients["doubly_reparameterized"])


@functools.cache
def means(name):
    """Expected values and gradients of both unbiased estimators, with beta 1 and 0.3."""
    return models.mean_gradients(
        PROPOSALS[name],
        models.learned(2),
        ("reparameterized", "doubly_reparameterized"),
        params(),
        dimensions={"shared": 3, "defensive": 2, "joint": 2}[name],
        nodes={"shared": 40, "defensive": 60, "joint": 60}[name],
        betas=(1.0, 0.3),
    )


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("name", ["shared", "defensive", "joint"])
def test_doubly_reparameterized_is_unbiased(name, beta):
    plain, other = (means(name)[gradient, beta] for gradient in ("reparameterized", "doubly_reparameterized"))
    assert plain[0] == pytest.approx(other[0], rel=1e-12)
    assert np.max(np.abs(plain[1] - other[1])) < TOLERANCE


def test_the_mean_gradient_is_the_gradient_of_the_mean():
    """Finite differences of the expected bound along a random direction and along the logits."""
    bound = hj.make_bound(models.scalar_log_joint, PROPOSALS["defensive"], weighting=models.learned(2))
    points, weights = models.quadrature(2, 60)
    flat, unravel = ravel_pytree(params())

    @models.quick_jit
    def mean(flat):
        return weights @ jax.vmap(lambda noise: bound(unravel(flat), jnp.asarray(X), noise))(points)

    _, expected = means("defensive")["reparameterized", 1.0]
    along_logits = ravel_pytree({**jax.tree.map(jnp.zeros_like, params()), "logits": jnp.array([1.0, -2.0, 0.0])})[0]
    for direction in (along_logits, jnp.asarray(np.random.default_rng(0).normal(size=flat.shape))):
        difference = (mean(flat + 1e-4 * direction) - mean(flat - 1e-4 * direction)) / 2e-4
        assert float(difference) == pytest.approx(float(expected @ np.asarray(direction)), abs=1e-6)
        assert abs(float(difference)) > 1e-3
