"""Tests whether a run has diverged: a figure is not finite, or far below that of the untrained model.

A figure is far below if it is at least 100 nats, and `FAR_BELOW` times as many nats as the untrained model, below zero.
The untrained model is judged by its bound or by the log-likelihood of the validation images under independent pixels
with the means of the training set, whichever is lower. The second costs nothing, so the first is computed only where it
might decide. For small networks they are about equal.

On the digits the second is -25.0, and the limit -250. Learning rates up to 0.02 went down to -79 there and recovered.
Rates from 0.025 on went below -1,000 and stayed there.

During the warm-up hardly anything keeps the proposal near the prior, and the bounds say little. They are judged when
the warm-up is over and the Polyak average has forgotten it, or at the end. The objective is always judged.
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from experiments.vae import images
from experiments.vae.models import Params
from experiments.vae.settings import Settings
from hiwae_jax import nn

FAR_BELOW = 10.0
LEAST = 10.0  # least distance of the untrained model from zero, in nats: images of a few pixels may have less
ALWAYS, SETTLED = ("objective",), ("train_bound", "validation_bound")  # of `training.CURVES`


def independent_pixels(data: images.AnyDataset) -> float:
    """Mean log-likelihood of the validation images under independent pixels with the means of the training set."""
    logits = np.asarray(nn.logits_from_mean(np.asarray(images.pixel_mean(data), np.float32)), np.float64)
    return float(np.sum(images.pixel_mean(data._replace(train=data.validation)) * logits - np.logaddexp(0.0, logits)))


def is_settled(settings: Settings, step: float) -> bool:
    """Whether the warm-up is over, and the average has forgotten it."""
    return step > settings.warmup + 1.0 / (1.0 - settings.polyak)


def fault(row: Mapping[str, np.ndarray], untrained: float, *, settled: bool) -> tuple[int, str] | None:
    """The first seed that diverged and what is wrong with it, in words; None if all is well.

    Args:
      row: the figures of one compiled call by `training.CURVES`, each of all seeds, [seeds].
      untrained: of `independent_pixels`, or of the untrained model if that is lower.
      settled: whether bounds are judged too.
    """
    step = f"at step {row['step'][0]:.0f}"
    for name, values in row.items():
        wrong = ~np.isfinite(values)
        if np.any(wrong):
            seed = int(np.argmax(wrong))
            return seed, f"the {_words(name)} of seed {seed} is not finite {step} ({values[seed]})"
    limit = FAR_BELOW * min(untrained, -LEAST)
    for name in ALWAYS + (SETTLED if settled else ()):
        if np.any(row[name] < limit):
            seed = int(np.argmin(row[name]))
            return seed, (
                f"the {_words(name)} of seed {seed} is {row[name][seed]:,.1f} {step}, far below the "
                f"{untrained:,.1f} of the untrained model"
            )
    return None


def _words(name: str) -> str:
    return name.replace("_", " ").replace("train b", "training b")


def bounds(log_weights: Callable[..., jax.Array], params: Params, x: jax.Array, key: PRNGKeyArray) -> np.ndarray:
    """The bound of each of the examples x [N, P]; -inf where all importance weights of one are zero, [N]."""

    def bound(params, x, key):
        return jax.nn.logsumexp(log_weights(params, x, key))

    return np.asarray(jax.jit(jax.vmap(bound, in_axes=(None, 0, 0)))(params, x, jax.random.split(key, len(x))))


def require_finite(title: str, seed: int, values: np.ndarray, errors: np.ndarray) -> None:
    """Raise a FloatingPointError if figures of images, or their Monte Carlo errors, are not finite; it counts them.

    Args:
      title: a name of `evaluation.FIGURES`: bounds, or negative log-likelihoods.
      seed: the seed.
      values: [N].
      errors: [N].
    """
    zero = np.isposinf(values) if title.endswith("nll") else np.isneginf(values)
    others = ~np.isfinite(values) & ~zero
    counts = {
        "have importance weights that are all zero": np.sum(zero),
        "have a value that is NaN or infinite": np.sum(others),
        "have a Monte Carlo error that is not finite": np.sum(np.isfinite(values) & ~np.isfinite(errors)),
    }
    told = [f"{count:,} of {len(values):,} images {what}" for what, count in counts.items() if count]
    if told:
        raise FloatingPointError(f"{title.replace('_', ' ')} of seed {seed}: {'; '.join(told)}")
