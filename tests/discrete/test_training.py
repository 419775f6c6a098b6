"""Discrete latents train on digits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hiwae_jax._discrete.bound import bernoulli, categorical, make_discrete_bound
from hiwae_jax.data import load_digits


@pytest.mark.parametrize(
    ("family", "shape", "gradient"), [(bernoulli, (8,), "wake_phase"), (categorical, (4, 4), "vimco")]
)
def test_it_trains_on_digits(family, shape, gradient):
    """The bound rises from that of a coin for each pixel to well above the best model without latents."""
    train = np.unpackbits(load_digits().train, axis=-1)[:1280].astype(np.float32)
    random, size = np.random.default_rng(0), int(np.prod(shape))
    params = {
        "w": 0.1 * random.normal(size=(64, size)),
        "b": np.zeros(64),
        "a": 0.1 * random.normal(size=(size, 64)),
        "c": np.zeros(shape),
        "prior": np.zeros(shape),
    }

    def log_joint(params, x, z):
        pixels = params["w"] @ jnp.ravel(z) + params["b"]
        return bernoulli.log_prob(pixels, x) + family.log_prob(params["prior"], z)

    def conditional(params, x):
        return jnp.reshape(params["a"] @ x, shape) + params["c"]

    bound = make_discrete_bound(log_joint, conditional, num_samples=5, family=family, gradient=gradient)
    optimizer = optax.adam(0.02)

    @jax.jit
    def run(params, batches, keys):
        def step(state, row):
            def loss(params):
                return -jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(params, *row))

            value, gradients = jax.value_and_grad(loss)(state[0])
            updates, moments = optimizer.update(gradients, state[1])
            return (optax.apply_updates(state[0], updates), moments), -value

        return jax.lax.scan(step, (params, optimizer.init(params)), (batches, keys))[1]

    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
        batches = np.tile(train.reshape(20, 64, 64), (11, 1, 1))  # eleven passes over the data
        bounds = run(params, batches, jax.random.split(jax.random.key(0), batches.shape[:2]))
    mean = train.mean(axis=0, dtype=np.float64).clip(1e-6, 1.0 - 1e-6)
    without_latents = 64 * np.mean(train * np.log(mean) + (1.0 - train) * np.log(1.0 - mean))
    assert float(bounds[0]) == pytest.approx(-64.0 * np.log(2.0), abs=1.0)
    assert float(jnp.mean(bounds[-20:])) > without_latents + 2.5
