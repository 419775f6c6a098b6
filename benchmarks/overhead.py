"""What the hierarchical bound costs beside the IWLB, where the cost goes, and a PyTorch port beside it.

    python -m benchmarks.overhead                                     # everything; an hour or two on two cores
    python -m benchmarks.overhead --decoders conv --num-samples 5 50 --cores 1
    python -m benchmarks.overhead --smoke                             # tiny, in minutes; figures mean nothing

A step is value and gradient of the mean bound of a batch, without an optimizer, compiled as a user would:
`jax.jit(hj.batched_value_and_grad(bound, draw=bound.draw))`: samples of the whole batch at once, and the rest of the
bound of as many examples at once as it chooses. The networks are the paper's
(`hiwae_jax.nn`): 32 latents, context / hidden units of the proposal's networks 100 / 100 and 450 / 1,920, and an MLP
encoder and decoder (784-200-context, latent-200-200-784, tanh units) or the residual convolutional ones.

Every method is compared with the IWLB of the same K, networks and family of gradients (plain with plain; for "refilled"
the doubly reparameterized one). Programs take turns, one call each in a round, and a ratio is one of two calls of one
round. Columns:

  CPU         CPU seconds over those of the IWLB: median over rounds [quartiles]. All threads count.
  wall        the same of wall-clock seconds.
  FLOPs       the same, as XLA counts them in the program before it is compiled, for the whole batch at once.
  CPU ms      of the step itself.
  temp MiB    temporary memory of the compiled program.
  compile s   CPU seconds of tracing and compiling.

The breakdown times programs that evaluate a part alone, value and gradient at the shapes of a step, in the same rounds:
the encoder, the networks of the proposal (base, conditionals, reverse), and the decoder with the likelihood at all
K x batch samples. The rest is the step less these: noise, densities, weighting, gradient rule, and under "refilled" the
K more forward passes of the decoder. Each part pays for a program of its own, so the rest of small steps is below zero.

The contest is the convolutional H-IWLB at alpha = 1 as a port to PyTorch (`benchmarks.torch_port`), eager, all rows at
once. Evaluated in float64 at the same parameters and noise, it has to give our float32 value to 1e-5 and our plain
gradient to 1e-4, or there is no result; it is timed in float32. Ours are the plain estimator in one program, the same
dispatched chunk by chunk from Python, and all examples at once. "MiB" is the temporary memory of our compiled program,
gradients included, and what PyTorch's forward pass keeps for the backward pass, without gradients. Without PyTorch the
port is left out.

Finished cells are kept in the JSON file; a second call adds what is missing, values of alpha too, and refuses a file of
another machine, version or batch; `--again` begins it anew.
"""

import argparse
import importlib.util
import itertools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import machine
from benchmarks.overhead_tables import AT_ONCE, DISPATCHED, EXACT, ONE_PROGRAM, PLAIN, PORT, REFILLED, draw, table
from experiments import command_line, run_folder

NAME = "benchmarks.overhead"
RESULTS = pathlib.Path(__file__).parent / "results"
FIGURE = pathlib.Path(__file__).parents[1] / "docs" / "overhead.png"


def take_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall-clock seconds of every call in each round; the order turns by one from round to round."""
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


def ratios(ours: list[tuple[float, float]], theirs: list[tuple[float, float]], kind: int) -> list[float]:
    """Quartiles of the ratios within rounds, of CPU (0) or wall-clock (1) seconds."""
    return quartiles([a[kind] / b[kind] for a, b in zip(ours, theirs, strict=True)])


def compiled(
    objective: Any, params: Any, batch: Any, *, chunk_size: int | None, draw: Any = None
) -> tuple[Callable[[], Any], dict]:
    """A step without arguments, and what is known of it without running it."""
    import jax

    import hiwae_jax as hj

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


def measure(sizes: Any, num_samples: int, alphas: list[float], options: argparse.Namespace) -> dict[str, Any]:
    """Methods and parts of one cell."""
    from benchmarks import overhead_problem as problems

    batch = problems.make_batch(options.batch_size)
    methods = [problems.Method(None, gradient) for gradient in (EXACT, PLAIN)]
    for alpha, gradient in itertools.product(alphas, (EXACT, REFILLED, PLAIN)):
        if alpha > 0.0 or gradient != REFILLED:  # under the uniform weighting nothing is refilled
            methods.append(problems.Method(alpha, gradient))
    calls, facts = {}, {}

    def part_name(method: Any, part: str) -> str:
        """Equal where parts are equal: only under the uniform weighting r knows which member it looks at."""
        kind = "IWLB" if method.alpha is None else "H-IWLB 0" if method.alpha == 0.0 else "H-IWLB"
        return f"{part} of {kind}" if part == "proposal networks" else part

    def add(name: str, objective: Any, params: Any, draw: Any = None) -> None:
        calls[name], facts[name] = compiled(objective, params, batch, chunk_size=options.chunk_size, draw=draw)

    for method in methods:
        problem = problems.make_problem(sizes, method, num_samples)
        add(method.name(), problem.bound, problem.params, None if options.no_draw else problem.bound.draw)
        for part, (objective, params) in problem.parts.items():
            if part_name(method, part) not in calls:
                add(part_name(method, part), objective, params)
    seconds = take_turns(calls, options.rounds)

    def of_step(name: str, baseline: str) -> dict[str, Any]:
        return {
            **facts[name],
            "cpu": ratios(seconds[name], seconds[baseline], 0),
            "wall": ratios(seconds[name], seconds[baseline], 1),
            "flops_ratio": facts[name]["flops"] / facts[baseline]["flops"],
            "cpu_ms": 1e3 * statistics.median(cpu for cpu, _ in seconds[name]),
            "wall_ms": 1e3 * statistics.median(wall for _, wall in seconds[name]),
        }

    def of_parts(method: Any) -> dict[str, Any]:
        base, whole = method.baseline().name(), method.name()
        names = {part: part_name(method, part) for part in problems.PARTS}
        steps = {part: of_step(name, base) for part, name in names.items()}
        steps["rest"] = {
            "cpu": quartiles(
                [
                    (step[0] - sum(seconds[name][turn][0] for name in names.values())) / seconds[base][turn][0]
                    for turn, step in enumerate(seconds[whole])
                ]
            ),
            "flops_ratio": (facts[whole]["flops"] - sum(facts[name]["flops"] for name in names.values()))
            / facts[base]["flops"],
        }
        return {part: {key: step[key] for key in ("cpu", "flops_ratio")} for part, step in steps.items()}

    return {
        "nets": sizes.name(),
        "num_samples": num_samples,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "steps": {method.name(): of_step(method.name(), method.baseline().name()) for method in methods},
        "parts": {method.name(): of_parts(method) for method in methods if method.gradient != PLAIN},
    }


def contest(sizes: Any, num_samples: int, options: argparse.Namespace) -> dict[str, Any]:
    """The convolutional H-IWLB at alpha 1 in several ways; raises where the port computes something else."""
    import jax
    import numpy as np
    import torch
    from flax import nnx

    import hiwae_jax as hj
    from benchmarks import overhead_problem as problems
    from benchmarks import torch_port

    torch.set_num_threads(machine.used_cores() or 1)
    problem = problems.make_problem(sizes, problems.Method(1.0, PLAIN), num_samples)
    draw_all = None if options.no_draw else problem.bound.draw
    batch, key = problems.make_batch(options.batch_size), jax.random.key(2)
    arguments = problem.params, batch, key
    dispatched = hj.batched_value_and_grad(problem.bound, draw=draw_all, chunk_size=options.chunk_size, dispatch=True)
    calls, memory = {DISPATCHED: lambda: jax.block_until_ready(dispatched(*arguments))}, {}
    for way, chunk_size in ((ONE_PROGRAM, options.chunk_size), (AT_ONCE, len(batch))):
        calls[way], facts = compiled(problem.bound, problem.params, batch, chunk_size=chunk_size, draw=draw_all)
        memory[way] = facts["temp_bytes"]
    value, gradient = calls[ONE_PROGRAM]()

    numbers = sizes.latent * (1 + num_samples)
    noise = jax.vmap(lambda key: jax.random.normal(key, (numbers,)))(jax.random.split(key, len(batch)))

    def port_in(dtype: Any) -> tuple[Any, Any, Any]:
        cast = lambda leaf: np.asarray(leaf, dtype)
        params = torch_port.to_torch(jax.tree.map(cast, nnx.to_pure_dict(problem.params)))
        return params, torch.tensor(cast(batch)), torch.tensor(cast(noise))

    def flat(tree: Any) -> Any:
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    exact = port_in(np.float64)
    theirs = torch_port.value_and_grad(*exact, num_samples=num_samples)
    wanted, ours = flat(torch_port.gradients(exact[0])), flat(nnx.to_pure_dict(gradient))
    apart = np.linalg.norm(ours - wanted) / np.linalg.norm(wanted)
    if not (abs(theirs - float(value)) <= 1e-5 * abs(theirs) and apart <= 1e-4):
        raise RuntimeError(f"the port gives {theirs}, the library {float(value)}; gradients differ by {apart:.2g}")
    del exact

    port = port_in(np.float32)
    calls[PORT] = lambda: torch_port.value_and_grad(*port, num_samples=num_samples)
    memory[PORT] = torch_port.kept_bytes(*port, num_samples=num_samples)
    seconds = take_turns(calls, options.rounds)
    return {
        "nets": sizes.name(),
        "num_samples": num_samples,
        "batch_size": options.batch_size,
        "torch": torch.__version__,
        "ways": {
            name: {
                "cpu": ratios(seconds[name], seconds[PORT], 0),
                "wall": ratios(seconds[name], seconds[PORT], 1),
                "cpu_ms": 1e3 * statistics.median(cpu for cpu, _ in seconds[name]),
                "wall_ms": 1e3 * statistics.median(wall for _, wall in seconds[name]),
                "bytes": memory.get(name),
            }
            for name in (ONE_PROGRAM, DISPATCHED, AT_ONCE, PORT)
        },
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; `--cores` takes effect here, before JAX is imported and starts its threads."""
    parser = command_line.Parser(NAME, __doc__)
    count, alpha = command_line.whole_number(1), command_line.number(least=0.0)
    parser.add_argument("--decoders", nargs="+", choices=("mlp", "conv"), default=["mlp", "conv"])
    parser.add_argument(
        "--proposals", nargs="+", choices=("small", "large"), default=["small", "large"], help="100/100, 450/1,920"
    )
    parser.add_argument("--num-samples", nargs="+", type=count, default=[1, 2, 5, 10, 20, 50], help="K")
    parser.add_argument("--alpha", nargs="+", type=alpha, default=[0.0, 1.0, 3.0], help="default: 0 1 3")
    parser.add_argument("--batch-size", type=count, default=64, help="default: %(default)s")
    parser.add_argument("--chunk-size", type=count, help="examples at once; default: chosen by the library")
    parser.add_argument("--no-draw", action="store_true", help="the proposal in chunks as well")
    parser.add_argument("--rounds", type=count, default=9, help="default: %(default)s")
    parser.add_argument("--cores", type=count, help="CPU cores to run on; default: all that the process may use")
    parser.add_argument("--no-steps", action="store_true", help="the contest alone")
    parser.add_argument("--no-contest", action="store_true", help="without the PyTorch port")
    parser.add_argument("--again", action="store_true", help="begin the file anew: what it has is lost")
    parser.add_argument("--smoke", action="store_true", help="tiny, into runs/overhead_smoke")
    parser.add_argument("--output", type=pathlib.Path, help="folder; default: benchmarks/results")
    options = parser.parse_args(arguments)
    with command_line.refusals(NAME):
        machine.use_cores(options.cores)
    if options.smoke:
        options.proposals, options.num_samples, options.alpha = ["small"], [2], [1.0]
        options.batch_size, options.rounds = 4, 2
    if options.output is None:
        options.output = pathlib.Path("runs/overhead_smoke") if options.smoke else RESULTS
    return options


def run(options: argparse.Namespace) -> int:
    """Measure what is missing, unless another process does so there."""
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
    return run_folder.work_in(options.output, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    """Write after every cell."""
    import jax

    from benchmarks.overhead_problem import Sizes
    from experiments import report

    began = time.monotonic()
    path = options.output / "overhead.json"
    origin = {**report.provenance(), "used_cores": machine.used_cores()}
    origin |= {"batch_size": options.batch_size, "chunk_size": options.chunk_size, "draw": not options.no_draw}
    figure = FIGURE if options.output.resolve() == RESULTS.resolve() else options.output / FIGURE.name
    with command_line.refusals(NAME):
        command_line.make_folder_of("--output", figure)
        content = machine.begun(path, origin, again=options.again, table=table) or {"cells": {}, "contests": {}}
    content["provenance"] = origin
    widths = {"small": (12, 16), "large": (20, 24)} if options.smoke else {"small": (100, 100), "large": (450, 1_920)}
    with_port = not options.no_contest
    if with_port and importlib.util.find_spec("torch") is None:
        print("torch is not installed: the PyTorch port is left out (pip install torch)")
        with_port = False
    elif with_port and jax.default_backend() != "cpu":
        print("the PyTorch port runs on the CPU only, and JAX does not here: it is left out")
        with_port = False

    def finish(kind: str, name: str, figures: dict[str, Any]) -> None:
        content[kind][name] = figures
        report.write_json(path, content)
        (options.output / "overhead.md").write_text(table(content) + "\n")
        only = {"cells": {}, "contests": {}, "provenance": origin, kind: {name: figures}}
        print("\n".join(line for line in table(only).splitlines() if line.startswith("| ")), flush=True)

    for decoder, proposal in itertools.product(options.decoders, options.proposals):
        sizes = Sizes(decoder, *widths[proposal])
        for K in options.num_samples:
            name = f"{sizes.name()}, K = {K}"
            if not options.no_steps:
                cell = content["cells"].get(name, {"steps": {}, "parts": {}})
                missing = [a for a in options.alpha if not any(f"WLB {a:g} " in step for step in cell["steps"])]
                if missing:
                    found = measure(sizes, K, missing, options)
                    found |= {kind: cell[kind] | found[kind] for kind in ("steps", "parts")}
                    finish("cells", name, found)
            if with_port and decoder == "conv" and name not in content["contests"]:
                finish("contests", name, contest(sizes, K, options))
    if not (content["cells"] or content["contests"]):
        print(f"nothing was measured, and {path} has nothing to draw")
        return command_line.FAILED
    (options.output / "overhead.md").write_text(table(content) + "\n")
    draw(content, figure)
    print(f"{time.monotonic() - began:.0f} s; wrote {path}, the table next to it, and {figure}")
    return command_line.DONE


if __name__ == "__main__":
    sys.exit(run(parse()))
