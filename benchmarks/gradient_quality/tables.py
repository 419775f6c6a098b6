"""The table and the figure of `benchmarks.gradient_quality`."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from benchmarks.gradient_quality import measurement
from experiments.shared import palette
from experiments.shared.figures import Axes, label_lines, log_ticks, num_samples_axis, panels, save
from experiments.shared.markdown import table as markdown


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


COLUMNS = {
    "doubly_reparameterized": "DReG",
    "refilled": "refilled",
    "path_squared": "path-squared",
    "authors": "authors",
    measurement.ONE_BACKWARD_SAMPLE: "DReG, M = 1",
}


def variance_table(cells: list[dict[str, Any]]) -> str:
    """The same for docs/gradient_quality.md: variances at convergence over the plain one's, and the biases seen."""
    rows = []
    for cell in _by_problem(cells):
        trained = cell["quality"]["trained"]
        shown = [f"{trained[name]['variance_ratio']:.2g}" if name in trained else "as DReG" for name in COLUMNS]
        rows.append([*_names(cell), *shown, *(_bias(trained.get(name)) for name in ("path_squared", "authors"))])
    header = ["problem", "alpha", "K", "steps", *COLUMNS.values(), "bias seen: path-squared", "authors"]
    return markdown(header, rows)


def bound_table(cells: list[dict[str, Any]]) -> str:
    """The same for docs/gradient_quality.md: the bounds that training reaches, at equal steps and at equal time."""
    rows = []
    for cell in _by_problem(cells):
        digits = 4 if cell["problem"] == "toy" else 2
        plain = cell["bound"][measurement.PLAIN]["equal_steps"]
        shown = [f"{np.mean(plain):.{digits}f} +- {np.std(plain, ddof=1) if len(plain) > 1 else 0.0:.{digits}f}"]
        for name in COLUMNS:
            bound, cost = cell["bound"].get(name), cell["cost"].get(name)
            if bound is None:
                shown.append("as DReG")
                continue
            steps, time = (f"{np.mean(bound[kind]):.{digits}f}" for kind in ("equal_steps", "equal_time"))
            shown.append(f"{steps} ({time}; {cost['time_ratio']:.2f})")
        rows.append([*_names(cell)[:3], *shown])
    return markdown(["problem", "alpha", "K", "plain", *COLUMNS.values()], rows)


def _by_problem(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(cells, key=lambda cell: (cell["problem"] != "toy", cell["alpha"], cell["num_samples"]))


def _names(cell: dict[str, Any]) -> list[str]:
    return [cell["problem"], f"{cell['alpha']:g}", str(cell["num_samples"]), f"{cell['steps']:,}"]


def _bias(row: dict[str, Any] | None) -> str:
    """The norm of a bias over that of the mean gradient, if it is three standard errors above zero."""
    if row is None:
        return "none"
    return (
        f"{row['bias_norm'] / max(row['gradient_norm'], 1e-30):.0%}".replace("%", " %") if row["bias_is_seen"] else "-"
    )


def draw_figure(cells: list[dict[str, Any]], path: pathlib.Path) -> None:
    """The variance of each gradient after training over that of the plain one, against K."""

    def ratio(cell: dict[str, Any], name: str) -> float:
        return cell["quality"]["trained"][name]["variance_ratio"]

    _draw(cells, path, ratio, "Variance of the gradient / that of the plain gradient", logarithmic=True)


def draw_bounds(cells: list[dict[str, Any]], path: pathlib.Path) -> None:
    """The bound with each gradient minus that with the plain one, at equal time, against K."""

    def gain(cell: dict[str, Any], name: str) -> float:
        bounds = cell["bound"]
        return float(np.mean(bounds[name]["equal_time"]) - np.mean(bounds[measurement.PLAIN]["equal_time"]))

    _draw(cells, path, gain, "Bound minus that with the plain gradient, equal time (nats)", logarithmic=False)


def _draw(
    cells: list[dict[str, Any]],
    path: pathlib.Path,
    figure_of: Callable[[dict[str, Any], str], float],
    title: str,
    *,
    logarithmic: bool,
) -> None:
    """A row of panels for each problem and a column for each alpha, with a line for each gradient."""
    problems = list(dict.fromkeys(cell["problem"] for cell in cells))
    alphas = sorted({cell["alpha"] for cell in cells})
    figure, axes = panels(len(problems), len(alphas), height=2.6, sharey="row")
    for row, problem in zip(axes, problems, strict=True):
        for axis, alpha in zip(row, alphas, strict=True):
            here = [cell for cell in cells if cell["problem"] == problem and cell["alpha"] == alpha]
            here.sort(key=lambda cell: cell["num_samples"])
            lines = _draw_panel(axis, here, alpha, figure_of)
            axis.axhline(1.0 if logarithmic else 0.0, color=palette.PLAIN, linewidth=1)
            axis.set_title(f"{problem}, alpha {alpha:g}")
        if logarithmic:
            log_ticks(row[0])
        label_lines(row[-1], lines)
    figure.suptitle(title, x=0.01, ha="left")
    save(figure, path)


def _draw_panel(
    axis: Axes, cells: list[dict[str, Any]], alpha: float, figure_of: Callable[[dict[str, Any], str], float]
) -> list[Line2D]:
    """The cells of one problem and one alpha; equal gradients are drawn once."""
    K = [cell["num_samples"] for cell in cells]
    lines = []
    for name, label in COLUMNS.items():
        if name in measurement.estimators(alpha):
            numbers = [figure_of(cell, name) for cell in cells]
            linestyle = "--" if name == measurement.ONE_BACKWARD_SAMPLE else "-"
            style = {"color": palette.GRADIENTS[name], "linestyle": linestyle, "marker": "o", "label": label}
            lines += axis.plot(K, numbers, **style)
    num_samples_axis(axis, K)
    axis.set_xticks(K, [str(k) for k in K])
    return lines
