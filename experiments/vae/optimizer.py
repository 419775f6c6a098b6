"""The parts of one update: the clipped gradient, a step of Adam downhill, and the moving average of parameters."""

from typing import Any

import optax
from jaxtyping import Array, Float

_ADAM = optax.scale_by_adam()

init = _ADAM.init  # `(params) -> Adam's state`


def clip(gradient: Any, *, largest_norm: float) -> Any:
    """The gradient, shortened to `largest_norm` if its norm over all leaves together is larger."""
    clipped, _ = optax.clip_by_global_norm(largest_norm).update(gradient, optax.EmptyState())
    return clipped


def descend(params: Any, state: Any, gradient: Any, rate: Float[Array, ""]) -> tuple[Any, Any]:
    """Parameters and Adam's state after a step of size `rate` against the gradient of a loss."""
    direction, state = _ADAM.update(gradient, state)
    return optax.apply_updates(params, optax.tree.scale(-rate, direction)), state


def moving_average(average: Any, params: Any, *, decay: Float[Array, ""]) -> Any:
    """`decay * average + (1 - decay) * params`."""
    return optax.incremental_update(params, average, 1.0 - decay)
