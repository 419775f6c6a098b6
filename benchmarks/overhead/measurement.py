"""One cell of `benchmarks.overhead`: steps and their parts beside the IWLB."""

import argparse
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.overhead import problem as problems
from benchmarks.overhead import timing
from benchmarks.overhead.problem import Method, Sizes
from benchmarks.overhead.tables import EXACT, PLAIN, REFILLED
from benchmarks.overhead.timing import Seconds


class Programs(NamedTuple):
    """The programs of a cell by name, and what is known of them without running them."""

    calls: dict[str, Callable[[], Any]]
    facts: dict[str, dict[str, float]]


def methods_of(alphas: Sequence[float]) -> list[Method]:
    """The IWLB and the H-IWLB, with every gradient that they have."""
    methods = [Method(None, gradient) for gradient in (EXACT, PLAIN)]
    for alpha, gradient in itertools.product(alphas, (EXACT, REFILLED, PLAIN)):
        if alpha > 0.0 or gradient != REFILLED:  # under the uniform weighting nothing is refilled
            methods.append(Method(alpha, gradient))
    return methods


def part_name(method: Method, part: str) -> str:
    """A name that is equal where parts are equal: r knows its member under the uniform weighting alone."""
    kind = "IWLB" if method.alpha is None else "H-IWLB 0" if method.alpha == 0.0 else "H-IWLB"
    return f"{part} of {kind}" if part == "proposal networks" else part


def compile_all(sizes: Sizes, num_samples: int, methods: Sequence[Method], options: argparse.Namespace) -> Programs:
    """The step of every method, and each of their parts once."""
    batch = problems.make_batch(options.batch_size)
    calls, facts = {}, {}

    def add(name: str, objective: Any, params: Any, draw: Any = None) -> None:
        calls[name], facts[name] = timing.compiled(objective, params, batch, chunk_size=options.chunk_size, draw=draw)

    for method in methods:
        problem = problems.make_problem(sizes, method, num_samples)
        add(method.name(), problem.bound, problem.params, None if options.no_draw else problem.bound.draw)
        for part, (objective, params) in problem.parts.items():
            if part_name(method, part) not in calls:
                add(part_name(method, part), objective, params)
    return Programs(calls, facts)


def measure(sizes: Sizes, num_samples: int, alphas: list[float], options: argparse.Namespace) -> dict[str, Any]:
    """Methods and parts of one cell."""
    methods = methods_of(alphas)
    programs = compile_all(sizes, num_samples, methods, options)
    seconds = timing.take_turns(programs.calls, options.rounds)
    return {
        "nets": sizes.name(),
        "num_samples": num_samples,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "steps": {
            method.name(): of_step(method.name(), method.baseline().name(), seconds, programs.facts)
            for method in methods
        },
        "parts": {
            method.name(): of_parts(method, seconds, programs.facts) for method in methods if method.gradient != PLAIN
        },
    }


def of_step(
    name: str, baseline: str, seconds: dict[str, Seconds], facts: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """What a program costs, by itself and over its baseline."""
    return {
        **facts[name],
        "cpu": timing.ratios(seconds[name], seconds[baseline], 0),
        "wall": timing.ratios(seconds[name], seconds[baseline], 1),
        "flops_ratio": facts[name]["flops"] / facts[baseline]["flops"],
        **timing.milliseconds(seconds[name]),
    }


def of_parts(method: Method, seconds: dict[str, Seconds], facts: dict[str, dict[str, float]]) -> dict[str, Any]:
    """CPU time and FLOPs of each part over the whole step of the baseline, and what is left of the method's step."""
    base, whole = method.baseline().name(), method.name()
    names = {part: part_name(method, part) for part in problems.PARTS}
    steps = {part: of_step(name, base, seconds, facts) for part, name in names.items()}
    rest = [
        (step[0] - sum(seconds[name][turn][0] for name in names.values())) / seconds[base][turn][0]
        for turn, step in enumerate(seconds[whole])
    ]
    rest_flops = facts[whole]["flops"] - sum(facts[name]["flops"] for name in names.values())
    steps["rest"] = {"cpu": timing.quartiles(rest), "flops_ratio": rest_flops / facts[base]["flops"]}
    return {part: {key: step[key] for key in ("cpu", "flops_ratio")} for part, step in steps.items()}
