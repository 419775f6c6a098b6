"""ELU has the values and derivatives of JAX's own, in the spellings for all versions."""

import chex
import jax
import jax.numpy as jnp
import pytest

from hiwae_jax.nn import _elu


@pytest.mark.parametrize("is_flat", [False, True])
def test_values_and_derivatives_are_those_of_jax(is_flat, monkeypatch):
    monkeypatch.setattr(_elu, "_FLAT", is_flat)
    x = jnp.linspace(-30.0, 5.0, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)

    def all_of(function):
        total = lambda x: jnp.sum(jnp.sin(function(x)))
        whole = lambda x: (function(x), jax.grad(total)(x), jax.jvp(jax.grad(total), (x,), (x,))[1])
        return jax.jit(jax.vmap(whole))(x)

    # Derivatives come from the output, y + 1, which is known to a rounding of 1. The second one is multiplied by x.
    chex.assert_trees_all_close(all_of(_elu.elu), all_of(jax.nn.elu), rtol=1e-6, atol=30.0 * 1.2e-7)
    barriers = str(jax.make_jaxpr(lambda x: _elu.elu(x))(x)).count("optimization_barrier")
    assert barriers == (2 if is_flat and jax.default_backend() == "cpu" else 0)
