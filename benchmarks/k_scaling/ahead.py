"""Compile cells in processes of their own, before they are measured.

The compiler of an accelerator takes seconds for a program, and threads of one process wait for each other there. So
each process compiles its part of the cells into JAX's compilation cache, from which the measuring process reads them. A
program that is not in the cache, since its process failed or the time was over, is compiled by the measuring process.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax

from benchmarks.k_scaling import cells, effort
from benchmarks.k_scaling.cells import Cell
from benchmarks.shared import roofline
from experiments.shared import command_line

CACHE = pathlib.Path("runs/compiled")
TICK = 0.1  # seconds between two looks at the processes


def use_cache() -> None:
    """Keep every compiled program, in the folder that JAX was told or else in `CACHE`."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(CACHE.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def work(batch: list[Cell], *, first: bool) -> list[str]:
    """The names of what is to be compiled: of the first batch also the rates of each precision."""
    rates = [_rates(precision) for precision in dict.fromkeys(cell.precision for cell in batch)] if first else []
    return [*rates, *(cell.name() for cell in batch)]


def _rates(precision: str) -> str:
    return f"rates, {precision}"


def compile_all(names: list[str], options: argparse.Namespace, programs: int, deadline: float | None) -> None:
    """Compile what has these names side by side. What is not done at the deadline, or at SIGTERM, is given up."""
    smoke = ["--smoke"] if options.smoke else []
    command = [sys.executable, "-m", "benchmarks.k_scaling", *smoke, "--output", str(options.output), "--compile"]
    # Each takes the accelerator's memory as it needs it, and not three quarters of it at once.
    changed = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    changed["JAX_COMPILATION_CACHE_DIR"] = str(jax.config.jax_compilation_cache_dir)
    parts = [part for i in range(programs) if (part := names[i::programs])]
    children: list[subprocess.Popen[bytes]] = []
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        children += [subprocess.Popen([*command, *part], env={**os.environ, **changed}) for part in parts]
        while any(child.poll() is None for child in children):
            if deadline is not None and time.monotonic() > deadline:
                return
            time.sleep(TICK)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
        signal.signal(signal.SIGTERM, before)


def compile_here(options: argparse.Namespace) -> int:
    """Compile what the command line names."""
    use_cache()
    accelerator = jax.default_backend() != "cpu"
    chosen = effort.effort(accelerator=accelerator, smoke=options.smoke)
    for precision in cells.PRECISIONS:
        if _rates(precision) in options.compile:
            # Each program also runs a few times, which takes less time than it takes to compile.
            roofline.measure(chosen.sizes.widths(), precision, rows=chosen.rows, sizes=chosen.squares, seconds=0.0)
    for cell in cells.grid(accelerator=accelerator, smoke=options.smoke):
        if cell.name() in options.compile:
            try:
                cells.build(cell, chosen.sizes)
            except jax.errors.JaxRuntimeError as error:  # the measuring process will meet it too, and write it down
                print(f"{cell.name()}: {str(error).splitlines()[0]}", file=sys.stderr)
    return command_line.DONE
