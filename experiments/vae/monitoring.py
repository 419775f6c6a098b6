"""The figures of the learning curves: bounds of training and validation examples, and effective sample size."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

import hiwae_jax as hj
from experiments.vae import layout
from experiments.vae.images import Pixels


class Monitored(NamedTuple):
    """Means over examples; that of the effective sample size is over both sets."""

    train_bound: Float[Array, ""]
    validation_bound: Float[Array, ""]
    effective_sample_size: Float[Array, ""]


def make_monitor(
    log_weights: Callable[..., jax.Array], pixels: Pixels, *, mesh: Mesh | None = None
) -> Callable[..., Monitored]:
    """`(params, train_rows, validation_rows) -> Monitored`, with the same noise and pixels at every call.

    So the curves show the parameters' change alone.

    Args:
      log_weights: `(params, x, key) -> [K]`, mixing weights included.
      pixels: `(rows, key) -> x`, as of `images.make_pixels`.
      mesh: the examples lie over its axis `data`.
    """
    of_examples = jax.vmap(log_weights, in_axes=(None, 0, 0), spmd_axis_name=layout.batch_axis(mesh))

    def monitor(params, train_rows, validation_rows):
        rows = jnp.concatenate([train_rows, validation_rows])
        pixel_key, noise_key = jax.random.split(jax.random.key(1))
        keys, x = layout.split(mesh, (jax.random.split(noise_key, len(rows)), pixels(rows, pixel_key)))
        log_w = of_examples(params, x, keys)
        bound = jax.nn.logsumexp(log_w, axis=-1)
        train, validation = bound[: len(train_rows)], bound[len(train_rows) :]
        return Monitored(jnp.mean(train), jnp.mean(validation), jnp.mean(hj.effective_sample_size(log_w)))

    return monitor
