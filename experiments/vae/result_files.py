"""The result file of a cell: what it must hold, and to which cell it belongs."""

import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.shared import stored
from experiments.vae import images
from experiments.vae.evaluation import FIGURES
from experiments.vae.models import alpha_of
from experiments.vae.settings import LATER, Settings, from_json
from experiments.vae.split_mean import Figure
from experiments.vae.training import CURVES

RESULT = "result.json"  # in the folder of a cell
KEYS = ("steps", "nll_samples", "nll_images", "train_seconds", "evaluation_seconds", "curves", "data", "provenance")
NESTED = {"data": ("name", "checksum"), "provenance": ("jax", "device", "processor", "date"), "curves": CURVES}


def read_of_cell(path: pathlib.Path, settings: Settings, data: images.AnyDataset) -> dict[str, Any]:
    """The result of this cell on this data, as `command.run` wrote it.

    Raises:
      UnusableError: it is damaged, or of other settings, data, images or of another version.
    """
    content = stored.read_json(path)
    try:
        found = checked(content)
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


def checked(content: dict[str, Any]) -> Settings:
    """The settings of a result.

    Raises:
      ValueError: it lacks something, or has something of another kind than `vae` writes.
    """
    _expect_names("the result", content, ("settings", *FIGURES))
    given = content["settings"]
    _expect_names("settings", given, [name for name in Settings._fields if name not in LATER])
    # The oldest collected results have no format.
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
