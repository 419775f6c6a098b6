"""Mean gradients without Monte Carlo: K = 2 in one dimension, integrated over the noise by Gauss-Hermite quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import models

TOLERANCE = 1e-6
WRONG_BY = 1e-2 / 3  # every wrong rule is further off than this; the right ones are within TOLERANCE
ALL = ("reparameterized", "doubly_reparameterized", "path_squared", "authors")
SETTINGS = {
    # nodes an axis and the members' spread at which quadrature itself is exact to TOLERANCE, or to the given accuracy
    "shared, alpha 0": {"shared": True, "alpha": 0.0, "nodes": 48, "spread": 1.0, "betas": (1.0, 0.3)},
    "shared, alpha 0.5": {"shared": True, "alpha": 0.5, "nodes": 48, "spread": 1.0, "gradients": ALL[:2]},
    "shared, alpha 1": {"shared": True, "alpha": 1.0, "nodes": 48, "spread": 1.0, "betas": (1.0, 0.3)},
    "shared, alpha 3": {"shared": True, "alpha": 3.0, "nodes": 64, "spread": 0.5},
    "own z_0, alpha 0": {"shared": False, "alpha": 0.0, "nodes": 16, "spread": 0.25, "accuracy": 5e-5},
    "own z_0, alpha 1": {
        "shared": False,
        "alpha": 1.0,
        "nodes": 16,
        "spread": 0.25,
        "accuracy": 5e-5,
        "betas": (1.0, 0.3),
        "gradients": ALL[:2],
    },
}


@functools.cache
def mean_gradients(
    *, shared, alpha, nodes, spread, betas=(1.0,), gradients=ALL, conditionals=models.scalar_conditionals
):
    """`{(gradient, beta): (expected value, expected gradient [all parameters])}`."""
    with jax.enable_x64(True):
        return models.mean_gradients(
            models.scalar_proposal(shared=shared, conditionals=conditionals),
            hj.power_heuristic(alpha),
            gradients,
            models.scalar_params(spread),
            dimensions=3 if shared else 4,
            nodes=nodes,
            betas=betas,
        )


def distance(name, gradient, beta=1.0, **changes):
    """Largest difference of a mean gradient from the plain one's."""
    setting = {key: value for key, value in SETTINGS[name].items() if key != "accuracy"}
    means = mean_gradients(**{**setting, **changes})
    plain, other = means["reparameterized", beta], means[gradient, beta]
    np.testing.assert_allclose(other[0], plain[0], rtol=1e-12)
    return np.max(np.abs(other[1] - plain[1]))


@pytest.mark.parametrize("name", SETTINGS)
def test_doubly_reparameterized_is_unbiased(name):
    for beta in SETTINGS[name].get("betas", (1.0,)):
        assert distance(name, "doubly_reparameterized", beta) < SETTINGS[name].get("accuracy", TOLERANCE)


@pytest.mark.parametrize("name", ["shared, alpha 0", "own z_0, alpha 0"])
def test_path_squared_is_unbiased_under_the_uniform_weighting(name):
    assert distance(name, "path_squared") < SETTINGS[name].get("accuracy", TOLERANCE)


def test_path_squared_is_biased_under_other_weightings():
    assert distance("shared, alpha 1", "path_squared") > WRONG_BY
    changes = {"spread": 1.0, "gradients": ("reparameterized", "path_squared")}
    assert distance("shared, alpha 3", "path_squared", **changes) > WRONG_BY


def test_squared_weights_are_biased_under_warm_up():
    assert distance("shared, alpha 0", "path_squared", beta=0.3) > WRONG_BY


@pytest.mark.parametrize("name", ["shared, alpha 0", "shared, alpha 1", "shared, alpha 3", "own z_0, alpha 0"])
def test_the_authors_rule_is_biased(name):
    assert distance(name, "authors") > WRONG_BY


def frozen_conditionals(params, x, z0):
    """Members whose densities are to be stopped at the networks' weights, not at the arrays."""
    return models.scalar_conditionals(jax.lax.stop_gradient(params), x, z0)


def test_stopping_the_weights_instead_of_the_arrays_is_biased():
    """The negative control of the rule itself: the path z_0 -> parameters -> density must be cut as well."""
    with jax.enable_x64(True):
        params, x = models.scalar_params(), jnp.asarray(models.SCALAR_X)
        points, weights = models.quadrature(3, 48)

        def wrong(params, noise):
            stopped = jax.lax.stop_gradient(params)
            base_loc, base_scale = models.scalar_base(params, x)
            z0 = base_loc + base_scale * noise[:1]
            loc, scale = models.scalar_conditionals(params, x, z0)
            z = loc + scale * noise[1:, None]

            def log_weights(params, stopped, z):
                log_prob = jax.vmap(hj.diagonal_gaussian.log_prob)
                log_p = jax.vmap(models.scalar_log_joint, in_axes=(None, None, 0))(params, x, z)
                rows = models.scalar_reverse(params, x, z)
                log_r = log_prob(rows, jnp.broadcast_to(z0, (2, 1)))
                log_q0 = hj.diagonal_gaussian.log_prob(models.scalar_base(stopped, x), z0)
                log_q = log_prob(models.scalar_conditionals(stopped, x, z0), z)
                return log_p + log_r - log_q0 - log_q - jnp.log(2.0)

            w = jax.nn.softmax(jax.lax.stop_gradient(log_weights(params, stopped, z)))[:, None]
            return jax.nn.logsumexp(
                log_weights(params, stopped, jax.lax.stop_gradient(z) + w * (z - jax.lax.stop_gradient(z)))
            )

        gradients = models.quick_jit(jax.vmap(jax.grad(wrong), in_axes=(None, 0)))(params, points)
        leaves = [np.asarray(leaf).reshape(len(points), -1) for leaf in jax.tree.leaves(gradients)]
        mean = np.asarray(weights) @ np.concatenate(leaves, axis=1)
    plain = mean_gradients(**SETTINGS["shared, alpha 0"])["reparameterized", 1.0][1]
    assert np.max(np.abs(mean - plain)) > WRONG_BY


def test_a_model_that_stops_its_encoder_keeps_the_rest_unbiased():
    changes = {"conditionals": frozen_conditionals, "gradients": ALL[:2], "betas": (1.0,)}
    assert distance("shared, alpha 1", "doubly_reparameterized", **changes) < TOLERANCE


@pytest.mark.parametrize(
    ("alpha", "accuracy", "bias"), [(0.3, 1e-6, 3e-2), (0.5, 1e-6, 3e-2), (1.0, 1e-6, 1e-3), (3.0, 1e-4, 0.1)]
)
def test_doubly_reparameterized_is_unbiased_with_three_members(alpha, accuracy, bias):
    """From three members on the phantom in an empty slot is made of several weights."""

    def one(name):
        return lambda params, x: (params[name][:1], jnp.exp(params[name][1:]))

    gradients = ("reparameterized", "doubly_reparameterized", "path_squared")
    with jax.enable_x64(True):
        params = {
            **models.scalar_params(0.5),
            "narrow": jnp.array([0.15, -0.8]),
            "broad": jnp.array([-0.1, -0.7]),
        }
        proposal = hj.defensive(one("narrow"), one("broad"), num_samples=3, sampler=models.leading)
        means = models.mean_gradients(
            proposal, hj.power_heuristic(alpha), gradients, params, dimensions=3, nodes=40, betas=(1.0, 0.3)
        )
    for beta in (1.0, 0.3):
        plain, ours, biased = (means[gradient, beta][1] for gradient in gradients)
        np.testing.assert_allclose(ours, plain, atol=accuracy)
        assert np.max(np.abs(biased - plain)) > bias
