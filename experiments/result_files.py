"""Result files of `experiments.vae`: found, checked, and collected as compact JSON."""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import images, stored
from experiments.evaluation import FIGURES
from experiments.models import alpha_of
from experiments.settings import Settings, from_json
from experiments.split_mean import Figure
from experiments.training import CURVES

DIGITS = 7  # significant digits of a collected number; settings keep theirs
RESULT = "result.json"  # in the folder of a cell
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


def read_of_cell(path: pathlib.Path, settings: Settings, data: images.AnyDataset) -> dict[str, Any]:
    """The result of this cell on this data, as `vae.run` wrote it.

    Raises:
      UnusableError: it is damaged, or of other settings, data, images or of another version.
    """
    content = stored.read_json(path)
    try:
        found = _checked(content)
        if found != settings:
            other = ", ".join(name for name in Settings._fields if getattr(found, name) != getattr(settings, name))
            raise ValueError(f"it is of other settings ({other})")
        if content.get("format") != stored.FORMAT:
            raise ValueError(f"it has the format {content.get('format')}, and this version writes {stored.FORMAT}")
        if content["data"] != {"name": data.name, "checksum": data.checksum}:
            raise ValueError("it is of other data, with another checksum")
        images_of_nll = [len(images.spread(split, settings.nll_images)) for split in (data.validation, data.test)]
        if content["nll_images"] != images_of_nll:
            raise ValueError(f"its NLL is of {content['nll_images']} images and not of {images_of_nll}")
    except ValueError as error:
        raise stored.UnusableError(f"{path}: {error}; {stored.ANEW}, or name another --output") from error
    return content


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
            wrong = "is a file" if folder.exists() else "does not exist"
            raise FileNotFoundError(f"the folder of results {wrong}: {folder}")
        for here, below, names in os.walk(folder):
            # A run that goes on in there deletes checkpoints while one looks.
            below[:] = sorted(name for name in below if name != "checkpoints")
            yield from (pathlib.Path(here, name) for name in sorted(names) if name.endswith(".json"))


def _read(path: pathlib.Path) -> Result | None:
    """The checked result, or None if the file is something else."""
    content = stored.load_json(path, remedy="delete it, or run the cell again")
    is_result = path.name == RESULT  # whatever it holds
    if not is_result and (not isinstance(content, dict) or "settings" not in content):
        return None
    lacking = [] if is_result else [name for name in FIGURES if name not in content]
    if lacking:
        print(f"{path}: passed over, it has settings and no {', '.join(lacking)}")
        return None
    try:
        return Result(path, _checked(content), content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _checked(content: dict[str, Any]) -> Settings:
    """The settings of a result that has everything."""
    _expect_names("the result", content, ("settings", *FIGURES))
    given = content["settings"]
    _expect_names("settings", given, Settings._fields)
    # The first results that were collected have no format.
    if content.get("format", stored.FORMAT) != stored.FORMAT:
        raise ValueError(f"format: expected {stored.FORMAT}, got {content['format']}; another version wrote it")
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
    for key in ("steps", "nll_samples", "train_seconds", "evaluation_seconds"):
        _expect_numbers(key, [content[key]], 1)
    for key in ("data", "provenance"):
        if not all(isinstance(content[key][name], str) for name in NESTED[key]):
            raise ValueError(f"{key}: expected texts under {', '.join(NESTED[key])}, got {content[key]}")
    for name in FIGURES:
        _expect_names(name, content[name], Figure._fields)
        for field in Figure._fields:
            _expect_numbers(f"{name}.{field}", content[name][field], settings.seeds)
    _expect_numbers("nll_images", content["nll_images"], 2)
    _expect_curves(content["curves"], settings.seeds)
    return settings


def _expect_curves(curves: dict[str, Any], seeds: int) -> None:
    steps = curves["step"]
    _expect_numbers("curves.step", steps, len(steps) if isinstance(steps, list) and steps else 1)
    for name in CURVES[1:]:
        if not isinstance(curves[name], list) or len(curves[name]) != seeds:
            raise ValueError(f"curves.{name}: expected a curve of each of {seeds} seeds")
        for row in curves[name]:
            _expect_numbers(f"curves.{name}", row, len(steps))


def _expect_names(what: str, content: Any, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in content] if isinstance(content, dict) else list(names)
    if missing:
        raise ValueError(f"{what}: expected also {', '.join(missing)}; run the cell again with this version")


def _expect_numbers(what: str, values: Any, count: int) -> None:
    if not (isinstance(values, list) and len(values) == count and all(map(stored.is_number, values))):
        raise ValueError(f"{what}: expected {count} finite numbers, got {str(values)[:100]}")


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
