"""The cores that a benchmark runs on, and the file in which its measurements go on."""

import os
import pathlib
from collections.abc import Callable
from typing import Any


def use_cores(cores: int | None) -> None:
    """Keep this process on so many cores, None for all; before JAX is imported and starts its threads.

    Raises:
      ValueError: the process may not use so many, or the system cannot set them.
    """
    if cores is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("--cores: this system cannot set the cores of a process")
    usable = sorted(os.sched_getaffinity(0))
    if not 1 <= cores <= len(usable):
        raise ValueError(f"--cores: expected 1 to {len(usable)}, which this process may use, got {cores}")
    os.sched_setaffinity(0, usable[:cores])


def used_cores() -> int | None:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def begun(
    path: pathlib.Path, origin: dict[str, Any], *, again: bool, table: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    """The content of a file that is to be continued, empty if there is none or all is measured `again`.

    Raises:
      ValueError: the file's provenance is not `origin`, the date aside: it is not to be lost nor mixed; or it is
        damaged, so that its `table` cannot be made.
    """
    if again or not path.exists():
        return {}
    content = measured(path, table)
    other = [key for key in origin if key != "date" and content["provenance"].get(key) != origin[key]]
    if other:
        raise ValueError(
            f"{path} was measured with another {', '.join(other)}: --output chooses a folder of its own for this run, "
            "--again replaces the file"
        )
    return content


def measured(path: pathlib.Path, table: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """What an earlier call measured.

    Raises:
      ValueError: the file is damaged: it is no JSON, or lacks what its `table` shows.
    """
    from experiments import stored  # imports NumPy, which reads the number of cores

    remedy = "--again, or deleting it, measures anew"
    content = stored.read_json(path, remedy=remedy)
    try:
        if not isinstance(content["provenance"], dict):
            raise TypeError("provenance is no object")
        table(content)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: lacks what its table shows ({error!r}); {remedy}") from error
    return content
