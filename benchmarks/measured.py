"""What the numbers in the text of pages are computed from: functions that read the result files.

The expressions in the comments `<!-- numbers` call them (`benchmarks.numbers`). `value` reads any entry of a file. The
others are short for what several pages name. A new one is a function in `FUNCTIONS`.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"


@functools.cache
def content(file: str) -> Any:
    """A result file, by its path below `results/`.

    Raises:
      ValueError: there is none.
    """
    path = RESULTS / file
    if not path.exists():
        raise ValueError(f"results/{file} does not exist")
    return json.loads(path.read_text())


def value(file: str, *path: str | int | dict[str, Any]) -> Any:
    """An entry of a result file: names of entries, places in a list, or a dict that one cell of a list agrees with.

    Raises:
      ValueError: there is no such file, entry, place or cell, or several such cells.
    """
    found = content(file)
    for step in path:
        if isinstance(step, dict):
            cells = found.values() if isinstance(found, dict) else found
            chosen = [cell for cell in cells if all(cell.get(name) == wanted for name, wanted in step.items())]
            if len(chosen) != 1:
                raise ValueError(f"results/{file}: expected one cell with {step}, got {len(chosen)}")
            found = chosen[0]
            continue
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            there = list(found) if isinstance(found, dict) else f"a list of {len(found)}"
            raise ValueError(f"results/{file}: there is no {step!r} in {there}") from None
    return found


def peers(name: str, K: int, run: str = "peers.json") -> float:
    """CPU time of a step of a contestant of `benchmarks.peers` over that of plain JAX, the median over rounds."""
    ratio: float = value(run, "cells", {"num_samples": K}, "contestants", name, "cpu_ratio", 1)
    return ratio


def span(values: Iterable[float]) -> tuple[float, float]:
    """The smallest and the largest; in an expression, `*span(...)` stands for two numbers."""
    listed = list(values)
    return min(listed), max(listed)


FUNCTIONS: dict[str, Callable[..., Any]] = {function.__name__: function for function in (value, span, peers)}
