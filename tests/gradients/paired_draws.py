"""A model of four members in three dimensions, and z-tests of estimators of its gradient on the same draws."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from tests import models

K, D, D0 = 4, 3, 2
LARGEST_Z = 4.5  # of about 80 parameters; an unbiased estimator exceeds it once in some 2,000 seeds


@functools.cache
def params():
    """Parameters without special structure."""
    random = np.random.default_rng(3)
    shapes = {
        "decoder": (2, D),
        "base": (2, 2, D0),
        "loc": (K, D, D0),
        "shift": (K, D),
        "scale": (K, D, D0),
        "reverse": (2, D0, D),
    }
    return {name: jnp.asarray(0.6 * random.normal(size=shape)) for name, shape in shapes.items()}


def log_likelihood(params, x, z):
    return -0.5 * jnp.sum((x - params["decoder"] @ jnp.tanh(z)) ** 2) / 0.4


def log_prior(params, x, z):
    return -0.5 * jnp.sum(z**2)


def base(params, x):
    return params["base"][0] @ x, jnp.exp(0.5 * params["base"][1] @ x)


def conditionals(params, x, z0):
    return params["shift"] + params["loc"] @ jnp.sin(z0), jnp.exp(0.4 * jnp.tanh(params["scale"] @ z0))


def reverse(params, x, z):
    return z @ params["reverse"][0].T, jnp.exp(0.3 * jnp.tanh(z @ params["reverse"][1].T))


def comparisons(pairs, *, alpha, shared=True, betas=(1.0,), free_bits=0.0, equal=False, draws=20_000, proposal=None):
    """Of each pair of estimators at each beta, `{(pair, beta): (z, ratio)}`, from the same noise and in one program.

    z is the largest z-score of their difference over parameters, and ratio that of their total variances. An estimator
    is a gradient's name with its number of backward samples.
    """
    if proposal is None:
        rows = (lambda p, x, z0: jax.tree.map(lambda a: a[:1], conditionals(p, x, z0))) if equal else conditionals
        proposal = hj.hierarchical(base, rows, reverse, shared=shared, num_samples=K if equal else None)
    x = np.array([0.8, -0.5])
    objectives = {
        (gradient, backward_samples): hj.make_annealed_objective(
            log_likelihood,
            log_prior,
            proposal,
            weighting=hj.power_heuristic(alpha),
            gradient=gradient,
            free_bits=free_bits,
            backward_samples=backward_samples,
        )
        for gradient, backward_samples in itertools.chain(*pairs)
    }

    @models.quick_jit
    def moments(params, key, beta):
        def block(sums, key):
            def gradients(key):
                return [jax.grad(objective)(params, x, key, beta) for objective in objectives.values()]

            rows = jax.vmap(gradients)(jax.random.split(key, 2_000))
            rows = {
                name: jnp.concatenate([leaf.reshape(2_000, -1) for leaf in jax.tree.leaves(tree)], axis=1)
                for name, tree in zip(objectives, rows, strict=True)
            }
            both = lambda a: (jnp.sum(a, axis=0), jnp.sum(a**2, axis=0))
            new = [both(a) for a in rows.values()], [both(rows[ours] - rows[other]) for ours, other in pairs]
            return jax.tree.map(jnp.add, sums, new), None

        zero = (jnp.zeros(ravel_pytree(params)[0].size),) * 2
        zeros = [zero] * len(objectives), [zero] * len(pairs)
        return jax.lax.scan(block, zeros, jax.random.split(key, draws // 2_000))[0]

    found = {}
    for beta in betas:
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda a: a.astype(jnp.float64), params())
            of_each, of_pairs = jax.tree.map(lambda a: np.asarray(a) / draws, moments(wide, jax.random.key(11), beta))
        variances = {name: np.sum(a2 - a**2) for name, (a, a2) in zip(objectives, of_each, strict=True)}
        for (ours, other), (d, d2) in zip(pairs, of_pairs, strict=True):
            error = np.sqrt(np.maximum(d2 - d**2, 1e-300) / draws)
            moving = d2 > 1e-20
            z = np.max(np.abs(d[moving]) / error[moving])
            found[(ours, other), beta] = z, variances[ours] / variances[other]
    return found


def paired(gradient, *, against="reparameterized", backward_samples=None, beta=1.0, **setting):
    """The largest z-score of (estimator - `against`) over parameters, and the ratio of their total variances."""
    pair = (gradient, backward_samples), (against, None)
    return comparisons([pair], betas=(beta,), **setting)[pair, beta]


PLAIN, DEFAULT, REFILLED, SQUARED, AUTHORS = (
    (name, None) for name in ("reparameterized", "doubly_reparameterized", "refilled", "path_squared", "authors")
)
