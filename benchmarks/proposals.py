"""Compare proposals at equal evaluations of the model, and at equal time.

    python -m benchmarks.proposals                                     # half an hour or so on two cores
    python -m benchmarks.proposals --models iwae mixture-12 --steps 1000 --seeds 2

The models are those of `experiments.vae` on scikit-learn's digits: MLPs of 200-200 units, 20 latent dimensions, K
samples, batches of 64, Adam. All take the same steps, so they evaluate log p(x, z) equally often. Each is judged by its
own bound on the test images, the mean over seeds +- their standard deviation. Columns:

  equal steps   the bound after all steps.
  equal time    the bound at the step that this model had reached when the first model had used its time.
  time, FLOPs   of a jitted value and gradient of a batch, over those of the first model; the time is a median of
                interleaved rounds.

Finished models are kept in the output folder, and not trained again.
"""

import argparse
import pathlib
from typing import Any

from experiments.shared import command_line, compact_json, run_folder, stored
from experiments.shared.provenance import provenance

NAME = "benchmarks.proposals"
MODELS = ("iwae", "iwae-h", "hiwae-0", "hiwae-1", "mixture-5", "mixture-12", "mixture-50")
HEADER = (
    "| model | K | steps | test bound, equal steps | equal time | time of a step | FLOPs |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    from benchmarks.shared.training import STORED_POINTS
    from experiments.vae.models import alpha_of

    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(1)
    parser.add_argument("--models", nargs="+", default=MODELS, help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--num-samples", type=count, default=5, help="K; default: %(default)s")
    parser.add_argument("--steps", type=count, default=5_000, help="a multiple of 20; default: %(default)s")
    parser.add_argument("--seeds", type=count, default=3, help="seeds of training; default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/proposals"))
    options = parser.parse_args(arguments)
    if options.steps % STORED_POINTS:
        parser.error(f"argument --steps: expected a multiple of {STORED_POINTS}, got {options.steps}")
    for name in options.models:
        try:
            alpha_of(name)
        except ValueError as error:
            parser.error(f"argument --models: {error}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Train the models that are not finished, time a step of each, and print and write the table."""
    options = parse(arguments)
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output / "curves")
        for path in (options.output / "curves").glob("*.json"):
            stored.read_json(path)  # a damaged one is an error before any work
    return run_folder.work_in(options.output, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    import jax
    import numpy as np

    from benchmarks.shared.problems import make_digits_model
    from benchmarks.shared.training import mean_of, step_costs, train

    problems = {name: make_digits_model(name, num_samples=options.num_samples) for name in options.models}
    values = {name: mean_of(problem.make_bound()) for name, problem in problems.items()}
    curves: dict[str, list[list[float]]] = {}
    for name, problem in problems.items():
        path = options.output / "curves" / f"{name}-K{options.num_samples}-{options.steps}x{options.seeds}.json"
        if not path.exists():
            bounds, _ = train(problem, values[name], steps=options.steps, seeds=options.seeds)
            stored.write_json(path, {"bounds": bounds.tolist(), "provenance": provenance()})
        curves[name] = stored.read_json(path)["bounds"]
    first = options.models[0]
    params = {name: jax.tree.map(np.asarray, problem.init(0)) for name, problem in problems.items()}
    costs = step_costs(problems[first], values, params, relative_to=first)
    _write(options, [_cell(name, np.asarray(curves[name]), costs[name]) for name in curves])


def _cell(name: str, bounds: Any, cost: dict[str, float]) -> dict[str, Any]:
    """The figures of one model: `bounds` [seeds, points], and the cost of its step."""
    from benchmarks.shared.training import bound_at_time

    return {
        "model": name,
        "equal_steps": bounds[:, -1].tolist(),
        "equal_time": bound_at_time(bounds, cost["time_ratio"]),
        "curve": bounds.mean(axis=0).tolist(),
        **cost,
    }


def _write(options: argparse.Namespace, cells: list[dict[str, Any]]) -> None:
    settings = {name: getattr(options, name) for name in ("num_samples", "steps", "seeds")}
    content = {"history": [], "provenance": provenance(), **settings, "cells": cells}
    compact_json.write(options.output / "proposals.json", content)
    (options.output / "proposals.md").write_text(table(content) + "\n")
    print(f"{table(content)}\n\ntable and JSON are in {options.output}/")


def table(content: dict[str, Any]) -> str:
    """Markdown, a row for each model."""
    from experiments.vae.models import title

    lines = [HEADER]
    for cell in content["cells"]:
        bounds = " | ".join(_spread(cell[kind]) for kind in ("equal_steps", "equal_time"))
        lines.append(
            f"| {title(cell['model'])} | {content['num_samples']} | {content['steps']:,} | {bounds} "
            f"| {cell['time_ratio']:.2f} | {cell['flops_ratio']:.2f} |"
        )
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    import numpy as np

    deviation = f" +- {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    raise SystemExit(main())
