"""Programs that take turns, and the ratios of their times within a round."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

import hiwae_jax as hj
from benchmarks.overhead.problem import Objective

Seconds = list[tuple[float, float]]  # CPU and wall-clock seconds of a call, by round


def take_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Seconds]:
    """Time every call in each round, in CPU and wall-clock seconds. Each round begins with another call."""
    names, seconds = list(calls), {name: [] for name in calls}
    for call in calls.values():
        call()
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wall, cpu = time.perf_counter(), time.process_time()
            calls[name]()
            seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return seconds


def quartiles(values: list[float]) -> list[float]:
    """Median, first and third quartile."""
    first, median, third = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return [median, first, third]


def ratios(ours: Seconds, theirs: Seconds, kind: int) -> list[float]:
    """Quartiles of the ratios within rounds, of CPU (0) or wall-clock (1) seconds."""
    return quartiles([a[kind] / b[kind] for a, b in zip(ours, theirs, strict=True)])


def milliseconds(seconds: Seconds) -> dict[str, float]:
    """Medians over rounds, of both clocks."""
    return {
        "cpu_ms": 1e3 * statistics.median(cpu for cpu, _ in seconds),
        "wall_ms": 1e3 * statistics.median(wall for _, wall in seconds),
    }


def compiled(
    objective: Objective, params: Any, batch: Any, *, chunk_size: int | None, draw: Any = None
) -> tuple[Callable[[], Any], dict]:
    """Compile a step: a call without arguments, and the facts that are known without running it."""
    arguments = params, batch, jax.random.key(2)
    at_once = jax.jit(hj.batched_value_and_grad(objective, draw=draw, chunk_size=len(batch))).lower(*arguments)
    began = time.process_time()
    step = hj.batched_value_and_grad(objective, draw=draw, chunk_size=chunk_size)
    program = jax.jit(step).lower(*arguments).compile()
    facts = {
        "compile_seconds": time.process_time() - began,
        "temp_bytes": program.memory_analysis().temp_size_in_bytes,
        "flops": at_once.cost_analysis()["flops"],
    }
    return lambda: jax.block_until_ready(program(*arguments)), facts
