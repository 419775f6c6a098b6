"""Compare gradient estimators: bias, noise, cost, and the bound that training reaches with each.

    python -m benchmarks.gradient_quality                                      # everything; hours on two cores
    python -m benchmarks.gradient_quality --problems toy --alpha 1 --num-samples 10 --steps 2000

A cell is a problem, an alpha and a K. The problems are the 2-D density of Huang et al. (2019), figure 2, and an MLP
H-IWAE on the digits. In each cell every estimator trains from the same initialisations for the same number of steps.
Gradients are compared at three points of the first seed's training with the default estimator: at the start, after a
tenth of the steps, and at the end. There all estimators get the same draws. Only gradients for the parameters of the
proposal are compared, since those for the other parameters are the same. Columns of the table:

  z         largest |z-score| over parameters of the paired difference from the mean of "doubly_reparameterized", which
            itself is compared with the plain estimator; in brackets what the largest of as many standard normal numbers
            is expected to be.
  bias      norm of the mean difference over the norm of the mean gradient; "< b" where it is not three standard errors
            above zero. Where training has converged the mean gradient is nearly zero, and only large biases are seen.
  variance  total variance over that of the plain estimator, on the same draws.
  SNR       norm of the mean gradient over the root of the total variance, one draw.
  time      seconds of a jitted value and gradient over those of the plain estimator, median of interleaved rounds.
  FLOPs     likewise, from the compiled program.
  bound     after training, mean over seeds +- their standard deviation; "equal time": at the step that the estimator
            had reached when the plain one had used its time.

Finished cells are kept in the output folder. A second call continues where the first was stopped. The table and the
figure show all cells that are there.
"""

import argparse
import itertools
import pathlib
from typing import Any

from benchmarks.gradient_quality import measurement
from benchmarks.gradient_quality.measurement import GROUPS
from benchmarks.gradient_quality.tables import draw_bounds, draw_figure, table
from benchmarks.shared import measurements
from benchmarks.shared.problems import PROBLEMS, Problem
from benchmarks.shared.training import STORED_POINTS
from experiments.shared import command_line, compact_json, run_folder, stored
from experiments.shared.provenance import provenance

NAME = "benchmarks.gradient_quality"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(1)
    alpha = command_line.number(least=0.0)
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--alpha", nargs="+", type=alpha, default=[0.0, 1.0, 3.0], help="default: 0 1 3")
    parser.add_argument("--num-samples", nargs="+", type=count, default=[2, 5, 10, 50], help="K; default: 2 5 10 50")
    parser.add_argument(
        "--steps", type=count, default=5_000, help="steps of training, a multiple of 20; default: %(default)s"
    )
    parser.add_argument("--seeds", type=count, default=3, help="seeds of training; default: %(default)s")
    parser.add_argument("--draws", type=count, default=4_000, help="draws of each gradient; default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/gradient_quality"))
    options = parser.parse_args(arguments)
    for name, least in (("steps", STORED_POINTS), ("draws", 2 * GROUPS)):
        if getattr(options, name) < least:
            parser.error(f"argument --{name}: expected at least {least}, got {getattr(options, name)}")
    if options.steps % STORED_POINTS:
        parser.error(f"argument --steps: expected a multiple of {STORED_POINTS}, got {options.steps}")
    return options


def read_cell(path: pathlib.Path) -> dict[str, Any]:
    """The figures of a finished cell; a ValueError that names the file if they are not what the table needs."""
    cell = measurements.measured(path, lambda cell: table([cell]))
    if path.name != _file_name(cell["problem"], cell["alpha"], cell["num_samples"]):
        raise ValueError(f"{path}: is of another cell than its name says; deleting it measures anew")
    return cell


def _file_name(title: str, alpha: float, num_samples: int) -> str:
    return f"{title}-alpha{alpha:g}-K{num_samples}.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the cells that are not finished, and print and write all cells."""
    options = parse(arguments)
    folder = options.output / "cells"
    with command_line.refusals(NAME):
        command_line.make_folder("--output", folder)
        for path in folder.glob("*.json"):
            read_cell(path)  # the table shows all of them, so a damaged one is an error
        grid = [
            PROBLEMS[name](alpha=alpha, num_samples=K)
            for name, K, alpha in itertools.product(options.problems, options.num_samples, options.alpha)
        ]
    return run_folder.work_in(options.output, lambda: _run(options, grid, folder))


def _run(options: argparse.Namespace, grid: list[Problem], folder: pathlib.Path) -> None:
    budget = {"steps": options.steps, "seeds": options.seeds, "draws": options.draws}
    for problem in grid:
        path = folder / _file_name(problem.title, problem.alpha, problem.num_samples)
        if not path.exists() or any(read_cell(path).get(name) != number for name, number in budget.items()):
            stored.write_json(path, {**measurement.run_cell(problem, **budget), "provenance": provenance()})
        print(table([read_cell(path)]), flush=True)
    cells = [read_cell(path) for path in folder.glob("*.json")]
    cells.sort(key=lambda cell: (cell["problem"] != "toy", cell["alpha"], cell["num_samples"]))
    text = table(cells)
    (options.output / "gradient_quality.md").write_text(text + "\n")
    compact_json.write(options.output / "gradient_quality.json", {"history": [], "cells": cells})
    draw_figure(cells, options.output / "gradient_quality.png")
    draw_bounds(cells, options.output / "gradient_quality_bounds.png")
    print(f"\ntable, JSON and figure are in {options.output}/")
