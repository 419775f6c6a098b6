"""Compare training objectives: the bound, its orders, and further draws of the reverse model.

    python -m benchmarks.objectives                                    # an hour or so on two cores
    python -m benchmarks.objectives --problems toy --steps 2000 --seeds 2

The problems are the 2-D density of Huang et al. (2019), figure 2, and an MLP H-IWAE on the digits, both with a shared
z_0 and a power heuristic. Every objective trains from the same initialisations for the same number of steps, with
batches of 64. Each is judged by the bound itself. Columns of the table, the first three as means over seeds +- their
standard deviation:

  equal steps   the bound after all steps.
  equal time    the bound at the step that this objective had reached when "the bound" had used its time.
  16 draws      the bound after all steps, evaluated with 16 further draws of the reverse model.
  time          seconds of a jitted value and gradient over those of "the bound", median of interleaved rounds.
  FLOPs         likewise, from the compiled program.

"plain gradient" is the bound with gradient="reparameterized", which objectives with reverse draws have too. Finished
problems are kept in the output folder, and not run again.
"""

import argparse
import pathlib

from benchmarks.objectives import measurement
from benchmarks.objectives.tables import table
from benchmarks.shared import measurements
from benchmarks.shared.problems import PROBLEMS
from benchmarks.shared.training import STORED_POINTS
from experiments.shared import command_line, compact_json, run_folder, stored
from experiments.shared.provenance import provenance

NAME = "benchmarks.objectives"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(1)
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--alpha", type=command_line.number(least=0.0), default=1.0, help="default: 1")
    parser.add_argument("--num-samples", type=count, default=3, help="K; default: %(default)s")
    parser.add_argument(
        "--steps", type=count, default=5_000, help="steps of training, a multiple of 20; default: %(default)s"
    )
    parser.add_argument("--seeds", type=count, default=4, help="seeds of training; default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/objectives"))
    options = parser.parse_args(arguments)
    if options.steps % STORED_POINTS:
        parser.error(f"argument --steps: expected a multiple of {STORED_POINTS}, got {options.steps}")
    return options


def _path(options: argparse.Namespace, title: str) -> pathlib.Path:
    folder: pathlib.Path = options.output / "cells"
    return folder / f"{title}-alpha{options.alpha:g}-K{options.num_samples}-{options.steps}x{options.seeds}.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the problems that are not finished, and print and write all that are."""
    options = parse(arguments)
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output / "cells")
        for path in sorted((options.output / "cells").glob("*.json")):
            measurements.measured(path, lambda cell: table([cell]))  # a damaged one is an error before any work
    return run_folder.work_in(options.output, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    for title in options.problems:
        path = _path(options, title)
        if not path.exists():
            problem = PROBLEMS[title](alpha=options.alpha, num_samples=options.num_samples)
            cell = measurement.run_cell(problem, steps=options.steps, seeds=options.seeds)
            stored.write_json(path, {**cell, "provenance": provenance()})
    cells = [stored.read_json(path) for path in sorted((options.output / "cells").glob("*.json"), reverse=True)]
    text = table(cells)
    print(text)
    (options.output / "objectives.md").write_text(text + "\n")
    compact_json.write(options.output / "objectives.json", {"history": [], "cells": cells})
    print(f"\ntable and JSON are in {options.output}/")
