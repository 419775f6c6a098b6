"""Objectives on arrays of log-weights: against power means in extended precision, enumeration and closed form."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from hiwae_jax._log_weights.objectives import chi_square, renyi_bound, wake_phase
from tests import models

INF = np.inf
ROWS = np.array(
    [
        [0.0, -1.0, 2.5],
        [3.0, 3.0, 3.0],
        [1e4, 1e4 - 1.0, 1e4 - 2.0],
        [-1e4, -1e4 + 3.0, -2e4],
        [1e4, -1e4, 0.0],
        [-INF, 0.5, 1.0],
        [-INF, -INF, 0.5],
        [-INF, -INF, -INF],
    ]
)


def exact_power_mean(log_weights, alpha):
    """The bound and its gradient by numpy in extended precision, straight from the definition."""
    log_weights = np.asarray(log_weights, np.longdouble)
    power = 1.0 - np.longdouble(alpha)
    extreme = np.max(log_weights) if power > 0 else np.min(log_weights)
    if extreme == -INF:
        return -INF, np.zeros(len(log_weights))
    if np.isinf(power):
        tied = log_weights == extreme
        return extreme, tied / np.sum(tied)
    powers = np.exp(power * (log_weights - extreme))
    return extreme + np.log(np.mean(powers)) / power, powers / np.sum(powers)


@pytest.mark.parametrize("alpha", [-INF, -3.0, -1.0, 0.0, 0.5, 1.0 - 1e-6, 1.0 + 1e-6, 2.0, 30.0, INF])
def test_renyi_bound_is_the_power_mean_with_its_weights_as_gradient(alpha):
    bound = functools.partial(renyi_bound, alpha=alpha)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(bound)))(jnp.asarray(ROWS, jnp.float32))
    for row, value, gradient in zip(ROWS, values, gradients, strict=True):
        expected_value, expected_gradient = exact_power_mean(row, alpha)
        rounding = 1e-6 + 2e-7 * np.max(np.abs(row), initial=0.0, where=np.isfinite(row))
        np.testing.assert_allclose(value, float(expected_value), rtol=1e-6, atol=rounding)
        np.testing.assert_allclose(gradient, np.float64(expected_gradient), rtol=1e-3, atol=1e-6)


def test_renyi_bound_of_many_samples_of_which_one_counts():
    log_weights = jnp.full(20_000, -100.0).at[7].set(3.0)
    value = jax.jit(functools.partial(renyi_bound, alpha=0.0))(log_weights)
    assert float(value) == pytest.approx(3.0 - np.log(20_000.0), rel=1e-6)


def test_renyi_bound_is_the_known_bounds_at_zero_and_one():
    log_weights = jnp.asarray(np.random.default_rng(0).normal(size=(50, 6)), jnp.float32)
    zero, one, iwlb, elbo = jax.jit(
        lambda w: (renyi_bound(w, alpha=0.0), renyi_bound(w, alpha=1.0), hj.iwlb(w), hj.elbo(w))
    )(log_weights)
    np.testing.assert_allclose(zero, iwlb, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(one, elbo)


# Four latent states under a uniform proposal, so that the plain mean over the states is the exact expectation.
JOINT = np.array([0.3, 0.02, 0.1, 0.005])
STATE_LOG_WEIGHTS = np.log(4.0 * JOINT)
EVIDENCE = JOINT.sum()
POSTERIOR = JOINT / EVIDENCE


@functools.cache
def mean_bounds():
    """`E[renyi_bound]` over all draws of 1, 2 and 4 states, for each alpha; a single row of all states comes last."""
    draws = [np.array(list(itertools.product(STATE_LOG_WEIGHTS, repeat=num_samples))) for num_samples in (1, 2, 4)]
    draws = [jnp.asarray(draw, jnp.float32) for draw in (*draws, STATE_LOG_WEIGHTS[None])]
    alphas = (-1.0, 0.0, 0.5, 1.0, 2.0, INF)
    means = jax.jit(lambda: [[jnp.mean(renyi_bound(draw, alpha=alpha)) for draw in draws] for alpha in alphas])()
    return dict(zip(alphas, np.array(means), strict=True))


def test_renyi_bound_is_a_lower_bound_on_average_for_every_alpha_from_zero_on():
    for alpha, (one, two, four, _) in mean_bounds().items():
        if alpha >= 0.0:
            assert max(one, two, four) < np.log(EVIDENCE)
        assert (one < two < four) == (alpha < 1.0)
        assert (one > two > four) == (alpha > 1.0)


def test_renyi_bound_below_zero_is_an_upper_bound_only_in_the_limit():
    one, *_, limit = mean_bounds()[-1.0]
    assert one < np.log(EVIDENCE) < limit


def test_chi_square_is_the_second_moment_in_logarithms():
    value = float(jax.jit(chi_square)(jnp.asarray(STATE_LOG_WEIGHTS)))
    divergence = np.sum(POSTERIOR**2 / 0.25) - 1.0
    assert value == pytest.approx(np.log(EVIDENCE**2 * (1.0 + divergence)), rel=1e-6)
    assert value == pytest.approx(np.log(EVIDENCE**2 + np.var(4.0 * JOINT)), rel=1e-6)


def test_the_gradient_of_the_exponential_of_chi_square_is_unbiased():
    """For p = N(0, 1) and q = N(m, s^2), E[w^2] = s^2 / sqrt(2 s^2 - 1) * exp(m^2 / (2 s^2 - 1))."""
    with jax.enable_x64(True):
        noise, weights = models.quadrature(1, 100)
        q = jnp.array([0.3, 1.2])

        def second_moment(q, noise):
            z = q[0] + q[1] * noise
            log_w = -0.5 * z**2 + 0.5 * noise**2 + jnp.log(q[1])
            return jnp.exp(chi_square(log_w))

        def closed_form(q):
            width = 2.0 * q[1] ** 2 - 1.0
            return q[1] ** 2 / jnp.sqrt(width) * jnp.exp(q[0] ** 2 / width)

        mean = weights @ jax.jit(jax.vmap(jax.grad(second_moment), in_axes=(None, 0)))(q, noise)
        np.testing.assert_allclose(mean, jax.grad(closed_form)(q), rtol=1e-8)


def test_chi_square_of_totals_contains_the_covariances():
    random = np.random.default_rng(1)
    log_weights = random.normal(size=(40, 3)) + random.normal(size=(40, 1))  # samples of one draw are dependent
    weights = np.exp(log_weights)
    covariance = np.cov(weights.T, bias=True)
    expected = np.sum(weights.mean(0)) ** 2 + np.sum(covariance)
    value = jax.jit(lambda w: chi_square(jax.nn.logsumexp(w, axis=-1)))(jnp.asarray(log_weights, jnp.float32))
    assert float(value) == pytest.approx(np.log(expected), rel=1e-5)
    assert abs(np.log(np.sum(weights.mean(0)) ** 2 + np.trace(covariance)) - np.log(expected)) > 0.1


def test_chi_square_at_extremes():
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(chi_square)))(jnp.asarray(ROWS, jnp.float32))
    for row, value, gradient in zip(ROWS, values, gradients, strict=True):
        expected_value, expected_gradient = exact_power_mean(row, -1.0)
        np.testing.assert_allclose(value, 2.0 * float(expected_value), rtol=1e-6)
        np.testing.assert_allclose(gradient, 2.0 * np.float64(expected_gradient), rtol=5e-3, atol=1e-6)


def test_wake_phase_gives_the_proposal_the_posterior_and_the_model_nothing():
    log_proposal = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    both = jax.jit(jax.value_and_grad(wake_phase, argnums=(0, 1)))
    value, gradients = both(jnp.asarray(STATE_LOG_WEIGHTS), log_proposal)
    assert float(value) == pytest.approx(np.sum(POSTERIOR * np.log([0.1, 0.2, 0.3, 0.4])), rel=1e-5)
    np.testing.assert_array_equal(gradients[0], np.zeros(4))
    np.testing.assert_allclose(gradients[1], POSTERIOR, rtol=1e-5)
    shifted = both(jnp.asarray(STATE_LOG_WEIGHTS + 1e3), log_proposal)  # a mixing weight changes nothing
    assert float(shifted[0]) == pytest.approx(float(value), rel=1e-3)


def test_wake_phase_at_extremes():
    log_proposal = jnp.array([-INF, 2.0, 3.0])  # what has no weight may have any density
    both = jax.jit(jax.value_and_grad(wake_phase, argnums=1))
    value, gradient = both(jnp.array([-INF, 1e4, -1e4]), log_proposal)
    assert float(value) == 2.0
    np.testing.assert_array_equal(gradient, [0.0, 1.0, 0.0])
    value, gradient = both(jnp.full(3, -INF), log_proposal)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros(3))


FUNCTIONS = [
    functools.partial(renyi_bound, alpha=0.3),
    functools.partial(renyi_bound, alpha=1.0),
    chi_square,
    lambda w, axis=-1: wake_phase(w, w, axis=axis),
]


def test_axis_may_be_any_and_forward_mode_agrees():
    log_weights = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 4)), jnp.float32)
    moved = jnp.moveaxis(log_weights, 1, -1)

    @jax.jit
    def both(log_weights, moved):
        def all_of(w, axis):
            return jnp.stack([function(w, axis=axis) for function in FUNCTIONS])

        value, pull = jax.vjp(lambda w: all_of(w, -1), moved)
        each = jax.vmap(lambda row: pull(row)[0])(jnp.eye(value.size).reshape(value.size, *value.shape))
        tangents = jnp.sum(each * moved[None], axis=(1, 2, 3)).reshape(value.shape)
        return value, tangents, jax.jvp(lambda w: all_of(w, 1), (log_weights,), (log_weights,))

    value, tangents, forward = both(log_weights, moved)
    np.testing.assert_allclose(forward[0], value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(forward[1], tangents, rtol=1e-4, atol=1e-5)


def test_errors_name_the_argument():
    for function in FUNCTIONS:
        with pytest.raises(TypeError, match=r"log_weights: expected a floating-point array, got dtype int32"):
            function(jnp.arange(3))
        with pytest.raises(ValueError, match=r"axis: log_weights has shape \(3,\), which has no axis 1"):
            function(jnp.zeros(3), axis=1)
    with pytest.raises(ValueError, match=r"alpha: expected a number, got nan"):
        renyi_bound(jnp.zeros(3), alpha=float("nan"))
    with pytest.raises(ValueError, match=r"log_proposal: expected one log-density .* shape \(3,\), got \(3, 2\)"):
        wake_phase(jnp.zeros(3), jnp.zeros((3, 2)))
