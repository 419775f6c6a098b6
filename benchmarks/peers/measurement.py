"""Checks that the contestants of `benchmarks.peers` compute the same, and measures their time and memory."""

import ctypes
import math
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.peers.contestants import PEERS, REFERENCE, make
from benchmarks.peers.problem import Contestant, Problem, expected

LOSS_TOLERANCE = 1e-5  # relative
GRADIENT_TOLERANCE = 1e-3  # relative, in the norm of all parameters of the encoder, and of the decoder
QUARTILES = (0.25, 0.5, 0.75)


class Timed(NamedTuple):
    """Seconds a step, [rounds] for each contestant."""

    cpu: dict[str, list[float]]
    wall: dict[str, list[float]]
    steps_per_round: dict[str, int]


def deviations(name: str, problem: Problem, contestant: Contestant) -> dict[str, float]:
    """Relative differences from what is expected with the contestant's noise; an AssertionError if one is too large."""
    found = contestant.evaluate()
    loss, gradient = expected(problem, found.noise, PEERS[name].rule)
    result = {"loss": abs(found.loss - loss) / abs(loss)}
    for part in ("encoder", "decoder"):
        flat, other = (_flat(tree[part]) for tree in (gradient, found.gradient))
        result[part] = float(np.linalg.norm(other - flat) / np.linalg.norm(flat))
    for what, value in result.items():
        limit = LOSS_TOLERANCE if what == "loss" else GRADIENT_TOLERANCE
        if not value <= limit:
            kind = "" if what == "loss" else " gradient"
            raise AssertionError(f"{name}, K = {problem.num_samples}: {what}{kind} is off by {value:.2g} > {limit:g}")
    return result


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def _calls(contestant: Contestant, least_seconds: float) -> int:
    """Warm up, and find how many calls take as long as a round should."""
    contestant.advance(1)
    calls = 1
    while True:
        began = time.perf_counter()
        contestant.advance(calls)
        seconds = time.perf_counter() - began
        if seconds >= 0.3 * least_seconds:
            return max(1, math.ceil(calls * least_seconds / seconds))
        calls *= 4


def interleaved(contestants: dict[str, Contestant], *, rounds: int, least_seconds: float) -> Timed:
    """Time every contestant once in every round, in a new random order."""
    calls = {name: _calls(contestant, least_seconds) for name, contestant in contestants.items()}
    steps = {name: calls[name] * contestant.steps_per_call for name, contestant in contestants.items()}
    cpu, wall = ({name: [] for name in contestants} for _ in range(2))
    generator = np.random.default_rng(0)
    for _ in range(rounds):
        for name in generator.permutation(list(contestants)).tolist():
            began = time.process_time(), time.perf_counter()
            contestants[name].advance(calls[name])
            cpu[name].append((time.process_time() - began[0]) / steps[name])
            wall[name].append((time.perf_counter() - began[1]) / steps[name])
    return Timed(cpu, wall, steps)


def run_cell(problem: Problem, names: list[str], *, rounds: int, least_seconds: float) -> dict[str, Any]:
    """All figures at one K; every contestant is checked before any is timed."""
    contestants, differences = {}, {}
    for name in names:
        contestants[name] = make(name, problem)
        differences[name] = deviations(name, problem, contestants[name])
    timed = interleaved(contestants, rounds=rounds, least_seconds=least_seconds)
    rows = {}
    for name, contestant in contestants.items():
        rows[name] = {
            "title": PEERS[name].title,
            "steps_per_round": timed.steps_per_round[name],
            "temp_bytes": contestant.temp_bytes,
            "relative_difference": differences[name],
        }
        for clock in ("cpu", "wall"):
            seconds = getattr(timed, clock)
            ratios = np.divide(seconds[name], seconds[REFERENCE])
            rows[name][f"{clock}_milliseconds"] = 1e3 * float(np.median(seconds[name]))
            rows[name][f"{clock}_ratio"] = np.quantile(ratios, QUARTILES).tolist()
    return {"num_samples": problem.num_samples, "contestants": rows}


def peak_bytes(name: str, problem: Problem) -> int:
    """The resident memory that a call takes at its peak, beyond what the process has between calls.

    The first call compiles and does not count. On Linux with glibc, which keep such a mark and give freed memory back.
    """
    contestant = make(name, problem)
    contestant.advance(1)
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the peak that the system records
    before = _resident("VmRSS")
    contestant.advance(2)
    return _resident("VmHWM") - before


def _resident(kind: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))
