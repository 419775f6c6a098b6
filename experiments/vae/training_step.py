"""One minibatch: pixels, gradients, an update of either part of the parameters, and their average."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

import hiwae_jax as hj
from experiments.vae import layout, optimizer, schedules
from experiments.vae.images import Pixels
from experiments.vae.minibatches import Minibatch
from experiments.vae.models import Params
from experiments.vae.settings import Settings


class Objective(Protocol):
    """An objective of one example, with its draw, as `hj.make_annealed_objective` makes it.

    Attributes:
      draw: `(params, x, key) -> drawn`.
    """

    draw: Callable[..., hj.Draw]

    def __call__(self, params: Params, x: jax.Array, key: PRNGKeyArray | hj.Draw, beta: Float[Array, ""]) -> jax.Array:
        """The value, to be maximised."""


class Carry(NamedTuple):
    """The state that a step takes and returns.

    Attributes:
      params: the parameters.
      optimizer: Adam's state of either part of them.
      average: Polyak average of the parameters.
    """

    params: Params
    optimizer: Params
    average: Params


def make_step(
    objective: Objective,
    settings: Settings,
    pixels: Pixels,
    *,
    steps: int,
    mesh: Mesh | None = None,
) -> Callable[[Carry, Minibatch], tuple[Carry, Float[Array, ""]]]:
    """`(carry, minibatch) -> (carry, mean objective of the minibatch)`.

    With E = `settings.encoder_updates`, the inference parameters are updated E - 1 times by themselves, and then all of
    them together once, each time from samples of their own. `settings.twice` says to which part the reverse model
    belongs.

    Args:
      objective: `(params, x, key, beta) -> scalar` of one example, to be maximised, with its `draw`.
      settings: the cell.
      pixels: `(rows, key) -> x`, as of `images.make_pixels`.
      steps: in all, for the learning rate.
      mesh: each batch lies over its axis `data`.
    """
    schedule = schedules.learning_rate(settings.schedule, first=settings.learning_rate, steps=steps)

    def loss(params, x, drawn, beta):
        return -objective(params, x, drawn, beta)

    def of_inference(function):
        return lambda inference, x, given, params, beta: function(params._replace(inference=inference), x, given, beta)

    def over_batch(loss, draw):
        # On one device the library chooses how many examples run at once. On a mesh each device runs all of its own.
        at_once = None if mesh is None else settings.batch_size
        return hj.batched_value_and_grad(loss, draw=draw, chunk_size=at_once, spmd_axis_name=layout.batch_axis(mesh))

    value_and_grad = over_batch(loss, objective.draw)
    inference_value_and_grad = over_batch(of_inference(loss), of_inference(objective.draw))

    def step(carry, minibatch):
        params, state, average = carry
        pixel_key, *noise_keys = jax.random.split(minibatch.key, 1 + settings.encoder_updates)
        x = layout.split(mesh, pixels(minibatch.rows, pixel_key))
        beta = schedules.warmup_beta(minibatch.step, warmup=settings.warmup)
        rate = schedule(minibatch.step)
        for noise_key in noise_keys[:-1]:
            _, gradient = inference_value_and_grad(params.inference, x, noise_key, params, beta)
            clipped = optimizer.clip(gradient, largest_norm=settings.clip)
            inference, of_inference_state = optimizer.descend(params.inference, state.inference, clipped, rate)
            params, state = params._replace(inference=inference), state._replace(inference=of_inference_state)
        value, gradient = value_and_grad(params, x, noise_keys[-1], beta)
        clipped = optimizer.clip(gradient, largest_norm=settings.clip)
        updated = [optimizer.descend(*part, rate) for part in zip(params, state, clipped, strict=True)]
        params, state = (Params(*parts) for parts in zip(*updated, strict=True))
        decay = schedules.polyak_decay(minibatch.step, longest=settings.polyak)
        return Carry(params, state, optimizer.moving_average(average, params, decay=decay)), -value

    return step
