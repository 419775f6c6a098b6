"""Training and evaluation of the toy fits, against a second implementation and on weights of known distribution."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.toy import training as toy_training
from experiments.toy.problem import Problem, Settings

CENTRE = np.array([1.0, -2.0])
SETTINGS = Settings(num_samples=2, steps=12, seeds=2, draws=20_000, batch_size=3, learning_rate=0.2)
SPREAD, LOG_Z = 0.4, 1.7


def bound(params, x, key):
    """`-|a - CENTRE - noise|^2 / 2`, to be maximised."""
    return -0.5 * jnp.sum((params["a"] - jnp.asarray(CENTRE, jnp.float32) - jax.random.normal(key, (2,))) ** 2)


def log_weights(params, x, key):
    """`log w_j = a_0 + SPREAD noise_j - SPREAD^2 / 2 - log 2`, so that `E[w_1 + w_2] = exp(a_0)`."""
    return params["a"][0] + SPREAD * jax.random.normal(key, (2,)) - 0.5 * SPREAD**2 - math.log(2.0)


PROBLEM = Problem(
    init=lambda key: {"a": jax.random.normal(key, (2,))},
    log_joint=None,
    proposal=None,
    weighting=None,
    make_bound=lambda **options: bound,
    log_weights=log_weights,
    draw=lambda params, x, key: None,
)


def train_with_numpy(seed, *, decay):
    """Adam of Kingma and Ba (2015), algorithm 1; only what is random is drawn by JAX, by the keys of seed and step."""
    a = np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(0), seed), (2,)), np.float64)
    first, second = np.zeros(2), np.zeros(2)
    for step in range(SETTINGS.steps):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), seed), step)
        noise = np.stack([jax.random.normal(one, (2,)) for one in jax.random.split(key, SETTINGS.batch_size)])
        gradient = np.mean(a - CENTRE - noise, axis=0)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        corrected = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        rate = SETTINGS.learning_rate * (0.5 * (1 + np.cos(np.pi * step / SETTINGS.steps)) if decay else 1.0)
        a = a - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    return a


@pytest.mark.parametrize("decay", [False, True])
def test_training_is_that_of_a_second_implementation(decay, monkeypatch):
    monkeypatch.setattr(toy_training, "STEPS_A_CALL", 6)  # two calls
    params = toy_training.train(SETTINGS._replace(decay=decay), PROBLEM)
    expected = np.stack([train_with_numpy(seed, decay=decay) for seed in range(2)])
    np.testing.assert_allclose(params["a"], expected, rtol=1e-4, atol=1e-4)
    assert np.max(np.abs(expected[0] - expected[1])) > 0.01
    # Uphill: nearer to where the bound is largest than it began.
    start = np.stack([jax.random.normal(jax.random.fold_in(jax.random.key(0), seed), (2,)) for seed in range(2)])
    assert np.all(np.linalg.norm(expected - CENTRE, axis=1) < np.linalg.norm(start - CENTRE, axis=1))


def test_every_figure_of_an_evaluation_is_what_it_must_be():
    levels = np.array([LOG_Z, LOG_Z - 0.5])
    params = {"a": jnp.asarray(np.stack([levels, np.zeros(2)], axis=1), jnp.float32)}
    found = toy_training.evaluate(SETTINGS, PROBLEM, params, log_z=LOG_Z)
    # Of both seeds: E[log w] and Var(log w) of the mean of two log-normal numbers of mean one, by quadrature.
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    mass = np.outer(weights, weights) / np.sum(weights) ** 2
    weight = np.exp(SPREAD * points - 0.5 * SPREAD**2)
    log_mean = np.log((weight[:, None] + weight[None, :]) / 2)
    mean = np.sum(mass * log_mean)
    variance = np.sum(mass * (log_mean - mean) ** 2)
    size = np.sum(mass * (weight[:, None] + weight[None, :]) ** 2 / (weight[:, None] ** 2 + weight[None, :] ** 2))
    relative = np.expm1(SPREAD**2) / 2  # the variance of a mean of two, over its square
    error = math.sqrt(variance / SETTINGS.draws)
    np.testing.assert_allclose(found["bound"], levels + mean, atol=4 * error)
    np.testing.assert_allclose(found["gap"], LOG_Z - levels - mean, atol=4 * error)
    np.testing.assert_allclose(found["bound_standard_error"], [error] * 2, rtol=0.04)
    np.testing.assert_allclose(found["estimate_log_variance"], [variance] * 2, rtol=0.05)
    np.testing.assert_allclose(found["estimate_variance"], relative * np.exp(2 * (levels - LOG_Z)), rtol=0.06)
    np.testing.assert_allclose(found["estimate_deviation"], np.sqrt(relative) * np.exp(levels - LOG_Z), rtol=0.03)
    np.testing.assert_allclose(found["log_weight_variance"], [SPREAD**2] * 2, rtol=0.04)
    np.testing.assert_allclose(found["effective_sample_size"], [size] * 2, rtol=0.01)
    np.testing.assert_allclose(found["weight_correlation"], [np.eye(2)] * 2, atol=0.03)
    # Each seed has draws of its own.
    assert abs(found["gap"][0] - (found["gap"][1] - 0.5)) > 1e-6
