"""Results of `experiments.vae`: found in folders, and collected in one compact file a data set and architecture.

A collected file has the results of many cells under `cells`. What computed them stands once under `provenance`, and
each cell has the index of its entry there. `history` has remarks on how they were measured.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.shared import compact_json, stored
from experiments.vae import result_files
from experiments.vae.evaluation import FIGURES
from experiments.vae.settings import Settings
from experiments.vae.split_mean import Figure


class Result(NamedTuple):
    """The result of one cell.

    Attributes:
      source: the file that it was read from, for messages.
      settings: what was run.
      content: all of it, see `experiments.vae.command.run`.
    """

    source: str
    settings: Settings
    content: dict[str, Any]


def read(folders: Sequence[pathlib.Path]) -> list[Result]:
    """All results in and below the folders, each once.

    A JSON file without settings or without one of `evaluation.FIGURES` is no result and is passed over. Where it has
    settings, its name is printed.

    Raises:
      FileNotFoundError: a folder does not exist.
      ValueError: a file is no JSON, or lacks something, or two results have the same settings and other numbers.
    """
    results: dict[Settings, Result] = {}
    for path in _json_files(folders):
        for result in _read(path):
            before = results.setdefault(result.settings, result)
            if not _same_figures(before, result):
                raise ValueError(
                    f"{before.source} and {result.source} have the same settings and other numbers (from "
                    f"{_origin(before)} and {_origin(result)}): keep one of them, or name folders with one of them"
                )
    return list(results.values())


def collect(source: Sequence[pathlib.Path], target: pathlib.Path) -> list[pathlib.Path]:
    """Add the results below `source` to the files of `target`; results that are there already stay.

    Returns:
      The files that were written.

    Raises:
      FileNotFoundError, ValueError: as in `read`, also where `target` has other numbers for the same settings.
    """
    target.mkdir(parents=True, exist_ok=True)
    there = {result.settings for result in read([target])}
    by_file: dict[pathlib.Path, list[Result]] = {}
    for result in read([target, *source]):
        by_file.setdefault(target / file_name(result.settings), []).append(result)
    written = []
    for path, results in by_file.items():
        if any(result.settings not in there for result in results):
            history = stored.read_json(path)["history"] if path.exists() else []
            compact_json.write(path, content_of(results, history=history))
            written.append(path)
    return written


def file_name(settings: Settings) -> str:
    """The name of the file that collects results of such settings."""
    return f"{settings.dataset}-{settings.architecture}.json"


def content_of(results: Sequence[Result], *, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The content of a collected file."""
    origins, cells = [], []
    for result in sorted(results, key=lambda result: result.settings.name()):
        origin = {"commit": None, "command": None, **result.content["provenance"]}
        if origin not in origins:
            origins.append(origin)
        cells.append({**result.content, "provenance": origins.index(origin)})
    return {"history": list(history), "provenance": origins, "cells": cells}


def _json_files(folders: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    for folder in folders:
        if not folder.is_dir():
            wrong = "is a file" if folder.exists() else "does not exist"
            raise FileNotFoundError(f"the folder of results {wrong}: {folder}")
        for here, below, names in os.walk(folder):
            # A run that is under way deletes checkpoints, perhaps during this search.
            below[:] = sorted(name for name in below if name != "checkpoints")
            yield from (pathlib.Path(here, name) for name in sorted(names) if name.endswith(".json"))


def _read(path: pathlib.Path) -> Iterator[Result]:
    """The checked results in a file: all cells of a collected one, one of a run, none of any other."""
    content = stored.load_json(path, remedy="delete it, or run the cell again")
    if isinstance(content, dict) and isinstance(content.get("cells"), list) and "provenance" in content:
        for number, cell in enumerate(content["cells"]):
            yield _checked(f"{path}, cell {number}", _with_provenance(cell, content["provenance"]))
        return
    is_result = path.name == result_files.RESULT  # a file of this name is a result, even if it is damaged
    if not is_result and (not isinstance(content, dict) or "settings" not in content):
        return
    lacking = [] if is_result else [name for name in FIGURES if name not in content]
    if lacking:
        print(f"{path}: passed over, it has settings and no {', '.join(lacking)}")
        return
    yield _checked(str(path), content)


def _with_provenance(cell: Any, origins: Any) -> Any:
    """The cell as its own result file had it; anything that is not of this form is left for `checked` to refuse."""
    try:
        return {**cell, "provenance": origins[cell["provenance"]]}
    except (TypeError, KeyError, IndexError):
        return cell


def _checked(source: str, content: Any) -> Result:
    try:
        return Result(source, result_files.checked(content), content)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _same_figures(a: Result, b: Result) -> bool:
    """Whether the results are equal up to rounding: collected numbers have at least seven digits."""
    pairs = [(a.content[name][field], b.content[name][field]) for name in FIGURES for field in Figure._fields]
    return all(np.allclose(x, y, rtol=1e-6, atol=0.0) for x, y in pairs)


def _origin(result: Result) -> str:
    provenance = result.content["provenance"]
    return f"{provenance['device']}, {provenance['date']}"
