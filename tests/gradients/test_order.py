"""`order=`: bounds that are power means of the weights, and their gradients, by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import hiwae_jax as hj
from tests import models

pytestmark = pytest.mark.usefixtures("double_precision")

TOLERANCE = 1e-6
WRONG_BY = 3e-3
GRADIENTS = ("reparameterized", "doubly_reparameterized", "score_function", "path_squared")


@pytest.mark.parametrize(("alpha", "order"), [(0.0, 0.7), (1.0, 0.7), (3.0, 0.3)])
def test_gradients_are_unbiased_at_every_order(alpha, order):
    """The plain mean gradient is the derivative of the mean value; squared weights are right at order 0 alone."""
    proposal = hj.hierarchical(
        models.scalar_base, models.scalar_conditionals, models.scalar_reverse, sampler=models.leading
    )
    means = models.mean_gradients(
        proposal,
        hj.power_heuristic(alpha),
        GRADIENTS,
        models.scalar_params(0.5 if alpha == 3.0 else 1.0),
        dimensions=3,
        nodes=48,
        betas=(1.0, 0.3),
        order=order,
    )
    for beta in (1.0, 0.3):
        values, (plain, doubly, score, squared) = zip(*(means[gradient, beta] for gradient in GRADIENTS), strict=True)
        np.testing.assert_allclose(values, values[0], rtol=1e-12)
        accuracy = 1e-4 if alpha == 3.0 else TOLERANCE  # of so many nodes
        np.testing.assert_allclose(doubly, plain, atol=accuracy)
        np.testing.assert_allclose(score, plain, atol=accuracy)
        assert np.max(np.abs(squared - plain)) > WRONG_BY


def two_members(params, x, z0):
    """Two members that hardly overlap."""
    return jnp.array([[-3.0], [3.0]]), jnp.ones((2, 1))


def test_the_value_is_a_power_mean_of_the_weights():
    """It falls as the order grows. With the mixing weights outside of the power it would not be a lower bound."""
    proposal = hj.hierarchical(models.scalar_base, two_members, models.scalar_reverse)
    weighting = hj.power_heuristic(1.0)
    log_weights = hj.make_log_weights(models.scalar_log_joint, proposal, weighting=weighting)
    orders = (0.0, 0.3, 0.7, 0.999)
    objectives = [
        hj.make_bound(models.scalar_log_joint, proposal, weighting=weighting, gradient=gradient, order=order)
        for gradient in ("reparameterized", "doubly_reparameterized")
        for order in orders
    ]

    @models.quick_jit
    def evaluate(params, x, key):
        values = [objective(params, x, key) for objective in objectives]
        return log_weights(params, x, key), jnp.stack(values).reshape(2, -1)

    params, x = models.scalar_params(), jnp.asarray(models.SCALAR_X)
    log_w, values = map(np.asarray, evaluate(params, x, jax.random.key(3)))
    for order, value in zip(orders, values[0], strict=True):
        power = 1.0 - order
        expected = (logsumexp(power * (log_w + np.log(2.0))) - np.log(2.0)) / power
        np.testing.assert_allclose(value, expected, rtol=1e-11)
    np.testing.assert_allclose(values[1], values[0], rtol=1e-11)
    assert np.all(np.diff(values[0]) < 0.0)
    np.testing.assert_allclose(values[0, -1], np.mean(log_w) + np.log(2.0), rtol=2e-3)


def test_mixing_weights_belong_under_the_power():
    """Outside of it, `1/s log sum_j pi_j v_j^s` is above log p(x) where the members do not overlap."""
    centres = np.array([-30.0, 30.0])

    def log_joint(params, x, z):
        return jax.nn.logsumexp(jax.scipy.stats.norm.logpdf(z[0], jnp.asarray(centres))) - jnp.log(2.0)  # log p(x) = 0

    wide = lambda params, x, z0: (jnp.asarray(centres)[:, None], jnp.ones((2, 1)))
    dummy = lambda params, x: (jnp.zeros(1), jnp.ones(1))
    rows = lambda params, x, z: (jnp.zeros((2, 1)), jnp.ones((2, 1)))
    bound = hj.make_bound(log_joint, hj.hierarchical(dummy, wide, rows), weighting=hj.power_heuristic(1.0), order=0.5)
    # Every sample has pi_j = 1 and v_j = p / q_j = 1/2.
    outside = 2.0 * np.log(2.0 * np.sqrt(0.5))
    assert outside > 0.6
    assert float(bound({}, None, jax.random.key(0))) == pytest.approx(0.0, abs=1e-9)


def test_nothing_is_lost_to_rounding_near_order_one():
    """In float32 a logarithm of a mean close to one, divided by a small power, would keep no digit."""
    proposal = hj.independent(lambda params, x: (x, jnp.ones_like(x)), num_samples=5)

    def log_joint(params, x, z):
        return -0.5 * jnp.sum((z - params) ** 2) - 100.0

    x = jnp.zeros(2, jnp.float32)
    near, mean = (
        hj.make_bound(log_joint, proposal, order=1.0 - 1e-6),
        lambda *given: hj.elbo(hj.make_log_weights(log_joint, proposal)(*given) + jnp.log(5.0)),
    )
    given = jnp.float32(0.3), x, jax.random.key(1)
    assert float(near(*given)) == pytest.approx(float(mean(*given)), rel=1e-6)


def test_chunks_and_drawn_samples_see_the_power_too():
    """Chunks change nothing but rounding; the gradient with M backward samples has the right mean over its choice."""
    proposal = hj.hierarchical(models.scalar_base, models.scalar_conditionals, models.scalar_reverse)
    make = lambda **changes: hj.make_bound(models.scalar_log_joint, proposal, order=0.6, **changes)
    whole, chunked, drawn = make(), make(chunk_size=1), make(backward_samples=1)
    params, x, key = models.scalar_params(), jnp.asarray(models.SCALAR_X), jax.random.key(5)

    @models.quick_jit
    def evaluate(params, uniforms):
        of_drawn = lambda uniform: jax.grad(drawn)(params, x, drawn.draw(params, x, key)._replace(uniform=uniform))
        mean = jax.tree.map(lambda rows: jnp.mean(rows, 0), jax.vmap(of_drawn)(uniforms))
        return jax.grad(whole)(params, x, key), jax.grad(chunked)(params, x, key), mean

    of_whole, of_chunked, of_drawn = evaluate(params, (np.arange(4000) + 0.5) / 4000)
    for name, gradient in of_whole.items():
        np.testing.assert_allclose(of_chunked[name], gradient, rtol=1e-9)
        if name == "w":
            np.testing.assert_allclose(of_drawn[name], gradient, atol=2e-3)


@pytest.mark.parametrize("order", [1.0, -0.5, 2, float("nan")])
def test_orders_without_a_lower_bound_are_refused(order):
    proposal = hj.independent(lambda params, x: (x, jnp.ones_like(x)), num_samples=2)
    with pytest.raises(ValueError, match="order: expected a"):
        hj.make_bound(models.scalar_log_joint, proposal, order=order)
