"""Pictures of finished runs: samples, reconstructions and learning curves."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hiwae_jax as hj
from experiments.shared.figures import plt, save
from experiments.vae import compiling, images
from experiments.vae.models import Model, Params, title
from experiments.vae.settings import Settings
from experiments.vae.training import CURVES

GRID = 8


def _mosaic(path: pathlib.Path, images: np.ndarray, title: str) -> None:
    rows, columns, height, width = images.shape
    sheet = images.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    figure, axis = plt.subplots(figsize=(6, 6 * rows / columns + 0.4))
    axis.imshow(sheet, cmap="gray_r", vmin=0.0, vmax=1.0)
    axis.set_title(title, fontsize=9)
    axis.axis("off")
    save(figure, path, dpi=120, tight=True)


def write_pictures(
    model: Model, settings: Settings, params: Params, data: images.AnyDataset, folder: pathlib.Path
) -> None:
    """Samples from the prior, and test images above their reconstructions from a resampled posterior sample."""
    caption = f"{title(settings.model)}, {data.name}"
    key = jax.random.key(3)
    decode = jax.jit(lambda params, z: jax.nn.sigmoid(jax.vmap(model.decode, in_axes=(None, 0))(params, z)))
    z = jax.random.normal(key, (GRID * GRID, settings.latent))
    samples = np.asarray(decode(params, z)).reshape(GRID, GRID, *data.shape)
    _mosaic(folder / "samples.png", samples, f"{caption}: pixel means of samples from the prior")

    def posterior_sample(params, x, key):
        # The log-weights and the draw get the same key, so they belong to the same samples.
        log_w, z = model.log_weights()(params, x, key), model.proposal.draw(params, x, key).z
        return hj.posterior_resample(jax.random.fold_in(key, 1), log_w, z, num_samples=1)[0]

    shown = images.spread(data.test, 4 * GRID)
    x = images.make_pixels(data)(shown, key)
    of_images = jax.jit(jax.vmap(posterior_sample, in_axes=(None, 0, 0)), compiler_options=compiling.for_one_run())
    means = decode(params, of_images(params, x, jax.random.split(key, len(x))))
    pairs = jnp.stack([x.reshape(4, GRID, *data.shape), means.reshape(4, GRID, *data.shape)], axis=1)
    pairs = np.asarray(pairs).reshape(2 * 4, GRID, *data.shape)
    _mosaic(folder / "reconstructions.png", pairs, f"{caption}: test images, and below each its reconstruction")


def write_curves(path: pathlib.Path, curves: dict[str, dict[str, list[Any]]]) -> None:
    """Validation and training bound, and effective sample size, against steps: the mean over seeds by run."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    shown = []
    for number, (name, columns) in enumerate(curves.items()):
        color, steps = f"C{number}", columns["step"]
        validation, training, ess = (np.mean(columns[column], axis=0) for column in (CURVES[3], CURVES[2], CURVES[4]))
        axes[0].plot(steps, validation, color=color, label=name)
        axes[0].plot(steps, training, color=color, linestyle=":", linewidth=1)
        axes[1].plot(steps, ess, color=color, label=name)
        # The first steps are far below all others and would flatten the curves.
        shown += [validation[len(steps) // 10 :], training[len(steps) // 10 :]]
    shown = np.concatenate(shown)
    axes[0].set_ylim(np.min(shown) - 1.0, np.max(shown) + 1.0)
    axes[0].set_title("bound in nats: validation (full), training (dotted)", fontsize=9)
    axes[1].set_title("effective sample size, training and validation examples", fontsize=9)
    for axis in axes:
        axis.set_xlabel("step")
        axis.legend(fontsize=7)
    save(figure, path, dpi=120, tight=True)
