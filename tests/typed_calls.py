"""What a checker of types sees of public functions: `make test` runs mypy on this file, and a test runs it.

`assert_type` is an error for the checker where the type is another one, and does nothing when it runs.
"""

from typing import assert_type

import jax
import jax.numpy as jnp

import hiwae_jax as hj

Network = dict[str, jax.Array]


def log_joint(params: Network, x: jax.Array, z: jax.Array) -> jax.Array:
    """A model of one latent variable."""
    return -0.5 * jnp.sum((x - params["w"] * z) ** 2 + z**2)


def conditional(params: Network, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Location and scale."""
    return params["a"] * x, jnp.ones_like(x)


def values_and_gradients() -> tuple[jax.Array, Network]:
    """Calls as they are documented."""
    bound = hj.make_bound(
        log_joint, hj.independent(conditional, num_samples=3), gradient="doubly_reparameterized", chunk_size=None
    )
    params = {"w": jnp.ones(1), "a": jnp.ones(1)}
    batch, key = jnp.ones((4, 1)), jax.random.key(0)

    value_and_grad = hj.batched_value_and_grad(bound, draw=bound.draw, chunk_size=2)
    value, gradient = value_and_grad(params, batch, key)
    assert_type(value, jax.Array)
    assert_type(gradient, Network)
    assert_type(hj.batched_value_and_grad(bound)(params, batch, key), tuple[jax.Array, Network])

    def with_aux(params: Network, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = bound(params, x, key)
        return value, jnp.isfinite(value)

    (mean, _), both = hj.batched_value_and_grad(with_aux, has_aux=True)(params, batch, key)
    assert_type(mean, jax.Array)
    assert_type(both, Network)
    return value, gradient
