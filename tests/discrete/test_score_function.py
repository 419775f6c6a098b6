"""VIMCO on arrays of log-weights: values and learning signals against their definition."""

import jax
import jax.numpy as jnp
import numpy as np

import hiwae_jax as hj
from hiwae_jax._discrete.score_function import vimco

INF = np.inf
LOG_WEIGHTS = np.array(
    [
        [0.0, -1.0, 2.5],
        [1e4, 1e4 - 1.0, 1e4 - 2.0],
        [-1e4, -1e4 + 3.0, -2e4],
        [1e4, -1e4, 0.0],
        [40.0, 0.0, 1.0],
        [-INF, 0.5, 1.0],
        [-INF, -INF, 0.5],
        [-INF, -INF, -INF],
    ]
)


def own_signals(log_weights):
    """VIMCO's learning signals, one after another, with one logarithm of a sum each."""

    def bound(log_weights):
        largest = np.max(log_weights)
        return largest if largest == -INF else largest + np.log(np.mean(np.exp(log_weights - largest)))

    value = bound(log_weights)
    signals = []
    for j in range(len(log_weights)):
        others = np.delete(log_weights, j)
        without = bound(np.append(others, np.mean(others)))
        signals.append(0.0 if value == -INF else value if without == -INF else value - without)
    return value, np.array(signals)


def test_vimco_on_arrays_agrees_with_the_definition_at_ordinary_and_extreme_weights():
    log_weights = jnp.asarray(LOG_WEIGHTS, jnp.float32)

    @jax.jit
    def both(log_weights):
        values, pull = jax.vjp(lambda w, q: vimco(w, q, axis=0), log_weights.T, log_weights.T)
        along = [jnp.isfinite(log_weights.T).astype(jnp.float32), jnp.ones_like(log_weights.T)]
        primal = [log_weights.T, jnp.zeros_like(log_weights.T)]
        _, tangent = jax.jvp(lambda w, q: vimco(w, q, axis=0), primal, along)
        return values, hj.iwlb(log_weights), pull(jnp.ones_like(values)), tangent

    values, iwlb, (weights, signals), tangent = both(log_weights)
    np.testing.assert_array_equal(values, iwlb)
    for row, value, weight, signal in zip(LOG_WEIGHTS, values, weights.T, signals.T, strict=True):
        expected_value, expected_signal = own_signals(row)
        np.testing.assert_allclose(value, expected_value, rtol=1e-6)
        rounding = 1e-6 + 2e-7 * np.max(np.abs(row), initial=0.0, where=np.isfinite(row))
        np.testing.assert_allclose(signal, expected_signal, rtol=1e-6, atol=rounding)
        expected_weight = np.exp(row - value - np.log(3.0)) if value > -INF else np.zeros(3)
        np.testing.assert_allclose(weight, expected_weight, rtol=3e-3, atol=1e-6)
    np.testing.assert_allclose(tangent, jnp.sum(weights, axis=0) + jnp.sum(signals, axis=0), rtol=1e-5)
