"""The report of finished runs: a table, learning curves, and logs for TensorBoard."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from experiments.shared.spread import over_seeds
from experiments.vae.models import title
from experiments.vae.settings import Settings, from_json
from experiments.vae.training import CURVES, Trained

STORED_POINTS = 40


def labels(every: list[Settings]) -> list[str]:
    """A name for each run: its model, and the settings in which the runs differ, except K, which has its own column."""
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


def sentence(result: dict[str, Any]) -> str:
    """One result in a line, for whoever waits for the table."""
    settings = from_json(result["settings"])
    return (
        f"{title(settings.model)}, K = {1 if settings.model == 'vae' else settings.num_samples}: test bound "
        f"{over_seeds(result['test_bound']['mean'])}, test NLL {over_seeds(result['test_nll']['mean'])} nats; "
        f"{result['train_seconds']:.0f} s of training"
    )


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


def finished_curves(trained: Trained) -> dict[str, list[Any]]:
    """At most `STORED_POINTS` of the learning curves: "step" [points], the others [seeds][points]."""
    calls = int(trained.state.calls[0])
    kept = np.unique(np.linspace(0, calls - 1, min(calls, STORED_POINTS)).round().astype(int))
    columns = np.moveaxis(np.asarray(trained.state.curves, np.float64)[:, kept], -1, 0)
    stored = {name: np.round(column, 4).tolist() for name, column in zip(CURVES, columns, strict=True)}
    return {**stored, "step": stored["step"][0]}
