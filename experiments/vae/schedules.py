"""Schedules: the warm-up's beta, the learning rate and the decay of the average, as functions of the step."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

LEAST_BETA = 1e-4
LAST_RATE = 0.01  # where the cosine ends, as a fraction of the first rate


def warmup_beta(step: Int[Array, ""], *, warmup: int) -> Float[Array, ""]:
    """`clip((step + 1) / warmup, 1e-4, 1)`, the weight of the prior terms in step 0, 1, ...; one without a warm-up."""
    progress = (step + 1).astype(jnp.float32) / max(warmup, 1)
    return jnp.clip(progress, LEAST_BETA, 1.0) if warmup else jnp.float32(1.0)


def learning_rate(name: str, *, first: float, steps: int) -> optax.Schedule:
    """`(step) -> rate` of the schedule "constant", or "cosine": constant for half the steps, then down to a hundredth.

    With `t` from 0 at half of the steps to 1 at all of them, the cosine is
    `first * (0.01 + 0.99 * (1 + cos(pi t)) / 2)`.
    """
    if name == "constant":
        return optax.constant_schedule(first)
    half = steps // 2
    cosine = optax.cosine_decay_schedule(first, max(1, steps - half), alpha=LAST_RATE)
    return optax.join_schedules([optax.constant_schedule(first), cosine], [half])


def polyak_decay(step: Int[Array, ""], *, longest: float) -> Float[Array, ""]:
    """`min(longest, (step + 1) / (step + 10))`: how much of the average stays in step 0, 1, ...

    The decay is shortened at the start, so that the random initialisation is forgotten.
    """
    return jnp.minimum(longest, (step + 1).astype(jnp.float32) / (step + 10).astype(jnp.float32))
