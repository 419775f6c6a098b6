"""Discrete latents: every gradient against enumeration of every draw."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from hiwae_jax._discrete.bound import bernoulli, categorical, make_discrete_bound
from tests.discrete.small_bound import GRADIENTS, injected

# A model of three pixels, without special structure, whose latent states can all be listed.


def own_log_prob(name, logits, z):
    """The families' log-probabilities from their definition."""
    if name == "bernoulli":
        p = 1.0 / (1.0 + jnp.exp(-logits))
        return jnp.sum(z * jnp.log(p) + (1.0 - z) * jnp.log(1.0 - p))
    return jnp.sum(z * jnp.log(jnp.exp(logits) / jnp.sum(jnp.exp(logits), axis=-1, keepdims=True)))


def states(name):
    """Every value of z: two Bernoulli variables, or one of three categories."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=2))) if name == "bernoulli" else np.eye(3)[:, None]


def model(name):
    """`(log_joint, conditional, params, x)` in double precision."""
    random = np.random.default_rng(3)
    shape = states(name).shape[1:]
    params = {
        "theta": {"w": random.normal(size=(3, *shape)), "prior": random.normal(size=shape)},
        "phi": {"a": random.normal(size=(*shape, 3)), "c": random.normal(size=shape)},
    }

    def log_joint(params, x, z):
        pixels = 2.0 * jnp.tanh(jnp.sum(params["theta"]["w"] * z[None], axis=tuple(range(1, z.ndim + 1))))
        likelihood = own_log_prob("bernoulli", pixels, x)
        return likelihood + own_log_prob(name, params["theta"]["prior"], z)

    def conditional(params, x):
        return params["phi"]["a"] @ x + params["phi"]["c"]

    return log_joint, conditional, jax.tree.map(jnp.asarray, params), jnp.array([1.0, 0.0, 1.0])


def gradients_at(num_samples):
    return GRADIENTS[:1] if num_samples == 1 else GRADIENTS


@functools.cache
def enumerated(name, num_samples):
    """Mean and total variance of each gradient over all K-tuples of states, and what the means should be."""
    with jax.enable_x64(True):
        log_joint, conditional, params, x = model(name)
        z = jnp.asarray(states(name))
        tuples = np.array(list(itertools.product(range(len(z)), repeat=num_samples)))

        def tables(params):
            joints = jax.vmap(lambda z: log_joint(params, x, z))(z)
            proposals = jax.vmap(lambda z: own_log_prob(name, conditional(params, x), z))(z)
            return joints[tuples], proposals[tuples]

        def mean_bound(params):
            joints, proposals = tables(params)
            bounds = jax.nn.logsumexp(joints - proposals, axis=1) - np.log(num_samples)
            return jnp.sum(jnp.exp(jnp.sum(proposals, axis=1)) * bounds)

        def mean_wake(params, at):
            joints, proposals = tables(at)
            weights = jnp.exp(jnp.sum(proposals, axis=1, keepdims=True)) * jax.nn.softmax(joints - proposals, axis=1)
            return jnp.sum(weights * tables(params)[1])

        family = injected(bernoulli if name == "bernoulli" else categorical)

        @jax.jit
        def everything(params):
            probabilities = jnp.exp(jnp.sum(tables(params)[1], axis=1))
            results = {"bound": jax.grad(mean_bound)(params), "wake": jax.grad(mean_wake)(params, params)}
            for gradient in gradients_at(num_samples):
                bound = make_discrete_bound(
                    log_joint, conditional, num_samples=num_samples, family=family, gradient=gradient
                )
                value, draws = jax.vmap(jax.value_and_grad(bound), in_axes=(None, None, 0))(params, x, z[tuples])
                results[f"{gradient} value"] = probabilities @ value - mean_bound(params)
                results[gradient] = jax.tree.map(lambda g: jnp.tensordot(probabilities, g, axes=1), draws)
                squares = jax.vmap(lambda g: jnp.sum(ravel_pytree(g["phi"])[0] ** 2))(draws)
                mean = ravel_pytree(results[gradient]["phi"])[0]
                results[f"{gradient} variance"] = probabilities @ squares - jnp.sum(mean**2)
            return results

        return jax.device_get(everything(params))


CASES = [("bernoulli", 1), ("bernoulli", 3), ("categorical", 2)]


def assert_trees_close(ours, theirs):
    chex.assert_trees_all_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "num_samples"), CASES)
def test_the_score_function_and_vimco_are_unbiased_for_every_parameter(name, num_samples):
    results = enumerated(name, num_samples)
    for gradient in gradients_at(num_samples):
        assert abs(results[f"{gradient} value"]) < 1e-12
        if gradient != "wake_phase":
            assert_trees_close(results[gradient], results["bound"])


@pytest.mark.parametrize(("name", "num_samples"), CASES[1:])
def test_the_wake_phase_gives_the_model_the_bound_and_the_proposal_its_own_objective(name, num_samples):
    results = enumerated(name, num_samples)
    assert_trees_close(results["wake_phase"]["theta"], results["bound"]["theta"])
    assert_trees_close(results["wake_phase"]["phi"], results["wake"]["phi"])
    assert np.max(np.abs(results["wake"]["phi"]["c"] - results["bound"]["phi"]["c"])) > 1e-3


@pytest.mark.parametrize(("name", "num_samples"), CASES[1:])
def test_vimco_has_less_variance_than_the_score_function(name, num_samples):
    results = enumerated(name, num_samples)
    assert 0.0 < results["vimco variance"] < 0.5 * results["score_function variance"]
