"""Bounds compose with the transformations of JAX, and keep their value under every estimator."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from hiwae_jax import GRADIENTS
from tests import images, models
from tests.small_images import KEY, PROPOSALS, X, make, params


@pytest.mark.parametrize(
    ("name", "alpha"),
    [("independent", 0.0), ("shared", 1.0), ("own z_0", 1.0)],
)
def test_the_value_is_the_same_to_the_last_bit_for_every_estimator(name, alpha):
    """Operation by operation; in one compiled program with a gradient the compiler may contract a product and a sum."""
    x = jnp.asarray(np.stack([X, 1.0 - X, np.zeros_like(X)]))
    keys = jax.random.split(KEY, 3)
    batched = {gradient: jax.vmap(make(name, gradient, alpha), in_axes=(None, 0, 0)) for gradient in GRADIENTS}
    values = {gradient: np.asarray(bound(params(), x, keys)) for gradient, bound in batched.items()}
    for gradient, value in values.items():
        np.testing.assert_array_equal(value, values["reparameterized"], err_msg=gradient)
    if name == "shared":
        bound = batched["refilled"]
        both = models.quick_jit(jax.value_and_grad(lambda p: jnp.sum(bound(p, x, keys))))(params())
        np.testing.assert_allclose(both[0], np.sum(values["refilled"]), rtol=1e-6)
    log_weights = hj.make_log_weights(images.log_joint, PROPOSALS[name], weighting=hj.power_heuristic(alpha))
    total = np.logaddexp.reduce(np.asarray(models.quick_jit(log_weights)(params(), X, keys[0])))
    np.testing.assert_allclose(total, values["reparameterized"][0], rtol=1e-6)


DEFAULT = "doubly_reparameterized"
PAIRS = [(name, DEFAULT) for name in PROPOSALS]
PAIRS += [("shared", "reparameterized")]


@pytest.mark.parametrize(("name", "gradient"), PAIRS)
def test_transformations_agree(name, gradient):
    bound = make(name, gradient)
    x, keys = jnp.stack([X, 1.0 - X]), jnp.stack([KEY, jax.random.key(8)])

    @models.quick_jit  # one program for all: compiling is most of the time
    def transformed(params, direction):
        value = bound(params, X, KEY)
        primal, tangent = jax.jvp(lambda p: bound(p, X, KEY), (params,), (direction,))
        each = jax.vmap(jax.grad(bound), in_axes=(None, 0, 0))(params, x, keys)
        batch = jax.vmap(bound, in_axes=(None, 0, 0))
        mean = jax.grad(lambda p: jnp.mean(batch(p, x, keys)))(params)
        _, scanned = jax.lax.scan(lambda c, row: (c, jax.grad(bound)(c, *row)), params, (x, keys))
        return value, primal, tangent, each, mean, scanned

    flat, unravel = ravel_pytree(params())
    direction = unravel(jnp.asarray(np.sign(np.random.default_rng(1).normal(size=flat.shape)), flat.dtype))
    value, primal, tangent, each, mean, scanned = transformed(params(), direction)
    np.testing.assert_allclose(primal, value, rtol=1e-6)
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    scanned, each = jax.tree.map(np.asarray, (scanned, each))
    expected = flat(jax.tree.map(lambda g: g[0], scanned)) @ flat(direction)
    np.testing.assert_allclose(tangent, expected, rtol=2e-4, atol=2e-4)

    def same(ours, theirs):
        np.testing.assert_allclose(flat(ours), flat(theirs), rtol=1e-3, atol=2e-5)

    same(scanned, each)
    same(jax.tree.map(lambda g: np.mean(g, axis=0), each), mean)


@pytest.mark.parametrize(
    ("name", "gradient"), [("independent", DEFAULT), ("equal members", DEFAULT), ("own z_0", "refilled")]
)
def test_the_gradient_is_the_same_through_what_was_drawn_before(name, gradient):
    """Nothing reaches the parameters beside the draw that should go through it, nor twice (and `test_batched.py`)."""
    bound = make(name, gradient)
    x, key = jnp.stack([X, 1.0 - X]), KEY

    @models.quick_jit
    def both(params):
        keys = jax.random.split(key, 2)
        mean = lambda p: jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(p, x, keys))
        ahead = hj.batched_value_and_grad(bound, draw=bound.draw, chunk_size=1)
        return jax.value_and_grad(mean)(params), ahead(params, x, key)

    expected, ours = both(params())
    chex.assert_trees_all_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_model_may_close_over_what_is_differentiated():
    """The gradient is seen also when the log-joint takes its parameters from an enclosing function."""

    def closed(p):
        return make("shared", "doubly_reparameterized", log_joint=lambda _, x, z: images.log_joint(p, x, z))(p, X, KEY)

    given = lambda p: make("shared", "doubly_reparameterized")(p, X, KEY)
    ours, expected = models.quick_jit(lambda p: (jax.grad(closed)(p), jax.grad(given)(p)))(params())
    chex.assert_trees_all_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_second_derivatives_of_the_plain_estimator_are_those_of_the_value():
    """Along a line; in double precision, where differences of the value tell."""
    with jax.enable_x64(True):
        start, wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params(), X))
        flat, unravel = ravel_pytree(start)
        direction = unravel(jnp.asarray(np.random.default_rng(1).normal(size=flat.shape)))

        def along(step, gradient):
            moved = jax.tree.map(lambda a, d: a + step * d, start, direction)
            return make("shared", gradient)(moved, wide, KEY)

        step = 1e-4

        @models.quick_jit
        def results(steps):
            values = jax.vmap(lambda step: along(step, "reparameterized"))(steps)
            second = jax.grad(jax.grad(along))
            return values, [second(0.0, gradient) for gradient in ("reparameterized", "doubly_reparameterized")]

        values, (plain, doubly) = results(step * np.arange(-1.0, 2.0))
        np.testing.assert_allclose(plain, (values[0] - 2.0 * values[1] + values[2]) / step**2, rtol=1e-4)
        assert np.isfinite(doubly)  # of no meaning, but no error


@pytest.mark.parametrize("name", PROPOSALS)
def test_another_key_gives_other_samples(name):
    bound = models.quick_jit(make(name, "reparameterized"))
    one, other = (float(bound(params(), X, key)) for key in (KEY, jax.random.key(8)))
    assert one != other
