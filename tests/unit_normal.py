"""Standard normals everywhere: for tests in which only types, shapes and options count."""

import jax
import jax.numpy as jnp

import hiwae_jax as hj

X, KEY = jnp.ones(2), jax.random.key(0)
UNIT = (jnp.zeros(2), jnp.ones(2))


def log_joint(params, x, z):
    """A standard normal without its constant."""
    return -0.5 * jnp.sum(z**2)


def conditional(params, x):
    """The samples, one and all."""
    return UNIT


def base(params, x):
    """The same for z_0."""
    return UNIT


def conditionals(params, x, z0):
    """Three members around z_0."""
    return jnp.zeros((3, 2)) + z0[None], jnp.ones((3, 2))


def reverse(params, x, z):
    """One reverse model for all members."""
    return z, jnp.ones_like(z)


def independent_bound(conditional=conditional, log_joint=log_joint, **options):
    """The bound of three independent samples; the options are those of `make_bound`."""
    return hj.make_bound(log_joint, hj.independent(conditional, num_samples=3), **options)


def hierarchical_bound(base=base, conditionals=conditionals, reverse=reverse, alpha=0.0, **options):
    """The bound of three hierarchical samples; the options are those of `hierarchical`."""
    proposal = hj.hierarchical(base, conditionals, reverse, **options)
    return hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(alpha))


def identity(params, x, z):
    """Forward or inverse map of a flow chain."""
    return z, jnp.zeros(())
