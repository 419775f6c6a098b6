"""A small model of discrete latents in float32, and a sampler that takes its draw for the key."""

import jax
import jax.numpy as jnp
import numpy as np

from hiwae_jax._discrete.bound import bernoulli, make_discrete_bound

GRADIENTS = ("score_function", "vimco", "wake_phase")


def injected(family):
    """The family, with a sampler that takes its draw for the key."""
    return family._replace(sample=lambda key, parameters, num_samples: key)


PARAMS = {"w": np.linspace(-1.0, 1.0, 12).reshape(4, 3), "a": np.linspace(-0.5, 0.7, 12).reshape(3, 4)}
PARAMS = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), PARAMS)
X, KEY = jnp.array([1.0, 0.0, 1.0, 1.0]), jax.random.key(1)
Z = jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])


def small_log_joint(params, x, z):
    """Bernoulli pixels and fair coins."""
    return bernoulli.log_prob(params["w"] @ z, x) + bernoulli.log_prob(jnp.zeros(3), z)


def small_bound(gradient="vimco", log_joint=small_log_joint, family=bernoulli, conditional=None, num_samples=4):
    """The bound of the small model, in which any part may be another."""
    conditional = conditional or (lambda params, x: params["a"] @ x)
    return make_discrete_bound(log_joint, conditional, num_samples=num_samples, family=family, gradient=gradient)
