"""The cores that a benchmark runs on, and the file in which its measurements go on."""

import json
import os
import pathlib
from typing import Any


def use_cores(cores: int | None) -> None:
    """Keep this process on so many cores, None for all; before JAX is imported and starts its threads."""
    if cores is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("--cores: this system cannot set the cores of a process")
    usable = sorted(os.sched_getaffinity(0))
    if not 1 <= cores <= len(usable):
        raise SystemExit(f"--cores: expected 1 to {len(usable)}, which this process may use, got {cores}")
    os.sched_setaffinity(0, usable[:cores])


def used_cores() -> int | None:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def begun(path: pathlib.Path, origin: dict[str, Any], *, again: bool) -> dict[str, Any]:
    """The content of a file that is to be continued, empty if there is none or all is measured `again`.

    Raises:
      SystemExit: if the file's provenance is not `origin`, the date aside: it is not to be lost nor mixed.
    """
    if again or not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    other = [key for key in origin if key != "date" and content["provenance"].get(key) != origin[key]]
    if other:
        raise SystemExit(
            f"{path} was measured with another {', '.join(other)}: --output chooses a folder of its own for this run, "
            "--again replaces the file"
        )
    return content
