"""The table and the figure of `benchmarks.gradient_quality`."""

import itertools
import pathlib
from typing import Any

import numpy as np

from benchmarks.gradient_quality import measurement
from experiments.shared.figures import Axes, plt, save


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
