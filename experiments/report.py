"""Tables, JSON and figures of finished runs."""

import json
import pathlib
import platform
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import hiwae_jax as hj
from experiments.models import TITLES, Model
from experiments.settings import Settings
from experiments.training import CURVES, State
from hiwae_jax.data import Dataset, unpack_bits

matplotlib.use("Agg")  # no display is needed

from matplotlib import pyplot as plt  # after the backend is chosen

GRID = 8


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON file that is either whole or not there."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """What `write_json` wrote."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def provenance() -> dict[str, str]:
    """What computed the numbers."""
    device = jax.devices()[0]
    return {
        "hiwae_jax": hj.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": f"{device.platform} {device.device_kind}",
    }


def table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table; larger bounds and smaller NLL are better."""
    lines = [
        "| model | K | steps | train bound | test bound | test NLL | Monte Carlo error | s.e. over images | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        settings, nll = result["settings"], result["test_nll"]
        lines.append(
            f"| {TITLES[settings['model']]} | {1 if settings['model'] == 'vae' else settings['num_samples']} "
            f"| {result['steps']:,} | {result['train_bound']['mean']:.2f} | {result['test_bound']['mean']:.2f} "
            f"| {nll['mean']:.2f} | {nll['monte_carlo_error']:.3f} | {nll['standard_error']:.2f} "
            f"| {result['train_seconds']:.0f} |"
        )
    return "\n".join(lines)


def _mosaic(path: pathlib.Path, images: np.ndarray, title: str) -> None:
    rows, columns, height, width = images.shape
    sheet = images.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    figure, axis = plt.subplots(figsize=(6, 6 * rows / columns + 0.4))
    axis.imshow(sheet, cmap="gray_r", vmin=0.0, vmax=1.0)
    axis.set_title(title, fontsize=9)
    axis.axis("off")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def write_pictures(model: Model, settings: Settings, params: Any, data: Dataset, folder: pathlib.Path) -> None:
    """Samples from the prior, and test images above their reconstructions from a resampled posterior sample."""
    title = f"{TITLES[settings.model]}, {data.name}"
    key = jax.random.key(settings.seed + 3)
    decode = jax.jit(jax.vmap(lambda z: jax.nn.sigmoid(model.decode(params, z)).reshape(data.shape)))
    z = jax.random.normal(key, (GRID * GRID, settings.latent))
    samples = np.asarray(decode(z)).reshape(GRID, GRID, *data.shape)
    _mosaic(folder / "samples.png", samples, f"{title}: pixel means of samples from the prior")

    log_weights = hj.make_log_weights(model.log_joint, model.proposal, weighting=model.weighting)

    @jax.vmap
    def posterior_sample(x, key):
        # The same key gives the same samples to both: one of them is kept with probability proportional to its weight.
        log_w = log_weights(params, x, key)
        return model.proposal.draw(params, x, key).z[jax.random.categorical(jax.random.fold_in(key, 1), log_w)]

    # Evenly from the whole split: MNIST's begins with zeros only.
    shown = data.test[:: len(data.test) // (4 * GRID)][: 4 * GRID]
    x = unpack_bits(shown, num_pixels=data.shape[0] * data.shape[1])
    means = decode(jax.jit(posterior_sample)(x, jax.random.split(key, len(x))))
    pairs = jnp.stack([x.reshape(4, GRID, *data.shape), means.reshape(4, GRID, *data.shape)], axis=1)
    pairs = np.asarray(pairs).reshape(2 * 4, GRID, *data.shape)
    _mosaic(folder / "reconstructions.png", pairs, f"{title}: test images, and below each its reconstruction")


def write_curves(path: pathlib.Path, curves: dict[str, np.ndarray]) -> None:
    """Validation and training bound, and effective sample size, of several models against steps."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for number, (name, rows) in enumerate(curves.items()):
        columns = dict(zip(CURVES, rows.T, strict=True))
        color = f"C{number}"
        axes[0].plot(columns["step"], columns["validation_bound"], color=color, label=TITLES[name])
        axes[0].plot(columns["step"], columns["train_bound"], color=color, linestyle=":", linewidth=1)
        axes[1].plot(columns["step"], columns["effective_sample_size"], color=color, label=TITLES[name])
    # The first steps are far below all others and would flatten the curves.
    shown = np.concatenate([rows[len(rows) // 10 :, 2:4].ravel() for rows in curves.values()])
    axes[0].set_ylim(np.min(shown) - 1.0, np.max(shown) + 1.0)
    axes[0].set_title("bound in nats: validation (full), training (dotted)", fontsize=9)
    axes[1].set_title("effective sample size, training and validation examples", fontsize=9)
    for axis in axes:
        axis.set_xlabel("step")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def finished_curves(state: State) -> np.ndarray:
    """The learning curves as an array [calls, len(CURVES)]."""
    return np.asarray(state.curves)[: int(state.calls)]
