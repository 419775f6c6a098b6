"""Result files of `experiments.vae`: found, checked, and collected as compact JSON."""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.evaluation import FIGURES
from experiments.models import alpha_of
from experiments.settings import Settings, from_json
from experiments.split_mean import Figure
from experiments.training import CURVES

DIGITS = 7  # significant digits of a collected number; settings keep theirs
KEYS = ("steps", "nll_samples", "nll_images", "train_seconds", "evaluation_seconds", "curves", "data", "provenance")
NESTED = {"data": ("name", "checksum"), "provenance": ("jax", "device", "processor", "date"), "curves": CURVES}


class Result(NamedTuple):
    """One cell, as its file has it.

    Attributes:
      path: the file.
      settings: what was run.
      content: the whole file, see `vae.run`.
    """

    path: pathlib.Path
    settings: Settings
    content: dict[str, Any]


def read(folders: Sequence[pathlib.Path]) -> list[Result]:
    """All results in and below the folders, each once.

    JSON files without settings or without one of `evaluation.FIGURES` are no results of `experiments.vae` and are
    passed over; those that have settings are named on the standard output.

    Raises:
      FileNotFoundError: a folder does not exist.
      ValueError: a file is no JSON, or lacks something, or two files have the same settings and other numbers.
    """
    results: dict[Settings, Result] = {}
    for path in _json_files(folders):
        result = _read(path)
        if result is None:
            continue
        before = results.setdefault(result.settings, result)
        if not _same_figures(before, result):
            raise ValueError(
                f"{before.path} and {path} have the same settings and other numbers (from "
                f"{_origin(before)} and {_origin(result)}): keep one of them, or name folders with one of them"
            )
    return list(results.values())


def collect(source: Sequence[pathlib.Path], target: pathlib.Path) -> list[pathlib.Path]:
    """Write the results below `source` to `target/<settings.name()>.json`; those that are there already stay.

    Returns:
      The files written.

    Raises:
      FileNotFoundError, ValueError: as in `read`, also where `target` has other numbers for the same settings.
    """
    target.mkdir(parents=True, exist_ok=True)
    there = {result.settings for result in read([target])}
    written = []
    for result in read([target, *source]):
        if result.settings in there:
            continue
        path = target / f"{result.settings.name()}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(_compact(result.content))
        partial.replace(path)
        written.append(path)
    return written


def _json_files(folders: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"the folder of results does not exist: {folder}")
        for here, below, names in os.walk(folder):
            # A run that goes on in there deletes checkpoints while one looks.
            below[:] = sorted(name for name in below if name != "checkpoints")
            yield from (pathlib.Path(here, name) for name in sorted(names) if name.endswith(".json"))


def _read(path: pathlib.Path) -> Result | None:
    """The checked result, or None if the file is something else."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: no readable JSON ({error}); delete it, or run the cell again") from error
    if not isinstance(content, dict) or "settings" not in content:
        return None
    lacking = [name for name in FIGURES if name not in content]
    if lacking:
        print(f"{path}: passed over, it has settings and no {', '.join(lacking)}")
        return None
    try:
        return Result(path, _checked(content), content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _checked(content: dict[str, Any]) -> Settings:
    """The settings of a result that has everything."""
    given = content["settings"]
    _expect_names("settings", given, Settings._fields)
    unknown = sorted(set(given) - set(Settings._fields))
    if unknown:
        raise ValueError(f"settings: {', '.join(unknown)} are no fields of Settings")
    settings = from_json(given).check()
    alpha_of(settings.model)
    _expect_names("the result", content, KEYS)
    for key, names in NESTED.items():
        _expect_names(key, content[key], names)
    if content["data"]["name"] != settings.dataset:
        raise ValueError(
            f"data: expected the name {settings.dataset}, as in the settings, got {content['data']['name']}"
        )
    for name in FIGURES:
        _expect_names(name, content[name], Figure._fields)
        for field in Figure._fields:
            _expect_numbers(f"{name}.{field}", content[name][field], settings.seeds)
    _expect_numbers("nll_images", content["nll_images"], 2)
    for name in CURVES[1:]:
        _expect_numbers(f"the end of curves.{name}", [row[-1] for row in content["curves"][name]], settings.seeds)
    return settings


def _expect_names(what: str, content: Any, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in content] if isinstance(content, dict) else list(names)
    if missing:
        raise ValueError(f"{what}: expected also {', '.join(missing)}; run the cell again with this version")


def _expect_numbers(what: str, values: Any, count: int) -> None:
    numbers = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    if not (numbers and len(values) == count and np.all(np.isfinite(values))):
        raise ValueError(f"{what}: expected {count} finite numbers, got {values}")


def _same_figures(a: Result, b: Result) -> bool:
    """Equal up to the rounding of `collect`."""
    pairs = [(a.content[name][field], b.content[name][field]) for name in FIGURES for field in Figure._fields]
    return all(np.allclose(x, y, rtol=10.0 ** (1 - DIGITS), atol=0.0) for x, y in pairs)


def _origin(result: Result) -> str:
    provenance = result.content["provenance"]
    return f"{provenance['device']}, {provenance['date']}"


def _compact(content: dict[str, Any]) -> str:
    """JSON with one line a key."""
    rounded = {**_rounded(content), "settings": content["settings"]}
    lines = [f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in rounded.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
