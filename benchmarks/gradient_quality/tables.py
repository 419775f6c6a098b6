"""The table and the figure of `benchmarks.gradient_quality`."""

import itertools
import pathlib
from typing import Any

import numpy as np

from benchmarks.gradient_quality import measurement
from experiments.shared.figures import Axes, plt, save
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
    """Variance at convergence, and the bound at equal time relative to the plain estimator's, against K."""
    problems = list(dict.fromkeys(cell["problem"] for cell in cells))
    alphas = sorted({cell["alpha"] for cell in cells})
    size = {"figsize": (4 * len(alphas), 3 * 2 * len(problems)), "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(2 * len(problems), len(alphas), **size)
    for (row, problem), (column, alpha) in itertools.product(enumerate(problems), enumerate(alphas)):
        here = [cell for cell in cells if cell["problem"] == problem and cell["alpha"] == alpha]
        here.sort(key=lambda cell: cell["num_samples"])
        upper, lower = axes[2 * row][column], axes[2 * row + 1][column]
        _draw_panels(upper, lower, here, alpha)
        upper.set(title=f"{problem}, alpha {alpha:g}", ylabel="variance / plain, trained")
        lower.set(xlabel="K", ylabel="bound - plain, equal time (nats)")
    labelled = max(axes.ravel(), key=lambda axis: len(axis.get_legend_handles_labels()[1]))
    labelled.legend(fontsize="x-small")
    save(figure, path, dpi=120)


def _draw_panels(upper: Axes, lower: Axes, cells: list[dict[str, Any]], alpha: float) -> None:
    """The cells of one problem and one alpha: variances above, bounds below."""
    K = [cell["num_samples"] for cell in cells]
    plain = [np.mean(cell["bound"]["reparameterized"]["equal_time"]) for cell in cells]
    for number, name in enumerate(measurement.ESTIMATORS):
        if name not in measurement.estimators(alpha):
            continue
        style = {"color": f"C{number}", "marker": "o", "label": name}
        upper.loglog(K, [cell["quality"]["trained"][name]["variance_ratio"] for cell in cells], **style)
        ours = [np.mean(cell["bound"][name]["equal_time"]) for cell in cells]
        lower.semilogx(K, np.subtract(ours, plain), **style)
    for axis in (upper, lower):
        axis.set_xticks(K, [str(k) for k in K])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
