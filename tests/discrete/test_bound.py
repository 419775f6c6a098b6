"""The bound of discrete latents: one value whatever the gradient, samples by the key alone, and extremes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hiwae_jax._discrete.bound import bernoulli
from tests.discrete.small_bound import GRADIENTS, KEY, PARAMS, X, Z, injected, small_bound, small_log_joint
from tests.extremes import SHIFTS

INF = np.inf


def test_the_value_is_the_same_to_the_last_bit_for_every_gradient_and_in_forward_mode():
    x, draws = jnp.stack([X, 1.0 - X]), jnp.stack([Z, 1.0 - Z])
    batch = jax.vmap(small_bound("wake_phase", family=injected(bernoulli)), in_axes=(None, 0, 0))
    values = [jax.jit(batch)(PARAMS, x, draws)]
    for gradient in GRADIENTS:
        both = jax.vmap(jax.value_and_grad(small_bound(gradient, family=injected(bernoulli))), in_axes=(None, 0, 0))
        value, each = jax.jit(both)(PARAMS, x, draws)
        values.append(value)
    primal, tangent = jax.jit(lambda params: jax.jvp(lambda p: batch(p, x, draws), (params,), (params,)))(PARAMS)
    values.append(primal)
    for value in values[1:]:
        np.testing.assert_array_equal(value, values[0])
    assert float(values[0][0]) != float(values[0][1])
    product = sum(jnp.sum(each[name] * PARAMS[name][None], axis=(1, 2)) for name in PARAMS)
    np.testing.assert_allclose(tangent, product, rtol=1e-4, atol=1e-5)


def test_the_key_reaches_the_sampler_untouched():
    @jax.jit
    def both(key):
        z = bernoulli.sample(key, PARAMS["a"] @ X, 4)
        return small_bound()(PARAMS, X, key), small_bound(family=injected(bernoulli))(PARAMS, X, z)

    first, second = both(KEY), both(jax.random.key(3))
    assert float(first[0]) == float(first[1])
    assert float(second[0]) == float(second[1]) != float(first[0])


def test_samples_carry_no_gradient_even_from_a_sampler_that_would_give_them_one():
    leaking = bernoulli._replace(sample=lambda key, logits, _: key + (logits - jax.lax.stop_gradient(logits))[None])
    ours, expected = jax.jit(
        lambda params: [jax.grad(small_bound(family=f))(params, X, Z) for f in (leaking, injected(bernoulli))]
    )(PARAMS)
    chex.assert_trees_all_close(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_extreme_weights(gradient):
    @jax.jit
    def value_and_gradient(params, shift):
        def log_joint(p, x, z):
            return small_log_joint(p, x, z) + shift[z[0].astype(jnp.int32)]

        return jax.value_and_grad(small_bound(gradient, log_joint, injected(bernoulli)))(params, X, Z)

    for title, shift in SHIFTS.items():
        value, gradients = value_and_gradient(PARAMS, jnp.array(shift))
        flat = np.concatenate([np.ravel(leaf) for leaf in gradients.values()])
        assert np.all(np.isfinite(flat)), title
        if title == "all impossible":
            assert float(value) == -INF
            np.testing.assert_array_equal(flat, np.zeros(len(flat)))
        else:
            assert np.isfinite(value), title
            assert np.max(np.abs(flat)) > 1e-3, title


def test_narrow_networks_give_float32_bounds():
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), PARAMS)

    def log_joint(params, x, z):
        logits = params["w"] @ z.astype(jnp.bfloat16)
        return bernoulli.log_prob(logits, x) + bernoulli.log_prob(jnp.zeros(3), z)

    bound = small_bound(log_joint=log_joint, conditional=lambda params, x: params["a"] @ x.astype(jnp.bfloat16))
    value, gradients = jax.eval_shape(jax.value_and_grad(bound), params, X, KEY)
    assert value.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.bfloat16)}
