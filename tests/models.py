"""Small models whose every ingredient is known: shared by the tests of bounds and gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpy.polynomial.hermite_e import hermegauss

import hiwae_jax as hj

# For a program that runs once, compiling is most of the time.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def injected(key, shape, dtype):
    """A sampler that takes its noise for the key: the library must hand it over untouched."""
    assert key.shape == shape
    return key.astype(dtype)


def leading(key, shape, dtype):
    """Likewise, as much of the injected noise as is asked for: estimators that draw more share a grid with others."""
    return key.ravel()[: math.prod(shape)].reshape(shape).astype(dtype)


def quadrature(dimensions, nodes):
    """Gauss-Hermite points [nodes^dimensions, dimensions] and weights for a standard normal."""
    points, weights = hermegauss(nodes)
    return product_rule(points, weights / weights.sum(), dimensions)


def product_rule(points, weights, dimensions):
    """The grid [nodes^dimensions, dimensions] of a rule of one dimension, and its weights."""
    grid = np.stack(np.meshgrid(*[points] * dimensions, indexing="ij"), axis=-1).reshape(-1, dimensions)
    product = np.prod(np.stack(np.meshgrid(*[weights] * dimensions, indexing="ij"), axis=-1), axis=-1)
    return jnp.asarray(grid), jnp.asarray(product.ravel())


# A scalar hierarchical model without special structure, smooth enough for 48 nodes an axis to be exact to 1e-7.
SCALAR_X = np.array([0.7])


def scalar_params(spread=1.0):
    """Parameters of the scalar model; `spread` scales the non-linearity and the differences between the members."""
    return jax.tree.map(
        jnp.asarray,
        {
            "w": 1.3 * spread,
            "base": np.array([0.4, -0.1]),
            "loc": spread * np.array([0.15, -0.2]),
            "slope": spread * np.array([0.3, -0.2]),
            "log_scale": spread * np.array([-0.1, 0.05]),
            "wiggle": spread * np.array([0.1, -0.1]),
            "reverse": np.array([0.2, 0.1, 0.1]),
        },
    )


def scalar_log_likelihood(params, x, z):
    """`log N(x; w tanh z + 0.3 z, 2)` without its constant."""
    return -0.25 * jnp.sum((x - params["w"] * jnp.tanh(z) - 0.3 * z) ** 2)


def scalar_log_prior(params, x, z):
    """A standard normal without its constant."""
    return -0.5 * jnp.sum(z**2)


def scalar_log_joint(params, x, z):
    """The sum of the two."""
    return scalar_log_likelihood(params, x, z) + scalar_log_prior(params, x, z)


def scalar_base(params, x):
    """q_0 with a location linear in x."""
    return params["base"][0] * x, jnp.exp(params["base"][1])[None]


def scalar_conditionals(params, x, z0):
    """Two members whose locations and scales depend on z_0 in different ways."""
    loc = params["loc"][:, None] + jnp.tanh(params["slope"])[:, None] * z0[None, :]
    return loc, jnp.exp(params["log_scale"] + params["wiggle"] * jnp.sin(z0))[:, None]


def scalar_reverse(params, x, z):
    """One reverse model for all members."""
    slope, shift, log_scale = params["reverse"]
    return slope * z + shift, jnp.exp(log_scale) * jnp.ones_like(z)


def scalar_proposal(*, shared=True, conditionals=scalar_conditionals, num_samples=None):
    """The hierarchical proposal of the scalar model, with injected noise."""
    return hj.hierarchical(
        scalar_base, conditionals, scalar_reverse, shared=shared, num_samples=num_samples, sampler=injected
    )


def scalar_evidence(params):
    """The integral of the scalar model over z."""
    points, weights = quadrature(1, 100)
    x = jnp.asarray(SCALAR_X)
    likelihood = quick_jit(jax.vmap(lambda z: jnp.exp(scalar_log_likelihood(params, x, z))))(points)
    return float(weights @ likelihood) * np.sqrt(2.0 * np.pi)


def learned(num_samples):
    """A learned weighting of smooth logits; its parameters are in `params["logits"]`."""

    def logits_fn(params, x, z, z0):
        slope, curve, base = params["logits"]
        place = jnp.linspace(-1.0, 1.0, num_samples, dtype=z.dtype)
        logits = slope * jnp.sin(z[0]) * place + curve * (place + place**2)
        return logits if z0 is None else logits + base * jnp.sin(z0[0]) * place

    return hj.learned_weighting(logits_fn)


def with_logits(params):
    """The parameters together with those of `learned`."""
    return {**params, "logits": jnp.array([0.7, -0.5, 0.4])}


def mean_gradients(proposal, weighting, gradients, params, *, dimensions, nodes, betas=(1.0,), order=0.0):
    """`{(gradient, beta): (expected value, expected gradient [all parameters])}`; the sampler must be `leading`."""
    objectives = {
        gradient: hj.make_annealed_objective(
            scalar_log_likelihood, scalar_log_prior, proposal, weighting=weighting, gradient=gradient, order=order
        )
        for gradient in gradients
    }
    points, weights = quadrature(dimensions, nodes)
    x = jnp.asarray(SCALAR_X)

    @quick_jit
    def mean(params, beta, points, weights):
        # A block of points at a time: a grid in many dimensions does not fit at once.
        def block(total, rows):
            def values(objective):
                each = jax.vmap(jax.value_and_grad(objective), in_axes=(None, None, 0, None))
                return jax.tree.map(lambda a: jnp.tensordot(rows[1], a, 1), each(params, x, rows[0], beta))

            new = {gradient: values(objective) for gradient, objective in objectives.items()}
            return jax.tree.map(jnp.add, total, new), None

        zero = dict.fromkeys(objectives, jax.tree.map(jnp.zeros_like, (jnp.zeros(()), params)))
        return jax.lax.scan(block, zero, (points, weights))[0]

    size = nodes ** min(dimensions, 3)
    blocks = points.reshape(-1, size, dimensions), weights.reshape(-1, size)
    means = {beta: mean(params, beta, *blocks) for beta in betas}
    return {
        (gradient, beta): (float(means[beta][gradient][0]), np.asarray(ravel_pytree(means[beta][gradient][1])[0]))
        for gradient in gradients
        for beta in betas
    }


class LinearGaussian:
    """`z ~ N(0, I)`, `x = A z + noise`, in closed form: evidence, posterior, and proposals around it."""

    def __init__(self, *, seed, latent=3, observed=2, noise=0.8):
        """Draw the loading matrix and one observation."""
        random = np.random.default_rng(seed)
        self.A = random.normal(size=(observed, latent))
        self.x = random.normal(size=observed)
        self.noise = noise
        covariance = self.A @ self.A.T + noise**2 * np.eye(observed)
        sign, logdet = np.linalg.slogdet(2.0 * np.pi * covariance)
        assert sign > 0
        self.log_evidence = -0.5 * (logdet + self.x @ np.linalg.solve(covariance, self.x))
        precision = np.eye(latent) + self.A.T @ self.A / noise**2
        self.posterior_cov = np.linalg.inv(precision)
        self.posterior_mean = self.posterior_cov @ self.A.T @ self.x / noise**2

    def log_joint(self, params, x, z):
        """`log p(x, z)` with all constants."""
        A = jnp.asarray(self.A, z.dtype)
        observed, latent = self.A.shape
        residual = (x - A @ z) / self.noise
        constant = 0.5 * (observed + latent) * math.log(2.0 * math.pi) + observed * math.log(self.noise)
        return -0.5 * jnp.sum(residual**2) - 0.5 * jnp.sum(z**2) - constant
