"""Tables and the figure of `benchmarks.peers`."""

import pathlib
from typing import Any

from benchmarks.peers.contestants import REFERENCE
from experiments.shared.figures import Axes, plt, save

MARKERS = "os^vD*Px"
SCANNED = "jax-scanned"
TICKS = (0.125, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0, 16.0)


def _rows(cells: list[dict[str, Any]], heading: str, entry: Any) -> list[str]:
    """A Markdown table, contestant by K."""
    head = " | ".join(f"K = {cell['num_samples']}" for cell in cells)
    lines = [f"| {heading} | {head} |", "| --- |" + " --- |" * len(cells)]
    for name, title in _titles(cells).items():
        entries = [entry(cell["contestants"][name]) if name in cell["contestants"] else "-" for cell in cells]
        if any(text != "-" for text in entries):
            lines.append(f"| {title} | {' | '.join(entries)} |")
    return lines


def _ratio(clock: str, row: dict[str, Any]) -> str:
    low, middle, high = row[f"{clock}_ratio"]
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _megabytes(row: dict[str, Any], kind: str) -> str:
    return "-" if row.get(kind) is None else f"{row[kind] / 2**20:.1f}"


def table(result: dict[str, Any]) -> str:
    """Markdown: ratios of both clocks, milliseconds, memory, and who was left out."""
    cells, cores = result["cells"], result["settings"]["cores"]
    parts = [
        _rows(cells, "CPU time of a step / plain JAX", lambda row: _ratio("cpu", row)),
        _rows(cells, "wall time of a step / plain JAX", lambda row: _ratio("wall", row)),
        _rows(cells, "ms a step, CPU (wall)", _milliseconds),
        _rows(cells, "temporary memory, MiB, compiled programs", lambda row: _megabytes(row, "temp_bytes")),
    ]
    if any("peak_bytes" in row for cell in cells for row in cell["contestants"].values()):
        parts.append(
            _rows(cells, "resident memory that a call adds at its peak, MiB", lambda row: _megabytes(row, "peak_bytes"))
        )
    rounds = result["settings"]["rounds"]
    note = f"Medians over {rounds} rounds [quartiles]; {cores} core(s), {result['provenance']['processor']}."
    skipped = [f"Skipped: {name}: {reason}" for name, reason in result["skipped"].items()]
    return "\n\n".join([note, *("\n".join(part) for part in parts), *skipped])


def _milliseconds(row: dict[str, Any]) -> str:
    return f"{row['cpu_milliseconds']:.3g} ({row['wall_milliseconds']:.3g})"


def draw_figure(result: dict[str, Any], path: pathlib.Path) -> None:
    """Ratios to plain JAX against K: this library on the left, everybody else on the right."""
    cells = result["cells"]
    clock = "cpu" if result["provenance"]["device"].startswith("cpu") else "wall"
    names = [name for name in _titles(cells) if name != REFERENCE]
    scanned = [name for name in names if name == SCANNED]  # stands in both panels, in black
    ours = [name for name in names if name.startswith("hiwae")]
    others = [name for name in names if name not in scanned + ours]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for axis, heading, shown in zip(axes, ("hiwae_jax", "others"), (ours, others), strict=True):
        _draw_panel(axis, cells, scanned + shown, clock)
        axis.set(title=heading)
    low, high = axes[0].get_ylim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axes[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0].set_ylabel(f"{'CPU' if clock == 'cpu' else 'wall'} time of a step / plain JAX (dashed)")
    save(figure, path, dpi=120)


def _draw_panel(axis: Axes, cells: list[dict[str, Any]], names: list[str], clock: str) -> None:
    """The medians of some contestants against K, and their quartiles as a band."""
    titles = _titles(cells)
    for number, name in enumerate(names):
        rows = [(cell["num_samples"], cell["contestants"][name]) for cell in cells if name in cell["contestants"]]
        K = [num_samples for num_samples, _ in rows]
        low, middle, high = zip(*(row[f"{clock}_ratio"] for _, row in rows), strict=True)
        color = "black" if name == SCANNED else f"C{number}"
        marker = MARKERS[number % len(MARKERS)]
        axis.plot(K, middle, label=titles[name], color=color, marker=marker, markersize=5)
        axis.fill_between(K, low, high, color=color, alpha=0.15, linewidth=0)
    every = [cell["num_samples"] for cell in cells]
    axis.axhline(1.0, color="black", linewidth=1, linestyle="--")
    axis.set(xscale="log", yscale="log", xlabel="K")
    axis.set_xticks(every, [str(k) for k in every])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    if names:
        axis.legend(fontsize="x-small")


def _titles(cells: list[dict[str, Any]]) -> dict[str, str]:
    """The contestants of all cells, with their names in tables."""
    return {name: row["title"] for cell in cells for name, row in cell["contestants"].items()}
