"""`gradient="authors"` at one draw, against the rule written out a second time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from tests import models

stop = jax.lax.stop_gradient


def log_normal(parameters, z):
    loc, scale = parameters
    return jnp.sum(-0.5 * ((z - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2.0 * jnp.pi), axis=-1)


def surrogate(params, weights, noise, *, alpha, beta, bits):
    """A function with the gradient of the authors' code.

    All of the proposal with squared weights: the samples' own paths, that of z_0, and the score of q_0. The members'
    densities are stopped where their parameters are arrays. All else with the plain weights, the samples being fixed.
    """
    x = jnp.asarray(models.SCALAR_X)
    frozen = stop(params)
    base = models.scalar_base(params, x)
    z0 = base[0] + base[1] * noise[0]
    loc, scale = models.scalar_conditionals(params, x, z0)
    z = loc + scale * noise[1:, None]
    at_z = stop((loc, scale))

    def bracket(params, base, z, z0):
        """`log q_0 + log q_j - log r - log p(z_j) - log pi_j` of every sample."""
        of_members = jax.vmap(log_normal, in_axes=(0, None))
        densities = jax.vmap(lambda one: of_members(at_z, one))(z)
        log_pi = jax.nn.log_softmax(alpha * densities, axis=1)
        own = jnp.arange(2), jnp.arange(2)
        log_r = jax.vmap(log_normal, in_axes=(0, None))(models.scalar_reverse(params, x, z), z0)
        log_prior = -0.5 * z[:, 0] ** 2
        return log_normal(base, z0) + densities[own] - log_r - log_prior - log_pi[own]

    def log_weights(params, base, z, z0):
        likelihood = jax.vmap(models.scalar_log_likelihood, in_axes=(None, None, 0))(params, x, z)
        kl = beta * bracket(params, base, z, z0)
        return likelihood - (jnp.maximum(kl, bits) if bits else kl)

    of_proposal = jnp.sum(weights**2 * log_weights(frozen, base, z, z0))
    of_model = jnp.sum(weights * log_weights(params, stop(base), stop(z), stop(z0)))
    return of_proposal + of_model, log_weights(params, base, z, z0)


@pytest.mark.parametrize(
    ("alpha", "beta", "bits"), [(0.0, 1.0, 0.0), (1.0, 1.0, 0.0), (3.0, 0.3, 0.0), (1.0, 0.6, 0.7)]
)
def test_the_rule_at_one_draw(alpha, beta, bits):
    with jax.enable_x64(True):
        params, noise = models.scalar_params(), jnp.array([0.4, -1.1, 0.7])
        objective = hj.make_annealed_objective(
            models.scalar_log_likelihood,
            models.scalar_log_prior,
            models.scalar_proposal(),
            weighting=hj.power_heuristic(alpha),
            gradient="authors",
            free_bits=bits,
        )
        rule = {"alpha": alpha, "beta": beta, "bits": bits}

        @models.quick_jit
        def both(params):
            value, ours = jax.value_and_grad(objective)(params, jnp.asarray(models.SCALAR_X), noise, beta)
            log_weights = surrogate(params, jnp.ones(2), noise, **rule)[1]
            weights = jax.nn.softmax(log_weights)
            theirs = jax.grad(lambda params: surrogate(params, weights, noise, **rule)[0])(params)
            plain = jax.grad(lambda params: jax.nn.logsumexp(surrogate(params, weights, noise, **rule)[1]))(params)
            return value, jax.nn.logsumexp(log_weights), *(ravel_pytree(tree)[0] for tree in (ours, theirs, plain))

        value, expected, ours, theirs, plain = both(params)
        assert float(value) == pytest.approx(float(expected), abs=1e-12)
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
        # It is a rule of its own: plain weights on the paths are another gradient.
        assert np.max(np.abs(plain - ours)) > 1e-2
