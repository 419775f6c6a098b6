"""Time and memory of one cell of `benchmarks.k_scaling`."""

import os
import statistics
import time
from typing import Any

import jax

from benchmarks.k_scaling import cells
from benchmarks.k_scaling.cells import Cell, Sizes
from benchmarks.shared import roofline
from benchmarks.shared.roofline import Timed

MOST_ROUNDS = 15


def memory_limit() -> int:
    """Bytes that temporary memory may take: most of what an accelerator lends, or a quarter of the machine's memory."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(0.8 * stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def measure(cell: Cell, sizes: Sizes, reference: Timed, *, seconds: float, limit: int) -> dict[str, Any]:
    """The figures of one cell, or the reason why there are none."""
    began = time.monotonic()
    built = cells.build(cell, sizes)
    result = {**cell._asdict(), "configuration": cell.configuration(), "chunks": built.chunks}
    result |= {"samples": built.samples, "flops": built.flops, "temp_bytes": built.temp_bytes}
    result["compile_seconds"] = time.monotonic() - began
    if built.temp_bytes > limit:
        needs = f"needs {built.temp_bytes / 1e9:.1f} GB of temporary memory, and the limit is {limit / 1e9:.1f} GB"
        return {**result, "skipped": needs}
    first = roofline.wait(built.call, built.arguments, 1)
    began = time.monotonic()
    round_seconds = seconds / 10
    least = 3 if first < 2 * seconds else 1
    calls = 1 if first > 2 * seconds else roofline.calls_in(built.call, built.arguments, round_seconds)
    roofline.wait(reference.program, reference.arguments, 2)
    reference_calls = roofline.calls_in(reference.program, reference.arguments, round_seconds)
    times, rates = [], []
    while len(times) < least or (len(times) < MOST_ROUNDS and time.monotonic() - began < seconds):
        # After a step that returned much memory to the system, the first calls have to fetch theirs again. They are not
        # timed.
        roofline.wait(reference.program, reference.arguments, 2)
        rates.append(reference.flops / roofline.wait(reference.program, reference.arguments, reference_calls))
        times.append(roofline.wait(built.call, built.arguments, calls))
    step = statistics.median(times)
    return {
        **result,
        "milliseconds": 1e3 * step,
        "milliseconds_best": 1e3 * min(times),
        "rounds": len(times),
        "calls": calls,
        "microseconds_per_sample": 1e6 * step / built.samples,
        "samples_per_second": built.samples / step,
        "flops_per_second": built.flops / step,
        "attainable": statistics.median(rates),
        "fraction": statistics.median(built.flops / t / rate for t, rate in zip(times, rates, strict=True)),
    }
