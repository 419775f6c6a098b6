"""The IWAE that all contestants of `benchmarks.peers` train, and the functions that a contestant provides."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LEARNING_RATE = 1e-3
SCALE_FLOOR = 1e-4  # scales are softplus(raw) + SCALE_FLOOR in every contestant

Gradient = dict[str, Any]  # a tree like `Problem.params`


class Sizes(NamedTuple):
    """The sizes of the batch and of the networks; encoder and decoder have two hidden layers of tanh units each."""

    batch: int = 64
    pixels: int = 784
    hidden: int = 200
    latent: int = 32


class Problem(NamedTuple):
    """One cell: sizes, K, the parameters `{"encoder" | "decoder": [{"kernel", "bias"}]}` and the images, in NumPy."""

    sizes: Sizes
    num_samples: int
    params: dict[str, list[dict[str, np.ndarray]]]
    images: np.ndarray


class Evaluated(NamedTuple):
    """The loss and gradient of a contestant at `Problem.params`, and the noise [B, K, D] of its samples."""

    loss: float
    gradient: Gradient
    noise: np.ndarray


class Contestant(NamedTuple):
    """One implementation of the optimisation step.

    Attributes:
      advance: `(calls)`: takes `calls * steps_per_call` further steps and waits until they are done.
      evaluate: the loss and the gradient that its steps follow, at the common parameters.
      steps_per_call: optimisation steps in one call.
      temp_bytes: temporary memory of its compiled program; None where nothing says it.
    """

    advance: Callable[[int], None]
    evaluate: Callable[[], Evaluated]
    steps_per_call: int = 1
    temp_bytes: int | None = None


def make_problem(sizes: Sizes, num_samples: int, images: np.ndarray | None = None) -> Problem:
    """The problem, with the same numbers at every call. Without `images` [B, pixels] the pixels are coin flips."""
    generator = np.random.default_rng(0)

    def layers(*widths: int) -> list[dict[str, np.ndarray]]:
        return [
            {
                "kernel": generator.normal(0.0, math.sqrt(2.0 / (m + n)), (m, n)).astype(np.float32),
                "bias": generator.normal(0.0, 0.05, n).astype(np.float32),
            }
            for m, n in itertools.pairwise(widths)
        ]

    hidden = (sizes.hidden, sizes.hidden)
    encoder = layers(sizes.pixels, *hidden, 2 * sizes.latent)
    decoder = layers(sizes.latent, *hidden, sizes.pixels)
    if images is None:
        images = generator.integers(0, 2, (sizes.batch, sizes.pixels))
    return Problem(sizes, num_samples, {"encoder": encoder, "decoder": decoder}, np.array(images, np.float32))


def standard_noise(problem: Problem) -> np.ndarray:
    """Noise [B, K, D] for contestants that can be given noise."""
    shape = (problem.sizes.batch, problem.num_samples, problem.sizes.latent)
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def mlp(layers: Any, h: jax.Array) -> jax.Array:
    """An MLP with tanh between the layers and nothing after the last."""
    for layer in layers[:-1]:
        h = jnp.tanh(h @ layer["kernel"] + layer["bias"])
    return h @ layers[-1]["kernel"] + layers[-1]["bias"]


Network = Callable[[Any, jax.Array], jax.Array]  # (layers, input) -> output


def encode(params: Any, x: jax.Array, *, network: Network = mlp) -> tuple[jax.Array, jax.Array]:
    """`loc` and `scale` of q(z | x)."""
    loc, raw = jnp.split(network(params["encoder"], x), 2, axis=-1)
    return loc, jax.nn.softplus(raw) + SCALE_FLOOR


def log_normal(z: jax.Array, loc: Any, scale: Any) -> jax.Array:
    """The log-density of a diagonal Gaussian, summed over the last axis."""
    return jnp.sum(-0.5 * ((z - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * math.log(2.0 * math.pi), axis=-1)


def log_joint(params: Any, x: jax.Array, z: jax.Array, *, network: Network = mlp) -> jax.Array:
    """`log p(x, z)` of one z; the Bernoulli is written in the way that XLA compiles best."""
    logits = network(params["decoder"], z)
    log_likelihood = jnp.sum(x * logits - jnp.maximum(logits, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(logits))))
    return log_likelihood + log_normal(z, 0.0, jnp.ones(()))


def example_loss(params: Any, x: jax.Array, noise: jax.Array) -> jax.Array:
    """Minus the importance-weighted bound of one image, as one writes it without a library; noise [K, D]."""
    loc, scale = encode(params, x)
    z = loc + scale * noise
    log_w = jax.vmap(log_joint, in_axes=(None, None, 0))(params, x, z) - log_normal(z, loc, scale)
    return math.log(len(noise)) - jax.nn.logsumexp(log_w)


def expected(problem: Problem, noise: np.ndarray, rule: str) -> tuple[float, Gradient]:
    """The loss and gradient that a contestant must find with this noise.

    Rules of the gradient: "plain"; "doubly_reparameterized", where the encoder's paths have squared weights; and
    "squared", where the decoder's gradient has them too. "weighted_mean" is the plain gradient, of a loss that reports
    the mean of log w under the normalised weights in place of their log-sum-exp.
    """
    params, x = jax.tree.map(jnp.asarray, problem.params), jnp.asarray(problem.images)

    def loss(params):
        return jnp.mean(jax.vmap(example_loss, in_axes=(None, 0, 0))(params, x, jnp.asarray(noise)))

    def log_weights(params, x, noise):
        loc, scale = encode(params, x)
        z = loc + scale * noise
        stopped = jax.lax.stop_gradient((loc, scale))
        return jax.vmap(log_joint, in_axes=(None, None, 0))(params, x, z) - log_normal(z, *stopped)

    def weighted(params, power):
        log_w = jax.vmap(log_weights, in_axes=(None, 0, 0))(params, x, jnp.asarray(noise))
        weights = jax.lax.stop_gradient(jax.nn.softmax(log_w, axis=1)) ** power
        return -jnp.mean(jnp.sum(weights * log_w, axis=1))

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    if rule == "weighted_mean":
        value = jax.jit(weighted)(params, 1)
    elif rule != "plain":
        squared = jax.jit(jax.grad(weighted))(params, 2)
        gradient = squared if rule == "squared" else {**gradient, "encoder": squared["encoder"]}
    return float(value), jax.tree.map(np.asarray, gradient)
