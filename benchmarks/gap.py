"""How far a bound lies below log p(x), beside the variance of its estimate, through training.

    python -m benchmarks.gap                               # toy and digits
    python -m benchmarks.gap --datasets caltech101_silhouettes --data-dir DIR --steps 5000

A bound is the mean of log w, where w is the mean of K importance weights and E[w] = p(x). With v = w / p(x) its gap to
log p(x) is E[-log v]. Where w varies little, a Taylor series gives Var(v) / 2, and Var(log w) / 2 too (Huang et al.,
2019, section 4). So less variance means a tighter bound there. The two variances tell whether to trust the series.

The models are H-IWAEs with alpha = 0 and 1 and K = 3 on the density of the paper's figure 2, where log p(x) is known,
and IWAE and H-IWAE of 200-200 MLPs with K = 5 on images, where it is estimated from all draws. At 11 points of training
these are measured, as means over the same examples (64 training images, or the one target):

  gap            log p(x) minus the bound.
  Var(v) / 2     of fresh draws.
  Var(log w) / 2 likewise.
  ESS            effective sample size of the K samples, over K.

Finished models are kept in the output folder. Table, figure and JSON go there.
"""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from experiments.shared import command_line, compact_json, run_folder, stored
from experiments.shared.markdown import table as markdown
from experiments.shared.provenance import provenance

if TYPE_CHECKING:
    from benchmarks.shared.problems import Problem

NAME = "benchmarks.gap"
DRAWS = 2_000  # of K samples, for each image
TARGET_DRAWS = 50_000  # for the one target
EXAMPLES_AT_ONCE = 8
EVERY = 2  # of the points that training stores
FIGURES = {"gap": "gap", "half_variance": "Var(v) / 2", "half_log_variance": "Var(log w) / 2", "ess": "ESS / K"}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    from benchmarks.shared.training import STORED_POINTS

    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(1)
    parser.add_argument("--datasets", nargs="+", default=["toy", "digits"], help='"toy", or names of data sets')
    parser.add_argument("--data-dir", type=command_line.existing_folder, help="folder of the raw files")
    parser.add_argument("--steps", type=count, default=5_000, help="a multiple of 20; default: %(default)s")
    parser.add_argument("--seeds", type=count, default=1, help="seeds of training; default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/gap"))
    options = parser.parse_args(arguments)
    if options.steps % STORED_POINTS:
        parser.error(f"argument --steps: expected a multiple of {STORED_POINTS}, got {options.steps}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Train and measure the models that are not finished, and write table and figure of all that are."""
    options = parse(arguments)
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output / "cells")
        for path in (options.output / "cells").glob("*.json"):
            stored.read_json(path)  # a damaged one is an error before any work
        for dataset in set(options.datasets) - {"toy"}:
            make_problem(dataset, "iwae", options.data_dir)  # so is an unknown name, or a set without its files
    return run_folder.work_in(options.output, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    for dataset in options.datasets:
        for name in ("hiwae-0", "hiwae-1") if dataset == "toy" else ("iwae", "hiwae-1"):
            path = options.output / "cells" / f"{dataset}-{name}-{options.steps}x{options.seeds}.json"
            if not path.exists():
                problem = make_problem(dataset, name, options.data_dir)
                figures = run_cell(problem, steps=options.steps, seeds=options.seeds)
                head = {"dataset": dataset, "model": name, "seeds": options.seeds}
                stored.write_json(path, {**head, **figures, "provenance": provenance()})
    cells = [stored.read_json(path) for path in (options.output / "cells").glob("*.json")]
    cells.sort(key=lambda cell: (cell["dataset"] != "toy", cell["dataset"], cell["model"] != "iwae", cell["model"]))
    content = {"history": [], "cells": cells}
    compact_json.write(options.output / "gap.json", content)
    (options.output / "gap.md").write_text(table(content) + "\n")
    draw_figure(content, options.output / "gap.png")
    print(f"{table(content)}\n\ntable, figure and JSON are in {options.output}/")


def make_problem(dataset: str, name: str, data_dir: pathlib.Path | None) -> "Problem":
    """The target of the paper's figure 2, or a model of images."""
    from benchmarks.shared import problems
    from experiments.vae.models import alpha_of

    if dataset == "toy":
        return problems.make_toy(alpha=alpha_of(name) or 0.0, num_samples=3)
    return problems.make_image_model(dataset, name, num_samples=5, data_dir=data_dir)


def run_cell(problem: "Problem", *, steps: int, seeds: int) -> dict[str, Any]:
    """Train, and measure at every second stored point: figures [points], as means over seeds and examples."""
    import jax
    import numpy as np

    from benchmarks.shared.training import STORED_POINTS, mean_of, train
    from experiments.toy.problem import log_normaliser

    _, points = train(problem, mean_of(problem.make_bound()), steps=steps, seeds=seeds)
    exact = log_normaliser() if problem.title == "toy" else None
    measured = jax.jit(lambda params: jax.vmap(lambda one: measure(problem, one, exact))(params))
    rows = [{name: float(np.mean(values)) for name, values in measured(params).items()} for params in points[::EVERY]]
    return {
        "num_samples": problem.num_samples,
        "steps": [steps * number // STORED_POINTS for number in range(0, STORED_POINTS + 1, EVERY)],
        **{name: [row[name] for row in rows] for name in FIGURES},
    }


def measure(problem: "Problem", params: Any, exact: float | None) -> dict[str, Any]:
    """The figures of one set of parameters, [examples]; `exact` is log p(x) where it is known."""
    import jax
    import jax.numpy as jnp

    import hiwae_jax as hj

    weights = hj.make_log_weights(problem.log_joint, problem.proposal, weighting=problem.weighting)
    examples = problem.batch(jax.random.key(7))
    examples = examples[:1] if exact is not None else examples
    draws = DRAWS if exact is None else TARGET_DRAWS

    def of_example(row: Any) -> dict[str, Any]:
        x, key = row
        log_w = jax.vmap(lambda key: weights(params, x, key))(jax.random.split(key, draws))  # [draws, K]
        estimates = jax.nn.logsumexp(log_w, axis=1)
        log_p = hj.iwlb(estimates) if exact is None else exact
        return {
            "gap": log_p - jnp.mean(estimates),
            "half_variance": jnp.var(jnp.exp(estimates - log_p)) / 2,
            "half_log_variance": jnp.var(estimates) / 2,
            "ess": jnp.mean(hj.effective_sample_size(log_w)) / problem.num_samples,
        }

    keys = jax.random.split(jax.random.key(8), len(examples))
    return jax.lax.map(of_example, (examples, keys), batch_size=EXAMPLES_AT_ONCE)


def table(content: dict[str, Any]) -> str:
    """Markdown, a row for each point of each model but the untrained one."""
    rows = []
    for cell in content["cells"]:
        for point in range(1, len(cell["steps"])):
            figures = [f"{cell[name][point]:.3f}" for name in FIGURES]
            rows.append([cell["dataset"], cell["model"], f"{cell['steps'][point]:,}", *figures])
    return markdown(["data", "model", "step", *FIGURES.values()], rows)


def draw_figure(content: dict[str, Any], path: pathlib.Path) -> None:
    """A panel for each model: the gap and the two variances against the step."""
    from experiments.shared import palette
    from experiments.shared.figures import label_lines, log_ticks, panels, save
    from experiments.vae.models import title

    cells, columns = content["cells"], min(2, len(content["cells"]))
    colors = {"gap": palette.GAP, "half_variance": palette.VARIANCE, "half_log_variance": palette.LOG_VARIANCE}
    figure, axes = panels(-(-len(cells) // columns), columns, height=2.5, sharey="row")
    for axis in axes.ravel()[len(cells) :]:
        axis.set_visible(False)
    for number, (axis, cell) in enumerate(zip(axes.ravel(), cells, strict=False)):
        lines = []
        for name, color in colors.items():
            lines += axis.plot(cell["steps"][1:], cell[name][1:], color=color, label=FIGURES[name])
        axis.set_yscale("log")
        dataset = cell["dataset"].partition("_")[0]
        axis.set_title(f"{dataset}: {title(cell['model'])}, K = {cell['num_samples']}")
        axis.set_xticks([cell["steps"][0], cell["steps"][-1] // 2, cell["steps"][-1]])
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.set_xlabel("step")
        if number % columns == columns - 1 or number == len(cells) - 1:
            log_ticks(axis)
            axis.tick_params(labelleft=number % columns == 0)
            label_lines(axis, lines)
        if number % columns == 0:
            axis.set_ylabel("nats")
    save(figure, path)


if __name__ == "__main__":
    raise SystemExit(main())
