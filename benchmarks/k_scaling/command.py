"""Measure time and memory of a training step as the number of samples K grows, on the device that is there.

    python -m benchmarks.k_scaling                  # all cells; half an hour on two CPU cores. On an accelerator it
                                                    # stops within 8 minutes, and the same command goes on
    python -m benchmarks.k_scaling --cores 1 --output runs/one_core
    python -m benchmarks.k_scaling --smoke          # everything in tiny sizes, in a minute or two; figures mean nothing

A step is the value and the gradient of the mean bound over a batch of 64 examples, without an optimizer. Images are
coin flips from a fixed key, and the networks are untrained. Neither changes the cost of a step. The bounds are:

  IWLB            `hj.independent`; K to 10,000. All weightings are equal there, so alpha is not varied.
  H-IWLB          `hj.hierarchical` with the networks of `hiwae_jax.nn`, alpha 0 and 1. Each member has a head of its
                  own, so that parameters grow with K; K from 2 to 100, on accelerators to 500. "refilled" differs from
                  "doubly_reparameterized" for alpha 1 alone.
  H-IWLB offsets  the same with one head for all members and a learned offset [D] for each; K to 10,000 for alpha 0 and
                  to 1,000 for alpha 1, which compares all K x K pairs. On an accelerator K to 10,000 for both.

The networks are MLPs, or "conv", the paper's convolutional ones. An accelerator begins with IWLB and H-IWLB at alpha 1,
DReG and plain, for both networks and in all precisions, at K = 1, 10, 100, 1,000 and 10,000. Members of the H-IWLB
share a head from K = 1,000 on. The other cells follow.

The ways of running them are:

  recommended     `hj.batched_value_and_grad`, which chooses how many examples run at once, with `draw=bound.draw`
                  (on a CPU up to K = 100); on a CPU, from K = 1,000 on, one example and `make_bound(chunk_size=200)`,
                  or 20 where each sample is compared with all members.
  all at once     `jax.value_and_grad` of the vmapped bound.
  sample chunks   on an accelerator, for the least memory: all examples and 1,000 samples of each.

"log evidence" is `hj.make_log_evidence` for one example.

Each cell shows:

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

On an accelerator a program takes seconds to compile. So processes compile a few dozen side by side, into JAX's
compilation cache, before the first of them is timed. Nothing compiles while a cell is timed.

On an accelerator there are three precisions. "float32" and "tf32" are
`jax.default_matmul_precision("float32" | "tensorfloat32")`. "bfloat16" means networks of `dtype=bfloat16`, with
parameters and log-weights in float32. (The precision that JAX calls "bfloat16" leaves NVIDIA GPUs at tf32.) On a CPU
there is only float32.

Every cell is written to the JSON file when it is done, the most important ones first. A second call with the same
device, cores, versions and sizes measures what is missing there. A call with others stops with an error. `--again`
measures all cells anew. Cells that the time limit left out are listed by name.
"""

import argparse
import pathlib
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.shared import cores
from experiments.shared import command_line, run_folder

if TYPE_CHECKING:  # at run time these wait until the cores are chosen
    from benchmarks.k_scaling.cells import Cell, Sizes
    from benchmarks.k_scaling.effort import Effort
    from benchmarks.shared.measurements import Content

NAME = "benchmarks.k_scaling"
ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "results"
FIGURE = ROOT / "docs" / "k_scaling.png"
ACCELERATOR_LIMIT = 450.0  # seconds
CELLS_OF_ONE = 3  # that a process compiles before the first of them is timed


class Run(NamedTuple):
    """A checked command line, and the file to which its run adds.

    Attributes:
      options: the command line.
      effort: how much is measured.
      path: the JSON file.
      figure: the file of the figure.
      grid: all cells there are.
      wanted: those that `--only` leaves.
      content: of the JSON file; what is measured is added to it.
      bytes_limit: temporary memory that a cell may need.
      deadline: of `time.monotonic()`, None if there is none.
    """

    options: argparse.Namespace
    effort: "Effort"
    path: pathlib.Path
    figure: pathlib.Path
    grid: "list[Cell]"
    wanted: "list[Cell]"
    content: "Content"
    bytes_limit: int
    deadline: float | None

    def is_late(self) -> bool:
        """Whether the time limit is over."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def is_left(self, cell: "Cell") -> bool:
        """Whether the file has no figures of the cell, and could have them."""
        found = self.content["cells"].get(cell.name(), {"failed": "not run"})
        return "failed" in found or ("skipped" in found and found["temp_bytes"] <= self.bytes_limit)

    def write(self) -> None:
        """Write the JSON file, and the table beside it."""
        from benchmarks.k_scaling import tables
        from experiments.shared import compact_json

        self.content["not_run"] = [cell.name() for cell in self.grid if cell.name() not in self.content["cells"]]
        compact_json.write(self.path, self.content)
        self.path.with_suffix(".md").write_text(tables.table(self.content) + "\n")


def run(options: argparse.Namespace) -> int:
    """Measure what is missing, unless another process does so in the same folder."""
    if options.compile:
        from benchmarks.k_scaling import ahead

        return ahead.compile_here(options)
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
    return run_folder.work_in(options.output, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    from benchmarks.k_scaling import tables
    from benchmarks.shared import measurements

    began = time.monotonic()
    prepared = _prepare(options, began)
    _measure_all(prepared)
    prepared.write()
    files = sorted(options.output.glob("k_scaling_*.json"))
    tables.draw([measurements.measured(file, tables.table) for file in files], prepared.figure)
    print(f"{time.monotonic() - began:.0f} s; wrote {prepared.path}, the table next to it, and {prepared.figure}")


def _prepare(options: argparse.Namespace, began: float) -> Run:
    """Check everything that can be checked before any work."""
    import jax

    from benchmarks.k_scaling import cells, effort, tables
    from benchmarks.k_scaling.measurement import memory_limit
    from benchmarks.shared import measurements

    accelerator = jax.default_backend() != "cpu"
    chosen = effort.effort(accelerator=accelerator, smoke=options.smoke)
    slug = re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")
    path = options.output / f"k_scaling_{slug}.json"
    grid = cells.grid(accelerator=accelerator, smoke=options.smoke)
    wanted = [cell for cell in grid if all(part in cell.name() for part in options.only)]
    figure = FIGURE if options.output.resolve() == RESULTS.resolve() else options.output / FIGURE.name
    bytes_limit = memory_limit() if options.memory_limit is None else int(options.memory_limit * 1e9)
    origin = _origin(options, chosen.sizes)
    with command_line.refusals(NAME):
        if not wanted:
            raise ValueError(f"argument --only: no cell's name contains all of {', '.join(map(repr, options.only))}")
        command_line.make_folder_of("--output", figure)
        content = measurements.begun(path, origin, again=options.again, table=tables.table)
        for file in set(options.output.glob("k_scaling_*.json")) - {path}:  # the figure shows these too
            measurements.measured(file, tables.table)
    content = (content or {"cells": {}, "rates": {}}) | {"provenance": origin, "memory_limit_bytes": bytes_limit}
    if options.time_limit is None and accelerator:
        options.time_limit = ACCELERATOR_LIMIT
    deadline = None if options.time_limit is None else began + options.time_limit
    return Run(options, chosen, path, figure, grid, wanted, content, bytes_limit, deadline)


def _origin(options: argparse.Namespace, sizes: "Sizes") -> dict[str, Any]:
    """The provenance that all figures of a file share."""
    import jax

    from experiments.shared import provenance

    return {
        **provenance.provenance(),
        "used_cores": cores.used_cores(),
        "backend": jax.devices()[0].client.platform_version.splitlines()[0],
        "x64": jax.config.jax_enable_x64,
        "sizes": sizes._asdict(),
        "smoke": options.smoke,
    }


def _measure_all(prepared: Run) -> None:
    """Measure every cell that is left, until the time limit."""
    import jax

    from benchmarks.k_scaling import tables
    from benchmarks.k_scaling.measurement import measure
    from benchmarks.shared import measurements

    left = [cell for cell in prepared.wanted if prepared.is_left(cell)]
    references: dict[str, Any] = {}
    for cell in _compiled(prepared, list(left)):
        if cell.precision not in references:
            references[cell.precision] = _measure_rates(prepared, cell.precision)
        reference = references[cell.precision][cell.decoder]
        try:
            figures = measure(
                cell,
                prepared.effort.sizes,
                reference,
                seconds=prepared.effort.seconds,
                limit=prepared.bytes_limit,
            )
        except jax.errors.JaxRuntimeError as error:  # most likely out of memory, and other cells may run
            figures = {**cell._asdict(), "configuration": cell.configuration(), "failed": str(error).splitlines()[0]}
        measurements.add(prepared.content, "cells", cell.name(), figures)
        left.remove(cell)
        prepared.write()
        print(tables.line(figures), flush=True)
    if left:
        limit = f"the time limit of {prepared.options.time_limit:g} s is reached"
        print(f"{limit}; the same command goes on. {len(left)} cells are left:")
        print("\n".join(f"  {cell.name()}" for cell in left))


def _compiled(prepared: Run, left: "list[Cell]") -> "Iterator[Cell]":
    """The cells in turn until the time limit. On an accelerator, processes compile a few dozen before the first."""
    from benchmarks.k_scaling import ahead

    programs = prepared.effort.programs
    together = programs * CELLS_OF_ONE if programs > 1 else 1
    if programs > 1:
        ahead.use_cache()
    for start in range(0, len(left), together):
        batch = left[start : start + together]
        if programs > 1 and not prepared.is_late():
            ahead.compile_all(ahead.work(batch, first=start == 0), prepared.options, programs, prepared.deadline)
        for cell in batch:
            if prepared.is_late():
                return
            yield cell


def _measure_rates(prepared: Run, precision: str) -> dict[str, Any]:
    """Measure the machine's rates for the file; returns the products with which cells are compared, by decoder."""
    from benchmarks.k_scaling import tables
    from benchmarks.shared import roofline

    chosen = prepared.effort
    rates, products = roofline.measure(
        chosen.sizes.widths(),
        precision,
        rows=chosen.rows,
        sizes=chosen.squares,
        seconds=chosen.seconds / 4,
    )
    prepared.content["rates"][precision] = rates._asdict()
    print(tables.rates_line(precision, rates._asdict()), flush=True)
    return products


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line.Parser(NAME, __doc__)
    parser.add_argument(
        "--cores", type=command_line.whole_number(1), help="CPU cores to run on; default: all that the process may use"
    )
    parser.add_argument(
        "--time-limit",
        type=command_line.number(least=0.0),
        help="stop after so many seconds; default: 450 on an accelerator, none on a CPU",
    )
    parser.add_argument(
        "--memory-limit",
        type=command_line.number(above=0.0),
        help="GB of temporary memory that a cell may need; larger cells are left out",
    )
    parser.add_argument("--only", nargs="+", default=[], help="run only cells whose names contain all of these words")
    parser.add_argument("--again", action="store_true", help="replace the file of results instead of adding to it")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, results in runs/k_scaling_smoke")
    parser.add_argument(
        "--compile",
        nargs="+",
        metavar="WORK",
        default=[],
        help="compile these cells and rates into JAX's compilation cache; this command calls itself so",
    )
    parser.add_argument("--output", type=pathlib.Path, help="folder; default: results")
    options = parser.parse_args(arguments)
    with command_line.refusals(NAME):
        cores.use_cores(options.cores)
    if options.output is None:
        options.output = pathlib.Path("runs/k_scaling_smoke") if options.smoke else RESULTS
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure what the command line asks for."""
    return run(parse(arguments))
