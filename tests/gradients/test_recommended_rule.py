"""The estimator that is taken where none is named: the plain one wherever the noise is the caller's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from tests import models

K, D = 2, 2


def log_joint(params, x, z):
    return -0.5 * jnp.sum((x - params["w"] * jnp.tanh(z)) ** 2) - 0.5 * jnp.sum(z**2)


def normal(params, x):
    return params["loc"] + x, jnp.exp(params["log_scale"])


def rows(params, x, z0):
    return jnp.stack([jnp.sin(z0), params["loc"] * z0]), jnp.stack(2 * [jnp.exp(params["log_scale"])])


def reverse(params, x, z):
    return params["w"][None, :] * z, jnp.ones_like(z)


def one_row(params, x, z0):
    return jax.tree.map(lambda leaf: leaf[:1], rows(params, x, z0))


def four(params, x):
    return jnp.arange(4.0)[:, None] * params["loc"][None], jnp.exp(jnp.stack([params["log_scale"]] * 4))


def correlated(params, x):
    factor = jnp.array([[1.0, 0.0], [0.4, 0.9]])
    return jnp.stack([params["loc"], -params["loc"]]), jnp.stack(D * [factor]) * jnp.exp(params["log_scale"][0])


# By name: how it is made, and whether without the caller's sampler it has a better estimator than the plain one.
PROPOSALS = {
    "independent": (lambda **own: hj.independent(normal, num_samples=K, **own), True),
    "hierarchical, shared": (lambda **own: hj.hierarchical(normal, rows, reverse, **own), True),
    "hierarchical, own z_0": (lambda **own: hj.hierarchical(normal, rows, reverse, shared=False, **own), True),
    "hierarchical, equal": (lambda **own: hj.hierarchical(normal, one_row, reverse, num_samples=K, **own), True),
    "hierarchical, equal, own z_0": (
        lambda **own: hj.hierarchical(normal, one_row, reverse, num_samples=K, shared=False, **own),
        True,
    ),
    "defensive": (
        lambda **own: hj.defensive(normal, lambda params, x: (x, 2.0 * jnp.ones(D)), num_samples=K, **own),
        True,
    ),
    "mixture": (lambda **own: hj.mixture(four, num_samples=K, **own), True),
    "joint Gaussian": (lambda **own: hj.joint_gaussian(correlated, **own), False),
    "antithetic": (lambda **own: hj.antithetic(normal, num_samples=K, **own), False),
    "flow chain": (lambda **own: hj.flow_chain(normal, [hj.affine_map(normal)], **own), False),
    "Markov": (
        lambda **own: hj.markov(
            normal,
            lambda params, x, z, step: (jnp.sin(z), jnp.exp(params["log_scale"])),
            lambda params, x, z, step: (params["w"] * z, jnp.ones_like(z)),
            num_samples=K,
            **own,
        ),
        False,
    ),
}
PARAMS = {"w": jnp.array([0.7, -0.4]), "loc": jnp.array([0.3, -0.2]), "log_scale": jnp.array([0.1, -0.2])}
X = jnp.array([0.5, -1.0])


def repeated(key, shape, dtype):
    """The caller's own noise, which makes the samples depend on one another."""
    return jnp.broadcast_to(jax.random.normal(key, (1,), dtype), shape)


def gradient_of(proposal, gradient):
    bound = hj.make_bound(log_joint, proposal, gradient=gradient)
    return jax.grad(bound)


def program(proposal, gradient):
    return str(jax.make_jaxpr(gradient_of(proposal, gradient))(PARAMS, X, jax.random.key(0)))


@pytest.mark.parametrize("name", PROPOSALS)
def test_the_default_is_the_plain_estimator_where_the_sampler_is_the_callers(name):
    make, has_better = PROPOSALS[name]
    own = make(sampler=repeated)
    # One program, so equal gradients for every argument.
    assert program(own, None) == program(own, "reparameterized")
    without = make()
    plain, default = (program(without, gradient) for gradient in ("reparameterized", None))
    assert (default != plain) == has_better
    if has_better:
        assert default == program(without, "doubly_reparameterized")


def test_the_default_with_a_sampler_has_the_mean_gradient_and_the_better_estimator_has_not():
    """Why it is so: all samples have one noise, and K = 2 is the bound of one sample."""
    proposal = hj.independent(normal, num_samples=K, sampler=repeated)
    single = hj.independent(normal, num_samples=1)

    def gradients(params, key):
        of = [(proposal, None), (proposal, "doubly_reparameterized"), (single, "reparameterized")]
        return [ravel_pytree(gradient_of(*one)(params, X, key))[0] for one in of]

    keys = jax.random.split(jax.random.key(0), 4_000)
    default, better, expected = (
        np.asarray(leaf, np.float64) for leaf in models.quick_jit(jax.vmap(gradients, (None, 0)))(PARAMS, keys)
    )

    def largest_z(values):
        mean, error = values.mean(0) - expected.mean(0), np.hypot(values.std(0), expected.std(0)) / np.sqrt(len(keys))
        return np.max(np.abs(mean) / error)

    assert largest_z(default) < 4.0
    assert largest_z(better) > 10.0
