"""What `hj.batched_value_and_grad` adds to `optax.microbatch`: the same step with each, side by side.

    python -m benchmarks.microbatch                         # some minutes on one core
    python -m benchmarks.microbatch --problems mlp --rounds 15

Both evaluate the value and the gradient of the mean bound of 64 examples in chunks, in a loop inside of one program,
and add up the chunks. With equal keys they give equal numbers, which is checked before anything is timed. The bounds
are the IWLB and the H-IWLB with alpha = 1, with the networks of `benchmarks.overhead` and the DReG gradient:

  optax, size M    `optax.microbatch` of `jax.value_and_grad` of the vmapped bound, M examples at once. M = 64 has no
                   loop. The size has to divide the batch.
  ours, no draw    `hj.batched_value_and_grad(bound)`. It chooses the size, and fills up the last chunk if the size does
                   not divide the batch.
  ours             `hj.batched_value_and_grad(bound, draw=bound.draw)`. What is drawn, and the networks of the proposal,
                   are evaluated and differentiated once for the batch.

In a round all programs run one after another, and each round begins with another one. The table has the CPU time over
that of the whole batch at once, as medians [quartiles] over rounds, and the temporary memory in MiB. For optax it shows
the size that is fastest among --sizes, which a user would have to search for.
"""

import pathlib
import statistics
from typing import Any

from experiments.shared import command_line, compact_json, run_folder
from experiments.shared.markdown import table as markdown
from experiments.shared.provenance import provenance

NAME = "benchmarks.microbatch"
BATCH_SIZE = 64
PROBLEMS = {"mlp": (100, 100), "conv": (450, 1_920)}  # sizes of the context and of the proposal's hidden layers
OURS, WITHOUT_DRAW = "ours", "ours, no draw"
TOLERANCE = 1e-4  # of gradients, over their norm


def main(arguments: list[str] | None = None) -> int:
    """Time the steps, and print and write the table."""
    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(1)
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--num-samples", nargs="+", type=count, default=[5, 50], help="K; default: 5 50")
    parser.add_argument("--sizes", nargs="+", type=count, default=[1, 2, 4, 8, 16, 32], help="of optax's chunks")
    parser.add_argument("--rounds", type=count, default=7, help="default: %(default)s")
    parser.add_argument("--cores", type=count, default=1, help="CPU cores to run on; default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/microbatch"))
    options = parser.parse_args(arguments)
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
        if odd := [size for size in options.sizes if BATCH_SIZE % size]:
            raise ValueError(f"--sizes: expected divisors of the batch of {BATCH_SIZE}, got {odd}")
    return run_folder.work_in(options.output, lambda: _run(options))


def _run(options: Any) -> None:
    from benchmarks.shared import cores

    cores.use_cores(options.cores)
    settings = {name: getattr(options, name) for name in ("rounds", "sizes", "cores")}
    content: dict[str, Any] = {"history": [], "provenance": provenance(), "settings": settings, "cells": []}
    for decoder in options.problems:
        for K in options.num_samples:
            for alpha in (None, 1.0):
                content["cells"].append(_cell(decoder, K, alpha, options))
                print(_row(content["cells"][-1]), flush=True)
    compact_json.write(options.output / "microbatch.json", content)
    (options.output / "microbatch.md").write_text(table(content) + "\n")
    print(f"\n{table(content)}\n\ntable and JSON are in {options.output}/")


def _cell(decoder: str, K: int, alpha: float | None, options: Any) -> dict[str, Any]:
    """The times and the memory of all steps of one bound."""
    import jax

    from benchmarks.overhead import problem as problems
    from benchmarks.overhead import timing

    sizes = problems.Sizes(decoder, *PROBLEMS[decoder])
    problem = problems.make_problem(sizes, problems.Method(alpha, "doubly_reparameterized"), K)
    steps = make_steps(problem.bound, options.sizes)
    arguments = problem.params, problems.make_batch(BATCH_SIZE), jax.random.key(2)
    programs = {name: jax.jit(step).lower(*arguments).compile() for name, step in steps.items()}
    _require_agreement({name: program(*arguments) for name, program in programs.items()})
    calls = {name: _call(program, arguments) for name, program in programs.items()}
    seconds = timing.take_turns(calls, options.rounds)
    whole = seconds[title(BATCH_SIZE)]
    return {
        "nets": sizes.name(),
        "num_samples": K,
        "alpha": alpha,
        "whole_ms": 1e3 * statistics.median(cpu for cpu, _ in whole),
        "steps": {
            name: {
                "cpu": timing.ratios(seconds[name], whole, 0),
                "temp_mib": program.memory_analysis().temp_size_in_bytes / 2**20,
            }
            for name, program in programs.items()
        },
    }


def title(size: int) -> str:
    """The name of the step with optax and chunks of this size."""
    return f"optax, size {size}"


def make_steps(bound: Any, sizes: list[int]) -> dict[str, Any]:
    """Each a function `(params, batch, key) -> (mean, gradient)`."""
    import jax
    import jax.numpy as jnp
    import optax

    import hiwae_jax as hj
    from hiwae_jax._random_streams import example_keys

    def of_chunk(params, batch, keys):
        def mean(params):
            return jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(params, batch, keys))

        return jax.value_and_grad(mean)(params)

    def with_optax(size):
        step = optax.microbatch(of_chunk, (1, 2), size, optax.microbatching.AccumulationType.MEAN)
        return lambda params, batch, key: step(params, batch, example_keys(key, len(batch)))

    steps = {title(size): with_optax(size) for size in sizes if size < BATCH_SIZE}
    steps[title(BATCH_SIZE)] = lambda params, batch, key: of_chunk(params, batch, example_keys(key, len(batch)))
    steps[WITHOUT_DRAW] = hj.batched_value_and_grad(bound)
    steps[OURS] = hj.batched_value_and_grad(bound, draw=bound.draw)
    return steps


def _require_agreement(results: dict[str, Any]) -> None:
    """Raise unless all steps give the same value and gradient."""
    import jax
    import numpy as np
    import optax

    value, gradient = results[title(BATCH_SIZE)]
    norm = float(optax.tree.norm(gradient))
    for name, (found, of_params) in results.items():
        apart = float(optax.tree.norm(jax.tree.map(lambda a, b: a - b, of_params, gradient))) / norm
        if not (np.isclose(found, value, rtol=1e-5) and apart < TOLERANCE):
            raise AssertionError(
                f"{name}: expected the value {value} and its gradient, got {found} and a gradient {apart:.1e} away"
            )


def _call(program: Any, arguments: Any) -> Any:
    import jax

    return lambda: jax.block_until_ready(program(*arguments))


def table(content: dict[str, Any]) -> str:
    """Markdown, a row for each bound."""
    header = ["bound", "whole batch, ms", "optax, fastest size", "ours, no draw", "ours", "MiB: whole / optax / ours"]
    return markdown(header, [_cells_of(cell) for cell in content["cells"]])


def fastest(cell: dict[str, Any]) -> str:
    """The name of the step with optax that takes the least time, among those that have a loop."""
    loops = [name for name in cell["steps"] if name.startswith("optax") and name != title(BATCH_SIZE)]
    return min(loops, key=lambda name: cell["steps"][name]["cpu"][0])


def _cells_of(cell: dict[str, Any]) -> list[str]:
    steps, best = cell["steps"], fastest(cell)
    bound = "IWLB" if cell["alpha"] is None else f"H-IWLB, alpha {cell['alpha']:g}"
    memory = " / ".join(f"{steps[name]['temp_mib']:.3g}" for name in (title(BATCH_SIZE), best, OURS))
    return [
        f"{bound}, {cell['nets']}, K = {cell['num_samples']}",
        f"{cell['whole_ms']:.3g}",
        f"{_ratio(steps[best])} ({best.removeprefix('optax, size ')})",
        _ratio(steps[WITHOUT_DRAW]),
        _ratio(steps[OURS]),
        memory,
    ]


def _ratio(step: dict[str, Any]) -> str:
    median, first, third = step["cpu"]
    return f"{median:.2f} [{first:.2f}, {third:.2f}]"


def _row(cell: dict[str, Any]) -> str:
    return f"| {' | '.join(_cells_of(cell))} |"


if __name__ == "__main__":
    raise SystemExit(main())
