"""Gradient estimators side by side: bias, noise, cost, and the bound that training reaches with each.

    python -m benchmarks.gradient_quality                                      # everything; hours on two cores
    python -m benchmarks.gradient_quality --problems toy --alpha 1 --num-samples 10 --steps 2000

A cell is a problem (the 2-D density of Huang et al. (2019), figure 2, or an MLP H-IWAE on the digits), an alpha and a
K. In each cell every estimator trains from the same initialisations for the same number of steps. The parameters of the
first seed at the start, after a tenth of the steps and at the end, from training with the estimator that is unbiased
and recommended, are where gradients are compared: all estimators on the same draws, for the parameters of the
proposal alone (the others receive the same gradient from all). Columns of the table:

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

Finished cells are kept in the output folder; a second call goes on where the first was stopped, and the table and the
figure show all cells that are there.
"""

import argparse
import itertools
import math
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from tqdm import tqdm

from benchmarks import machine
from benchmarks.gradient_problems import PROBLEMS, Problem
from experiments import command_line, report, run_folder

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # after the backend is chosen

NAME = "benchmarks.gradient_quality"
ESTIMATORS = ("reparameterized", "doubly_reparameterized", "refilled", "path_squared", "authors", "one backward sample")
RECOMMENDED = "doubly_reparameterized"  # on whose trajectory gradients are compared
STAGES = ("initial", "mid-training", "trained")
STORED_POINTS = 20  # of each training curve
GROUPS = 20  # of independent draws
TIMED_ROUNDS = 15


def estimators(alpha: float) -> list[str]:
    """Those that differ: under the uniform weighting "refilled" and "path_squared" are "doubly_reparameterized"."""
    return [name for name in ESTIMATORS if alpha > 0.0 or name not in ("refilled", "path_squared")]


def reference(estimator: str) -> str:
    """The unbiased estimator whose mean a mean is compared with: the quietest one that was derived differently."""
    return "doubly_reparameterized" if estimator not in ESTIMATORS[:2] else "reparameterized"


def mean_bound(problem: Problem, estimator: str):
    """`(params, x [B, ...], key) -> scalar`: the mean bound of a batch."""
    if estimator == "one backward sample":
        bound = problem.make_bound(gradient=RECOMMENDED, backward_samples=1)
    else:
        bound = problem.make_bound(gradient=estimator)

    def value(params, x, key):
        return jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(params, x, jax.random.split(key, len(x))))

    return value


def train(problem: Problem, estimator: str, *, steps: int, seeds: int) -> tuple[np.ndarray, Any]:
    """Bounds [seeds, STORED_POINTS + 1] along training, and the first seed's parameters at each stored point."""
    value = mean_bound(problem, estimator)
    optimizer = optax.adam(problem.learning_rate)
    chunk = steps // STORED_POINTS

    def advance(seed, state, first):
        def step(state, index):
            params, opt_state = state
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), seed), index)
            batch_key, noise_key = jax.random.split(key)
            x = problem.batch(batch_key)
            gradient = jax.grad(lambda p: -value(p, x, noise_key))(params)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, state, first + jnp.arange(chunk))[0]

    advance = jax.jit(jax.vmap(advance, in_axes=(0, 0, None)))
    evaluate = jax.jit(jax.vmap(lambda params: problem.evaluate(params, jax.random.key(2))))
    numbers = jnp.arange(seeds)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[problem.init(seed) for seed in range(seeds)])
    state = params, jax.vmap(optimizer.init)(params)
    bounds, stored = [], []
    for point in range(STORED_POINTS + 1):
        bounds.append(np.asarray(evaluate(state[0])))
        stored.append(jax.tree.map(lambda leaf: np.asarray(leaf[0]), state[0]))
        if point < STORED_POINTS:
            state = advance(numbers, state, jnp.int32(point * chunk))
    return np.stack(bounds, axis=1), stored


def make_moments(problem: Problem, *, draws: int):
    """`(params, key) -> four arrays [estimators, parameters]`, of the proposal's parameters alone.

    Means over `draws` of the gradients, of their squares, of their differences from the reference, and of the squares
    of these.
    """
    names = estimators(problem.alpha)
    x = problem.batch(jax.random.key(3))[: problem.compared_examples]
    gradients = [jax.grad(mean_bound(problem, name)) for name in names]
    references = np.asarray([names.index(reference(name)) for name in names])

    def of_proposal(gradient):
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(problem.of_proposal), strict=True)
        return jnp.concatenate([leaf.ravel() for leaf, chosen in pairs if chosen])

    @jax.jit
    def moments(params, key):
        def draw(total, key):
            rows = jnp.stack([of_proposal(gradient(params, x, key)) for gradient in gradients])
            difference = rows - rows[references]
            return jax.tree.map(jnp.add, total, (rows, rows**2, difference, difference**2)), None

        empty = (jnp.zeros((len(names), of_proposal(params).size)),) * 4
        keys = jax.random.split(key, draws)
        return jax.tree.map(lambda total: total / draws, jax.lax.scan(draw, empty, keys)[0])

    return moments


def compare(problem: Problem, moments: Any, params: Any, *, draws: int) -> dict[str, dict[str, float]]:
    """Bias and noise of every estimator's gradient at one point, from GROUPS calls of `moments`."""
    names = estimators(problem.alpha)
    groups = [moments(params, jax.random.fold_in(jax.random.key(4), group)) for group in range(GROUPS)]
    rows, squares, differences, difference_squares = (
        np.stack(parts).astype(np.float64) for parts in zip(*groups, strict=True)
    )  # [GROUPS, estimators, parameters]
    count = draws // GROUPS * GROUPS

    def variance(means, squares):
        return np.maximum(squares.mean(0) - means.mean(0) ** 2, 0.0) * count / (count - 1)

    noise, difference_noise = variance(rows, squares), variance(differences, difference_squares)
    gradient_norm = math.sqrt(max(_squared_norm(rows[:, names.index(RECOMMENDED)])[0], 0.0))
    result = {}
    for i, name in enumerate(names):
        squared, error = _squared_norm(differences[:, i])
        # What is below 1e-6 of the estimator's own noise is rounding: the estimators agree there draw by draw.
        moving = difference_noise[i] > 1e-12 * noise[i]
        scores = np.abs(differences[:, i].mean(0)[moving]) / np.sqrt(difference_noise[i][moving] / count)
        result[name] = {
            "largest_z": float(np.max(scores, initial=0.0)),
            "expected_largest_z": math.sqrt(2.0 * math.log(max(np.sum(moving), 2))),
            "bias_norm": math.sqrt(max(squared, 0.0)),
            "bias_is_seen": squared > 3.0 * error,
            "largest_bias_norm": math.sqrt(max(squared, 0.0) + 3.0 * error),
            "gradient_norm": gradient_norm,
            "variance_ratio": float(np.sum(noise[i]) / np.sum(noise[0])),
            "signal_to_noise": gradient_norm / math.sqrt(np.sum(noise[i])),
        }
    return result


def _squared_norm(group_means: np.ndarray) -> tuple[float, float]:
    """Unbiased estimate of the squared norm of the expectation, and its standard error where that is zero.

    Products of different groups alone, [GROUPS, parameters]: noise in one is independent of noise in another.
    """
    gram = group_means @ group_means.T
    products = gram[~np.eye(len(gram), dtype=bool)]
    return float(np.mean(products)), math.sqrt(2.0 * np.mean(products**2) / len(products))


def costs(problem: Problem, params: Any) -> dict[str, dict[str, float]]:
    """Time and FLOPs of a batch's value and gradient, relative to the plain estimator."""
    x, key = problem.batch(jax.random.key(5)), jax.random.key(6)
    programs = {}
    for name in estimators(problem.alpha):
        programs[name] = jax.jit(jax.value_and_grad(mean_bound(problem, name))).lower(params, x, key).compile()
        jax.block_until_ready(programs[name](params, x, key))
    seconds = {name: [] for name in programs}
    for _ in range(TIMED_ROUNDS):
        for name, program in programs.items():
            began = time.perf_counter()
            for _ in range(3):
                jax.block_until_ready(program(params, x, key))
            seconds[name].append((time.perf_counter() - began) / 3)
    plain = np.asarray(seconds["reparameterized"])
    flops = {name: program.cost_analysis()["flops"] for name, program in programs.items()}
    return {
        name: {
            "time_ratio": float(np.median(np.asarray(seconds[name]) / plain)),
            "milliseconds": 1e3 * float(np.median(seconds[name])),
            "flops_ratio": flops[name] / flops["reparameterized"],
        }
        for name in programs
    }


def run_cell(problem: Problem, *, steps: int, seeds: int, draws: int) -> dict[str, Any]:
    """All figures of one cell."""
    began = time.monotonic()
    curves, stored = {}, None
    for name in tqdm(estimators(problem.alpha), desc=problem.title, leave=False):
        curves[name], points = train(problem, name, steps=steps, seeds=seeds)
        if name == RECOMMENDED:
            stored = points
    points = (0, STORED_POINTS // 10, STORED_POINTS)
    moments = make_moments(problem, draws=draws // GROUPS)
    quality = {
        stage: compare(problem, moments, stored[point], draws=draws)
        for stage, point in zip(STAGES, points, strict=True)
    }
    cost = costs(problem, stored[-1])
    final = {}
    for name, bounds in curves.items():
        # Where the curve stood when the plain estimator had used up its time.
        reached = min(1.0, 1.0 / cost[name]["time_ratio"]) * STORED_POINTS
        at_time = [float(np.interp(reached, np.arange(STORED_POINTS + 1), row)) for row in bounds]
        final[name] = {"equal_steps": bounds[:, -1].tolist(), "equal_time": at_time, "curve": bounds.mean(0).tolist()}
    return {
        "problem": problem.title,
        "alpha": problem.alpha,
        "num_samples": problem.num_samples,
        "steps": steps,
        "seeds": seeds,
        "draws": draws,
        "quality": quality,
        "cost": cost,
        "bound": final,
        "seconds": time.monotonic() - began,
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Markdown: gradients first, then costs and bounds."""
    lines = [
        "| problem | alpha | K | at | estimator | z | bias | variance | SNR |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in cells:
        head = f"| {cell['problem']} | {cell['alpha']:g} | {cell['num_samples']} |"
        for stage, rows in cell["quality"].items():
            for name, row in rows.items():
                plain = name == "reparameterized"
                seen, scale = row["bias_is_seen"], max(row["gradient_norm"], 1e-30)
                bias = f"{row['bias_norm'] / scale:.3f}" if seen else f"< {row['largest_bias_norm'] / scale:.3f}"
                z = f"{row['largest_z']:.1f} ({row['expected_largest_z']:.1f})"
                lines.append(
                    f"{head} {stage} | {name} | {'-' if plain else z} | {'-' if plain else bias} "
                    f"| {row['variance_ratio']:.3g} | {row['signal_to_noise']:.3g} |"
                )
    lines += [
        "",
        "| problem | alpha | K | steps | estimator | time | FLOPs | bound, equal steps | bound, equal time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in cells:
        for name, cost in cell["cost"].items():
            columns = []
            for kind in ("equal_steps", "equal_time"):
                values = cell["bound"][name][kind]
                columns.append(f"{np.mean(values):.4f} +- {np.std(values, ddof=1) if len(values) > 1 else 0.0:.4f}")
            lines.append(
                f"| {cell['problem']} | {cell['alpha']:g} | {cell['num_samples']} | {cell['steps']:,} | {name} "
                f"| {cost['time_ratio']:.2f} | {cost['flops_ratio']:.2f} | {columns[0]} | {columns[1]} |"
            )
    return "\n".join(lines)


def draw_figure(cells: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Variance at convergence, and the bound at equal time relative to the plain estimator's, against K."""
    problems = list(dict.fromkeys(cell["problem"] for cell in cells))
    alphas = sorted({cell["alpha"] for cell in cells})
    size = {"figsize": (4 * len(alphas), 3 * 2 * len(problems)), "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(2 * len(problems), len(alphas), **size)
    for (row, problem), (column, alpha) in itertools.product(enumerate(problems), enumerate(alphas)):
        here = sorted(
            (c for c in cells if c["problem"] == problem and c["alpha"] == alpha), key=lambda c: c["num_samples"]
        )
        K = [cell["num_samples"] for cell in here]
        upper, lower = axes[2 * row][column], axes[2 * row + 1][column]
        for number, name in enumerate(ESTIMATORS):
            if name not in estimators(alpha):
                continue
            style = {"color": f"C{number}", "marker": "o", "label": name}
            upper.loglog(K, [cell["quality"]["trained"][name]["variance_ratio"] for cell in here], **style)
            plain = [np.mean(cell["bound"]["reparameterized"]["equal_time"]) for cell in here]
            ours = [np.mean(cell["bound"][name]["equal_time"]) for cell in here]
            lower.semilogx(K, np.subtract(ours, plain), **style)
        upper.set(title=f"{problem}, alpha {alpha:g}", ylabel="variance / plain, trained")
        lower.set(xlabel="K", ylabel="bound - plain, equal time (nats)")
        for axis in (upper, lower):
            axis.set_xticks(K, [str(k) for k in K])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    labelled = max(axes.ravel(), key=lambda axis: len(axis.get_legend_handles_labels()[1]))
    labelled.legend(fontsize="x-small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(1)
    alpha = command_line.number(least=0.0)
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--alpha", nargs="+", type=alpha, default=[0.0, 1.0, 3.0], help="default: 0 1 3")
    parser.add_argument("--num-samples", nargs="+", type=count, default=[2, 5, 10, 50], help="K; default: 2 5 10 50")
    parser.add_argument(
        "--steps", type=count, default=5_000, help="of training, a multiple of 20; default: %(default)s"
    )
    parser.add_argument("--seeds", type=count, default=3, help="of training; default: %(default)s")
    parser.add_argument("--draws", type=count, default=4_000, help="of the gradient; default: %(default)s")
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
    cell = machine.measured(path, lambda cell: table([cell]))
    if path.name != _file_name(cell["problem"], cell["alpha"], cell["num_samples"]):
        raise ValueError(f"{path}: is of another cell than its name says; deleting it measures anew")
    return cell


def _file_name(title: str, alpha: float, num_samples: int) -> str:
    return f"{title}-alpha{alpha:g}-K{num_samples}.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the cells that are not there yet; print and write what is."""
    options = parse(arguments)
    folder = options.output / "cells"
    with command_line.refusals(NAME):
        command_line.make_folder("--output", folder)
        for path in folder.glob("*.json"):
            read_cell(path)  # all of them come into the table
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
            report.write_json(path, {**run_cell(problem, **budget), "provenance": report.provenance()})
        print(table([read_cell(path)]), flush=True)
    cells = [read_cell(path) for path in folder.glob("*.json")]
    cells.sort(key=lambda cell: (cell["problem"] != "toy", cell["alpha"], cell["num_samples"]))
    text = table(cells)
    (options.output / "gradient_quality.md").write_text(text + "\n")
    report.write_json(options.output / "gradient_quality.json", {"cells": cells})
    draw_figure(cells, options.output / "gradient_quality.png")
    print(f"\ntable, JSON and figure are in {options.output}/")


if __name__ == "__main__":
    sys.exit(main())
