"""Time and memory of a training step as the number of samples K grows, on whatever device is there.

    python -m benchmarks.k_scaling                  # all cells; half an hour on two CPU cores. On an accelerator it
                                                    # stops within 8 minutes, and the same command goes on
    python -m benchmarks.k_scaling --cores 1 --output runs/one_core
    python -m benchmarks.k_scaling --smoke          # everything in tiny sizes, in a minute or two; figures mean nothing

A step is the value and the gradient of the mean bound over a batch of 64 examples, without an optimizer. Images are
coin flips from a fixed key and the networks are untrained: neither changes what a step costs. The bounds:

  IWLB            `hj.independent`; K to 10,000. All weightings are equal there, so alpha is not varied.
  H-IWLB          `hj.hierarchical` with the networks of `hiwae_jax.nn`, alpha 0 and 1. Each member has a head of its
                  own, so that parameters grow with K; K from 2 to 100, on accelerators to 500. "refilled" differs from
                  "doubly_reparameterized" for alpha 1 alone.
  H-IWLB offsets  the same with one head for all members and a learned offset [D] for each; K to 10,000 for alpha 0 and
                  to 1,000 for alpha 1, which compares all K x K pairs.

and the ways of running them:

  recommended     `hj.batched_value_and_grad`, which chooses how many examples run at once, with `draw=bound.draw`
                  (on a CPU up to K = 100); on a CPU, from K = 1,000 on, one example and `make_bound(chunk_size=200)`,
                  or 20 where each sample is compared with all members.
  all at once     `jax.value_and_grad` of the vmapped bound.
  sample chunks   on an accelerator, for the least memory: all examples and 1,000 samples of each.

"log evidence" is `hj.make_log_evidence` for one example.

What a cell says:

  ms            a step, median over rounds of calls; compilation and the first call are left out.
  us a sample   that over batch x K.
  GFLOP/s       FLOPs of the decoder's matrix products, counted by hand, over that time: 3 times a forward pass, 4 times
                for "refilled", once for evaluation. What is computed twice to save memory is not counted, nor are the
                encoder and the proposal, so that work beside the decoder counts as lost.
  of attainable the same as a fraction of what this machine reaches in the nine products of the MLP decoder's own
                shapes and nothing else, at the number of rows that is fastest. Those are timed in every round, next to
                the cell, so that a clock that changes or a neighbour who works takes from both. For "conv" in place of
                these the fastest product of square matrices.
  temp MB       temporary memory of the compiled program.

Precisions on an accelerator: "float32" and "tf32" are `jax.default_matmul_precision("float32" | "tensorfloat32")`, and
"bfloat16" is networks of `dtype=bfloat16` with parameters and log-weights in float32 (the precision that JAX calls
"bfloat16" leaves NVIDIA GPUs at tf32). On a CPU there is only float32.

Every cell is written to the JSON file when it is done, the most telling ones first. A second call with the same device,
cores, versions and sizes measures what is missing there, and one with others refuses; `--again` measures all. What the
time limit cut off is listed by name.
"""

import argparse
import os
import pathlib
import re
import statistics
import sys
import time
from typing import Any

from benchmarks import machine
from experiments import command_line, run_folder

NAME = "benchmarks.k_scaling"
RESULTS = pathlib.Path(__file__).parent / "results"
FIGURE = pathlib.Path(__file__).parents[1] / "docs" / "k_scaling.png"
ACCELERATOR_LIMIT = 450.0  # seconds
MOST_ROUNDS = 15


def memory_limit() -> int:
    """Bytes that temporary memory may take: most of what an accelerator lends, or a quarter of the machine's memory."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(0.8 * stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def measure(cell: Any, sizes: Any, reference: Any, *, seconds: float, limit: int) -> dict[str, Any]:
    """One cell's figures, or why there are none."""
    from benchmarks import k_scaling_cells as cells
    from benchmarks import roofline

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
        # A step that takes and returns much memory leaves the first calls after it to fetch their own anew.
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


def run(options: argparse.Namespace) -> int:
    """Measure what is missing, unless another process does so there."""
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
    return run_folder.work_in(options.output, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    """Write after every cell."""
    import jax

    from benchmarks import k_scaling_cells as cells
    from benchmarks import k_scaling_figure, roofline
    from experiments import report

    began = time.monotonic()
    accelerator = jax.default_backend() != "cpu"
    limit = ACCELERATOR_LIMIT if options.time_limit is None and accelerator else options.time_limit
    seconds = 0.02 if options.smoke else 1.0 if accelerator else 3.0
    sizes = cells.Sizes(4, 20, 16, 3, 5, 12) if options.smoke else cells.Sizes()
    bytes_limit = memory_limit() if options.memory_limit is None else int(options.memory_limit * 1e9)
    rows = (1_000, 10_000, 100_000, 500_000) if accelerator else (300, 600, 1_000, 2_000, 6_400)
    squares = (2_048, 4_096, 8_192) if accelerator else (512, 1_024, 2_048, 3_072)
    if options.smoke:
        rows, squares = (8, 16), (16, 32)

    device = jax.devices()[0]
    origin = {
        **report.provenance(),
        "used_cores": machine.used_cores(),
        "backend": device.client.platform_version.splitlines()[0],
        "x64": jax.config.jax_enable_x64,
        "sizes": sizes._asdict(),
        "smoke": options.smoke,
    }
    slug = re.sub(r"[^a-z0-9]+", "-", device.device_kind.lower()).strip("-")
    path = options.output / f"k_scaling_{slug}.json"
    grid = cells.grid(accelerator=accelerator, smoke=options.smoke)
    wanted = [cell for cell in grid if all(part in cell.name() for part in options.only)]
    standard = options.output.resolve() == RESULTS.resolve()
    figure = FIGURE if standard else options.output / FIGURE.name
    with command_line.refusals(NAME):
        if not wanted:
            raise ValueError(f"argument --only: no cell's name contains all of {', '.join(map(repr, options.only))}")
        command_line.make_folder_of("--output", figure)
        content = machine.begun(path, origin, again=options.again, table=k_scaling_figure.table)
        for file in set(options.output.glob("k_scaling_*.json")) - {path}:  # which come into the figure
            machine.measured(file, k_scaling_figure.table)
    content = content or {"cells": {}, "rates": {}}
    content["provenance"] = origin
    content["memory_limit_bytes"] = bytes_limit

    def write() -> None:
        content["not_run"] = [cell.name() for cell in grid if cell.name() not in content["cells"]]
        report.write_json(path, content)
        path.with_suffix(".md").write_text(k_scaling_figure.table(content) + "\n")

    def is_left(cell: Any) -> bool:
        found = content["cells"].get(cell.name(), {"failed": "not run"})
        return "failed" in found or ("skipped" in found and found["temp_bytes"] <= bytes_limit)

    left = [cell for cell in wanted if is_left(cell)]
    references = {}

    def is_late() -> bool:
        return limit is not None and time.monotonic() - began > limit

    for cell in list(left):
        if cell.precision not in references and not is_late():
            rates, references[cell.precision] = roofline.measure(
                sizes.widths(), cell.precision, rows=rows, sizes=squares, seconds=seconds / 4
            )
            content["rates"][cell.precision] = rates._asdict()
            print(k_scaling_figure.rates_line(cell.precision, rates._asdict()), flush=True)
        if is_late():
            print(f"the time limit of {limit:g} s is reached; the same command goes on. {len(left)} cells are left:")
            print("\n".join(f"  {cell.name()}" for cell in left))
            break
        try:
            figures = measure(cell, sizes, references[cell.precision][cell.decoder], seconds=seconds, limit=bytes_limit)
        except jax.errors.JaxRuntimeError as error:  # out of memory, most likely: the other cells may well run
            figures = {**cell._asdict(), "configuration": cell.configuration(), "failed": str(error).splitlines()[0]}
        content["cells"][cell.name()] = figures
        left.remove(cell)
        write()
        print(k_scaling_figure.line(figures), flush=True)
    write()
    files = sorted(options.output.glob("k_scaling_*.json"))
    k_scaling_figure.draw([machine.measured(file, k_scaling_figure.table) for file in files], figure)
    print(f"{time.monotonic() - began:.0f} s; wrote {path}, the table next to it, and {figure}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_line.Parser(NAME, __doc__)
    parser.add_argument(
        "--cores", type=command_line.whole_number(1), help="CPU cores to run on; default: all that the process may use"
    )
    parser.add_argument(
        "--time-limit",
        type=command_line.number(least=0.0),
        help="seconds; default: 450 on an accelerator, none on a CPU",
    )
    parser.add_argument(
        "--memory-limit", type=command_line.number(above=0.0), help="GB of temporary memory that a cell may ask for"
    )
    parser.add_argument("--only", nargs="+", default=[], help="cells whose names contain all of these")
    parser.add_argument("--again", action="store_true", help="begin the file anew: what it has is lost")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, into runs/k_scaling_smoke")
    parser.add_argument("--output", type=pathlib.Path, help="folder; default: benchmarks/results")
    options = parser.parse_args(arguments)
    with command_line.refusals(NAME):
        machine.use_cores(options.cores)
    if options.output is None:
        options.output = pathlib.Path("runs/k_scaling_smoke") if options.smoke else RESULTS
    return options


if __name__ == "__main__":
    sys.exit(run(parse()))
