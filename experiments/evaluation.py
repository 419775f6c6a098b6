"""Bounds and negative log-likelihood of a trained model over whole splits, in bounded memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import hiwae_jax as hj
from experiments.models import Model
from experiments.settings import Settings
from hiwae_jax.data import Dataset, unpack_bits

ROWS_AT_ONCE = 1_000  # decoder rows in one call: enough to fill the matrix unit, few enough for the cache


class Figure(NamedTuple):
    """A mean over a split, in nats.

    Attributes:
      mean: the mean over the examples.
      standard_error: of that mean, from the spread between examples.
      monte_carlo_error: of that mean, from the samples of z alone, the examples being given.
    """

    mean: float
    standard_error: float
    monte_carlo_error: float


def evaluate(model: Model, settings: Settings, params: Any, data: Dataset) -> dict[str, Any]:
    """Train and test bound, and test NLL from `settings.nll_samples` samples of z."""
    num_samples = 1 if settings.model == "vae" else settings.num_samples
    num_draws = max(2, -(-settings.nll_samples // num_samples))
    num_pixels = data.shape[0] * data.shape[1]
    log_weights = hj.make_log_weights(model.log_joint, model.proposal, weighting=model.weighting)
    log_evidence = hj.make_log_evidence(log_weights, num_draws=num_draws)

    def bound(params, packed, key):
        log_w = log_weights(params, unpack_bits(packed, num_pixels=num_pixels), key)
        return jax.nn.logsumexp(log_w), jnp.zeros(())

    def likelihood(params, packed, key):
        result = log_evidence(params, unpack_bits(packed, num_pixels=num_pixels), key)
        return result.estimate, result.standard_error

    block = max(1, ROWS_AT_ONCE // num_samples)
    key = jax.random.key(settings.seed + 2)
    return {
        "train_bound": _over_split(bound, params, data.train, key, block, "train bound"),
        "test_bound": _over_split(bound, params, data.test, key, block, "test bound"),
        "test_nll": _negated(_over_split(likelihood, params, data.test, key, block, "test NLL")),
        "nll_samples": num_draws * num_samples,
    }


def _over_split(function: Any, params: Any, split: np.ndarray, key: Any, block: int, title: str) -> Figure:
    """Apply a per-example function, blockwise, and average; the last block is padded and the padding dropped."""
    compiled = jax.jit(jax.vmap(function, in_axes=(None, 0, 0)))
    values, errors = [], []
    for start in tqdm(range(0, len(split), block), desc=title, leave=False):
        part = split[start : start + block]
        padded = np.concatenate([part, np.repeat(part[:1], block - len(part), axis=0)])
        keys = jax.random.split(jax.random.fold_in(key, start), block)
        value, error = compiled(params, padded, keys)
        values.append(np.asarray(value, np.float64)[: len(part)])
        errors.append(np.asarray(error, np.float64)[: len(part)])
    value, error = np.concatenate(values), np.concatenate(errors)
    spread = float(np.std(value, ddof=1) / np.sqrt(len(value)))
    return Figure(float(np.mean(value)), spread, float(np.sqrt(np.sum(error**2)) / len(error)))


def _negated(figure: Figure) -> Figure:
    return figure._replace(mean=-figure.mean)
