"""Parts of the toy fits that need no training: proposals and weightings of their own, and what is measured."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.toy import problem as toy_problem
from experiments.toy import training as toy_training

LOG_Z = 3.30983


def test_the_measures_are_those_of_numpy():
    log_w = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) + np.float32(1.0)
    w = np.exp(log_w.astype(np.float64))
    total = w.sum(axis=1)
    expected = {
        "bound": np.log(total).mean(),
        "gap": 2.0 - np.log(total).mean(),
        "bound_standard_error": np.log(total).std() / math.sqrt(500),
        "estimate_log_variance": np.log(total).var(),
        "estimate_variance": total.var() / math.exp(2.0) ** 2,
        "estimate_deviation": total.std() / math.exp(2.0),
        "log_weight_variance": log_w.var(axis=0, ddof=1).mean(),
        "effective_sample_size": (total**2 / (w**2).sum(axis=1)).mean(),
        "weight_correlation": np.corrcoef(w.T),
    }
    measured = toy_training.measure(jnp.asarray(log_w), log_z=2.0)
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(measured[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_weights_of_a_chain_estimate_z_without_bias():
    problem = toy_problem.make_problem(toy_problem.Settings(z0="markov", hidden=8, num_samples=2))
    params = jax.jit(problem.init)(jax.random.key(0))
    # Wider than the target, so that the weights have light tails.
    params["base"]["raw"] += 1.0
    params["transition"]["raw"]["bias"] += 2.0
    keys = jax.random.split(jax.random.key(1), 5_000)
    log_w = jax.jit(jax.vmap(problem.log_weights, in_axes=(None, None, 0)))(params, jnp.zeros(()), keys)
    estimate = np.exp(np.logaddexp.reduce(np.asarray(log_w, np.float64), axis=1) - LOG_Z)
    error = estimate.std() / math.sqrt(len(estimate))
    assert error < 0.05
    assert abs(estimate.mean() - 1.0) < 4.0 * error


def test_a_head_of_the_reverse_model_is_of_one_member():
    problem = toy_problem.make_problem(toy_problem.Settings(reverse="heads", hidden=8))
    params = jax.jit(problem.init)(jax.random.key(0))
    assert params["reverse"]["hidden"]["weight"].shape == (8, 2)

    def log_weights(bias):
        network = {**params["reverse"], "loc": {**params["reverse"]["loc"], "bias": bias}}
        return problem.log_weights({**params, "reverse": network}, jnp.zeros(()), jax.random.key(1))

    sensitivity = jax.jit(jax.jacobian(log_weights))(params["reverse"]["loc"]["bias"]).reshape(3, 3, 2)
    is_own = np.eye(3, dtype=bool)
    assert np.all(np.abs(sensitivity[is_own]) > 1e-3)
    assert np.all(sensitivity[~is_own] == 0)
