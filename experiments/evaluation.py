"""Bounds and negative log-likelihood of a trained model over whole splits, in bounded memory."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

import hiwae_jax as hj
from experiments import images, layout
from experiments.models import Model, of_one
from experiments.settings import Settings

# Decoder rows in one call. On a CPU enough to fill the matrix unit and few enough for the cache.
ROWS_AT_ONCE = {"cpu": 1_000, "gpu": 50_000, "tpu": 50_000}
FIGURES = ("train_bound", "validation_bound", "test_bound", "validation_nll", "test_nll")


class Figure(NamedTuple):
    """A mean over a split, in nats, of each seed.

    Attributes:
      mean: the mean over the examples, [seeds].
      standard_error: of that mean, from the spread between examples, [seeds].
      monte_carlo_error: of that mean, from the samples of z alone, the examples being given, [seeds].
    """

    mean: list[float]
    standard_error: list[float]
    monte_carlo_error: list[float]


def evaluate(
    model: Model, settings: Settings, params: Any, data: images.AnyDataset, *, mesh: Mesh | None = None
) -> dict[str, Any]:
    """The `FIGURES` of parameters with a leading axis of seeds.

    Bounds are with the model's own K over whole splits; negative log-likelihoods from `settings.nll_samples` samples of
    z for each of `settings.nll_images` images. Grey levels are binarized once, alike for all models and seeds. The
    random numbers are the same for all seeds, so that differences between seeds are those of the parameters. On a mesh
    each block of images lies over its axis `data`.
    """
    num_samples = 1 if settings.model == "vae" else settings.num_samples
    num_draws = max(2, -(-settings.nll_samples // num_samples))
    log_weights = model.log_weights()
    log_evidence = hj.make_log_evidence(log_weights, num_draws=num_draws)

    def bound(params, x, key):
        return jax.nn.logsumexp(log_weights(params, x, key)), jnp.zeros(())

    def nll(params, x, key):
        result = log_evidence(params, x, key)
        return -result.estimate, result.standard_error

    splits = data.train, data.validation, data.test
    block = max(1, min(ROWS_AT_ONCE.get(jax.default_backend(), 1_000) // num_samples, len(data.train)))
    bound_over, nll_over = (
        _make_over_split(function, images.make_pixels(data), block, mesh) for function in (bound, nll)
    )
    with jax.default_matmul_precision("float32"):  # not the short floats that accelerators multiply by default
        figures = [bound_over(params, split, title) for split, title in zip(splits, FIGURES[:3], strict=True)]
        figures += [
            nll_over(params, images.spread(split, settings.nll_images), title)
            for split, title in zip(splits[1:], FIGURES[3:], strict=True)
        ]
    return {
        **{name: figure._asdict() for name, figure in zip(FIGURES, figures, strict=True)},
        "nll_samples": num_draws * num_samples,
        "nll_images": [len(images.spread(split, settings.nll_images)) for split in splits[1:]],
    }


def _make_over_split(function: Any, pixels: Callable[..., Any], block: int, mesh: Mesh | None) -> Callable[..., Figure]:
    """Apply `(params, x, key) -> (value, error)` blockwise and average; the last block is padded."""

    @functools.partial(jax.jit, out_shardings=layout.over(mesh))
    def compiled(params, rows, key):
        pixel_key, noise_key = jax.random.split(key)
        keys, x = layout.split(mesh, (jax.random.split(noise_key, len(rows)), pixels(rows, pixel_key)))
        return jax.vmap(function, in_axes=(None, 0, 0), spmd_axis_name=layout.batch_axis(mesh))(params, x, keys)

    def of_seed(params: Any, split: np.ndarray, progress: tqdm) -> list[float]:
        values, errors = [], []
        for start in range(0, len(split), block):
            part = split[start : start + block]
            padded = np.concatenate([part, np.repeat(part[:1], block - len(part), axis=0)])
            value, error = compiled(params, padded, jax.random.fold_in(jax.random.key(2), start))
            values.append(np.asarray(value, np.float64)[: len(part)])
            errors.append(np.asarray(error, np.float64)[: len(part)])
            progress.update(len(part))
        value, error = np.concatenate(values), np.concatenate(errors)
        return [np.mean(value), np.std(value, ddof=1) / np.sqrt(len(value)), np.sqrt(np.sum(error**2)) / len(error)]

    def over_split(params: Any, split: np.ndarray, title: str) -> Figure:
        seeds = len(jax.tree.leaves(params)[0])
        silent = not layout.is_first()
        with tqdm(total=seeds * len(split), desc=title, unit="image", leave=False, disable=silent) as progress:
            rows = [of_seed(of_one(params, seed), split, progress) for seed in range(seeds)]
        return Figure(*np.array(rows, np.float64).T.tolist())

    return over_split
