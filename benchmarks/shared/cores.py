"""The CPU cores that a benchmark runs on.

This module imports nothing that starts threads: libraries size their thread pools by the cores that they find when they
are imported, so a benchmark chooses its cores first.
"""

import os


def use_cores(cores: int | None) -> None:
    """Keep this process on so many cores; None is all of them. Call it before JAX is imported.

    Raises:
      ValueError: the process may not use so many cores, or the system cannot set them.
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
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
