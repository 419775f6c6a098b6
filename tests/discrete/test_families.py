"""Families of discrete latents: samples and log-probabilities agree, and saturated logits stay finite."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hiwae_jax._discrete.bound import bernoulli, categorical

INF = np.inf


@pytest.mark.parametrize(
    ("family", "logits"),
    [(bernoulli, np.array([0.8, -1.5, 0.1])), (categorical, np.array([[0.5, -1.0, 0.2], [0.0, -INF, 1.0]]))],
)
def test_samples_follow_the_log_probabilities(family, logits):
    """The counts of all configurations against their probabilities, by a chi-square test."""
    logits = jnp.asarray(logits, jnp.float32)
    if logits.ndim == 1:
        every = np.array(list(itertools.product([0.0, 1.0], repeat=3)), np.float32)
    else:
        every = np.array([np.stack(rows) for rows in itertools.product(np.eye(3), repeat=2)], np.float32)
    num_samples = 20_000

    @jax.jit
    def both(key):
        probabilities = jnp.exp(jax.vmap(family.log_prob, in_axes=(None, 0))(logits, every))
        return family.sample(key, logits, num_samples), probabilities

    z, probabilities = both(jax.random.key(0))
    matches = np.all(np.asarray(z)[:, None] == every[None], axis=tuple(range(2, z.ndim + 1)))
    assert np.all(matches.sum(axis=1) == 1)
    assert float(jnp.sum(probabilities)) == pytest.approx(1.0, abs=1e-6)
    counts, expected = matches.sum(axis=0), num_samples * np.asarray(probabilities, np.float64)
    assert np.all(counts[expected == 0.0] == 0)
    seen = expected > 0.0
    statistic = np.sum((counts[seen] - expected[seen]) ** 2 / expected[seen])
    freedom = np.sum(seen) - 1
    assert abs(statistic - freedom) < 4.0 * np.sqrt(2.0 * freedom)


def test_saturated_logits_give_finite_log_probabilities_and_gradients():
    logits = jnp.array([200.0, -200.0])
    both = jax.jit(jax.value_and_grad(bernoulli.log_prob))
    for z, value, gradient in (([1.0, 0.0], 0.0, [0.0, 0.0]), ([0.0, 0.0], -200.0, [-1.0, 0.0])):
        result = both(logits, jnp.array(z))
        np.testing.assert_allclose(result[0], value, atol=1e-30)
        np.testing.assert_allclose(result[1], gradient, atol=1e-30)
    gradient = jax.jit(jax.grad(categorical.log_prob))(jnp.array([[0.0, -INF, 0.0]]), jnp.array([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(gradient, [[0.5, 0.0, -0.5]], atol=1e-6)
