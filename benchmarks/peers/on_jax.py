"""Contestants of `benchmarks.peers` that run on JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hiwae_jax as hj
from benchmarks.peers.problem import (
    LEARNING_RATE,
    Contestant,
    Evaluated,
    Network,
    Problem,
    encode,
    example_loss,
    log_joint,
    mlp,
)

SCANNED_STEPS = 20
LARGE = 10_000  # from so many samples in a batch on, two steps make a call long enough

Loss = Callable[[Any, jax.Array, Any], jax.Array]  # (params, images [B, P], key) -> scalar


def make_plain(problem: Problem, *, scanned: bool = False) -> Contestant:
    """The reference: vmap, logsumexp, optax."""
    shape = (problem.num_samples, problem.sizes.latent)

    def loss(params, x, key):
        return example_loss(params, x, jax.random.normal(key, shape))

    return _trained(problem, jax.value_and_grad(_mean(loss)), scanned=scanned)


def make_hiwae(
    problem: Problem, *, gradient: str, in_chunks: bool = False, scanned: bool = False, network: Network = mlp
) -> Contestant:
    """The library of this repository, on the model and the encoder of the reference."""

    def conditional(params, x):
        return encode(params, x, network=network)

    def density(params, x, z):
        return log_joint(params, x, z, network=network)

    bound = hj.make_bound(density, hj.independent(conditional, num_samples=problem.num_samples), gradient=gradient)

    def loss(params, x, key):
        return -bound(params, x, key)

    value_and_grad = hj.batched_value_and_grad(loss) if in_chunks else jax.value_and_grad(_mean(loss))
    return _trained(problem, value_and_grad, scanned=scanned)


def _mean(loss: Loss) -> Loss:
    def mean(params, x, key):
        return jnp.mean(jax.vmap(loss, in_axes=(None, 0, 0))(params, x, jax.random.split(key, len(x))))

    return mean


def _trained(
    problem: Problem,
    value_and_grad: Callable[..., Any],
    *,
    scanned: bool = False,
    noise_of: Callable[[Any], np.ndarray] | None = None,
) -> Contestant:
    """Adam on `value_and_grad(params, images, key)`; `noise_of(key)` is the noise [B, K, D] of that key."""
    optimizer = optax.adam(LEARNING_RATE)
    params, x = jax.tree.map(jnp.asarray, problem.params), jnp.asarray(problem.images)

    def step(state, x):
        params, moments, key = state
        key, noise_key = jax.random.split(key)
        value, gradient = value_and_grad(params, x, noise_key)
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments, key), value

    def several(state, x):
        return jax.lax.scan(lambda state, _: step(state, x), state, None, length=steps)

    steps = 1
    if scanned:
        steps = SCANNED_STEPS if problem.sizes.batch * problem.num_samples < LARGE else 2

    def evaluate():
        key = jax.random.key(2)
        value, gradient = jax.jit(value_and_grad)(params, x, key)
        return Evaluated(float(value), jax.tree.map(np.asarray, gradient), (noise_of or own_noise)(key))

    def own_noise(key):
        shape = (problem.num_samples, problem.sizes.latent)
        return np.asarray(jax.vmap(lambda key: jax.random.normal(key, shape))(jax.random.split(key, len(x))))

    state = params, optimizer.init(params), jax.random.key(3)
    return _repeated(jax.jit(several if scanned else step), state, x, evaluate, steps)


def _repeated(program: Any, state: Any, x: jax.Array, evaluate: Callable[[], Evaluated], steps: int = 1) -> Contestant:
    """A contestant that calls `program(state, x) -> (state, value)` over and over."""

    def advance(calls):
        nonlocal state
        for _ in range(calls):
            state, _ = program(state, x)
        jax.block_until_ready(state)

    memory = program.lower(state, x).compile().memory_analysis()
    return Contestant(advance, evaluate, steps, None if memory is None else memory.temp_size_in_bytes)


def _noise_at(problem: Problem, z: jax.Array) -> np.ndarray:
    """The noise that leads to `z` [K, B, D]."""
    loc, scale = encode(problem.params, jnp.asarray(problem.images))
    return np.asarray(jnp.swapaxes((z - loc) / scale, 0, 1))


def make_numpyro(problem: Problem) -> Contestant:
    """`SVI.update` with `RenyiELBO(alpha=0)`, particles vectorised, jitted; its loss is the sum over the batch."""
    import numpyro
    from numpyro import distributions as dist
    from numpyro import handlers
    from numpyro.infer import SVI, RenyiELBO

    batch, _, _, latent = problem.sizes
    initial, x = jax.tree.map(jnp.asarray, problem.params), jnp.asarray(problem.images)

    def model(x):
        decoder = numpyro.param("decoder", initial["decoder"])
        with numpyro.plate("batch", batch):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([latent]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=mlp(decoder, z)).to_event(1), obs=x)

    def guide(x):
        loc, scale = encode({"encoder": numpyro.param("encoder", initial["encoder"])}, x)
        with numpyro.plate("batch", batch):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    objective = RenyiELBO(alpha=0, num_particles=problem.num_samples)
    svi = SVI(model, guide, optax.adam(LEARNING_RATE), objective)
    start = svi.init(jax.random.key(3), x)
    update = jax.jit(svi.update)

    def evaluate():
        _, first_loss = update(start, x)
        key = jax.random.split(start.rng_key)[1]
        gradient = jax.jit(jax.grad(lambda params: objective.loss(key, params, model, guide, x)))(initial)
        z = jax.jit(jax.vmap(replay))(jax.random.split(jax.random.split(key)[1], problem.num_samples))
        gradient = jax.tree.map(lambda leaf: np.asarray(leaf) / batch, gradient)
        return Evaluated(float(first_loss) / batch, gradient, _noise_at(problem, z))

    def replay(particle_key):
        # RenyiELBO derives its keys in this way. With any other z the loss would not be the expected one.
        seeded = handlers.seed(guide, jax.random.split(particle_key)[1])
        return handlers.trace(seeded).get_trace(x)["z"]["value"]

    return _repeated(update, start, x, evaluate)


def make_tfp(problem: Problem, *, doubly_reparameterized: bool = False) -> Contestant:
    """`tfp.vi.monte_carlo_variational_loss` on JAX, differentiated and updated as any JAX function."""
    from tensorflow_probability.substrates import jax as tfp

    tfd, estimators = tfp.distributions, tfp.vi.GradientEstimators

    def posterior(loc, scale):
        return tfd.Independent(tfd.Normal(loc, scale), reinterpreted_batch_ndims=1)

    def loss(params, x, key):
        prior = posterior(jnp.zeros(problem.sizes.latent), jnp.ones(problem.sizes.latent))

        def target(z):
            likelihood = tfd.Independent(tfd.Bernoulli(logits=mlp(params["decoder"], z)), reinterpreted_batch_ndims=1)
            return prior.log_prob(z) + likelihood.log_prob(x)

        parameters = encode(params, x)
        choice = {"gradient_estimator": estimators.REPARAMETERIZATION}
        if doubly_reparameterized:
            stopped = posterior(*jax.lax.stop_gradient(parameters))
            choice = {
                "gradient_estimator": estimators.DOUBLY_REPARAMETERIZED,
                "stopped_surrogate_posterior": stopped,
            }
        losses = tfp.vi.monte_carlo_variational_loss(
            target, posterior(*parameters), importance_sample_size=problem.num_samples, seed=key, **choice
        )
        return jnp.mean(losses)

    def noise_of(key):
        sample_key, _ = tfp.random.split_seed(key, 2)
        q = posterior(*encode(problem.params, jnp.asarray(problem.images)))
        return _noise_at(problem, q.sample([problem.num_samples], seed=sample_key))

    return _trained(problem, jax.value_and_grad(loss), noise_of=noise_of)
