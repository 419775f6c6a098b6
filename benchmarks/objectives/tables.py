"""The table of objectives."""

from typing import Any

import numpy as np

HEADER = (
    "| problem | alpha | K | steps | objective | equal steps | equal time | 16 draws | time | FLOPs |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def table(cells: list[dict[str, Any]]) -> str:
    """Markdown, a row for each objective of each problem."""
    lines = [HEADER]
    for cell in cells:
        for name, cost in cell["cost"].items():
            bounds = cell["bound"][name]
            columns = [
                f"{np.mean(bounds[kind]):.4f} +- {np.std(bounds[kind], ddof=1) if len(bounds[kind]) > 1 else 0.0:.4f}"
                for kind in ("equal_steps", "equal_time", "many_reverse_samples")
            ]
            lines.append(
                f"| {cell['problem']} | {cell['alpha']:g} | {cell['num_samples']} | {cell['steps']:,} | {name} "
                f"| {' | '.join(columns)} | {cost['time_ratio']:.2f} | {cost['flops_ratio']:.2f} |"
            )
    return "\n".join(lines)


def short_table(cells: list[dict[str, Any]]) -> str:
    """The same for docs/choosing.md: fewer digits, and no bound at equal time."""
    lines = [
        "| problem | objective | equal steps | 16 reverse draws | time of a step | FLOPs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for cell in cells:
        for name, cost in cell["cost"].items():
            columns = [
                f"{np.mean(values):.3f} +- {np.std(values, ddof=1):.3f}"
                for values in (cell["bound"][name][kind] for kind in ("equal_steps", "many_reverse_samples"))
            ]
            lines.append(
                f"| {cell['problem']} | {name} | {' | '.join(columns)} | {cost['time_ratio']:.2f} "
                f"| {cost['flops_ratio']:.2f} |"
            )
    return "\n".join(lines)
