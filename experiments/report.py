"""Tables, JSON and figures of finished runs."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import hiwae_jax as hj
from experiments import images
from experiments.models import Model, title
from experiments.settings import Settings, from_json
from experiments.training import CURVES, Trained

matplotlib.use("Agg")  # no display is needed

from matplotlib import pyplot as plt  # after the backend is chosen

GRID = 8
STORED_POINTS = 40


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON file that is either whole or not there."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def provenance() -> dict[str, str]:
    """What computed the numbers."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "hiwae_jax": hj.__version__,  # which need not be installed, only on the path
        **{name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "device": f"{device.platform} {device.device_kind}",
        "processor": _processor(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"


def over_seeds(means: list[float]) -> str:
    """Mean, and standard deviation over seeds if there are several."""
    spread = f" +- {np.std(means, ddof=1):.2f}" if len(means) > 1 else ""
    return f"{np.mean(means):.2f}{spread}"


def labels(every: list[Settings]) -> list[str]:
    """A name for each run: its model, and what else is not the same in all of them; K has a column of its own."""
    told = {"model", "dataset", "num_samples"}
    differing = [name for name in Settings._fields if name not in told and len({getattr(s, name) for s in every}) > 1]
    return [
        ", ".join([title(s.model), *(f"{name.replace('_', ' ')} {getattr(s, name)}" for name in differing)])
        for s in every
    ]


def table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table; larger bounds and smaller NLL are better."""
    every = [from_json(result["settings"]) for result in results]
    lines = [
        "| model | K | steps | seeds | train bound | test bound | test NLL | MC error | s.e. over images | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result, settings, name in zip(results, every, labels(every), strict=True):
        nll = result["test_nll"]
        lines.append(
            f"| {name} | {1 if settings.model == 'vae' else settings.num_samples} "
            f"| {result['steps']:,} | {settings.seeds} | {over_seeds(result['train_bound']['mean'])} "
            f"| {over_seeds(result['test_bound']['mean'])} | {over_seeds(nll['mean'])} "
            f"| {np.mean(nll['monte_carlo_error']):.3f} | {np.mean(nll['standard_error']):.2f} "
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


def write_pictures(
    model: Model, settings: Settings, params: Any, data: images.AnyDataset, folder: pathlib.Path
) -> None:
    """Samples from the prior, and test images above their reconstructions from a resampled posterior sample."""
    caption = f"{title(settings.model)}, {data.name}"
    key = jax.random.key(3)
    decode = jax.jit(jax.vmap(lambda z: jax.nn.sigmoid(model.decode(params, z)).reshape(data.shape)))
    z = jax.random.normal(key, (GRID * GRID, settings.latent))
    samples = np.asarray(decode(z)).reshape(GRID, GRID, *data.shape)
    _mosaic(folder / "samples.png", samples, f"{caption}: pixel means of samples from the prior")

    @jax.vmap
    def posterior_sample(x, key):
        # The same key gives the same samples to both.
        log_w, z = model.log_weights()(params, x, key), model.proposal.draw(params, x, key).z
        return hj.posterior_resample(jax.random.fold_in(key, 1), log_w, z, num_samples=1)[0]

    shown = images.spread(data.test, 4 * GRID)
    x = images.make_pixels(data)(shown, key)
    means = decode(jax.jit(posterior_sample)(x, jax.random.split(key, len(x))))
    pairs = jnp.stack([x.reshape(4, GRID, *data.shape), means.reshape(4, GRID, *data.shape)], axis=1)
    pairs = np.asarray(pairs).reshape(2 * 4, GRID, *data.shape)
    _mosaic(folder / "reconstructions.png", pairs, f"{caption}: test images, and below each its reconstruction")


@contextlib.contextmanager
def tensorboard_log(folder: pathlib.Path) -> Iterator[Callable[[dict[str, np.ndarray]], None]]:
    """A function that writes the curves of a compiled call, by seed, into event files in `folder`."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError("--tensorboard needs the package tensorboardX: pip install tensorboardX") from error
    writer = SummaryWriter(str(folder / "tensorboard"))

    def log(row: dict[str, np.ndarray]) -> None:
        for name in CURVES[1:]:
            for seed, value in enumerate(row[name]):
                writer.add_scalar(f"{name}/seed_{seed}", float(value), int(row["step"][seed]))
        writer.flush()

    with writer:
        yield log


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
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def finished_curves(trained: Trained) -> dict[str, list[Any]]:
    """At most `STORED_POINTS` of the learning curves: "step" [points], the others [seeds][points]."""
    calls = int(trained.state.calls[0])
    kept = np.unique(np.linspace(0, calls - 1, min(calls, STORED_POINTS)).round().astype(int))
    columns = np.moveaxis(np.asarray(trained.state.curves, np.float64)[:, kept], -1, 0)
    stored = {name: np.round(column, 4).tolist() for name, column in zip(CURVES, columns, strict=True)}
    return {**stored, "step": stored["step"][0]}
