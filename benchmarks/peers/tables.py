"""Tables and the figure of `benchmarks.peers`."""

import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # after the backend is chosen

from benchmarks.peers.contestants import REFERENCE

MARKERS = "os^vD*Px"
SCANNED = "jax-scanned"


def _rows(cells: list[dict[str, Any]], heading: str, entry: Any) -> list[str]:
    """A Markdown table, contestant by K."""
    titles = {name: row["title"] for cell in cells for name, row in cell["contestants"].items()}
    head = " | ".join(f"K = {cell['num_samples']}" for cell in cells)
    lines = [f"| {heading} | {head} |", "| --- |" + " --- |" * len(cells)]
    for name, title in titles.items():
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
    on_cpu = result["provenance"]["device"].startswith("cpu")
    clock = "cpu" if on_cpu else "wall"
    titles = {name: row["title"] for cell in cells for name, row in cell["contestants"].items() if name != REFERENCE}
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    scanned = [name for name in titles if name == SCANNED]  # in both panels, in black
    ours = [name for name in titles if name.startswith("hiwae")]
    panels = [("hiwae_jax", scanned + ours), ("others", scanned + [n for n in titles if n not in scanned + ours])]
    for axis, (heading, names) in zip(axes, panels, strict=True):
        for number, name in enumerate(names):
            here = [cell for cell in cells if name in cell["contestants"]]
            K = [cell["num_samples"] for cell in here]
            low, middle, high = zip(*(cell["contestants"][name][f"{clock}_ratio"] for cell in here), strict=True)
            color = "black" if name == SCANNED else f"C{number}"
            style = {"color": color, "marker": MARKERS[number % len(MARKERS)], "markersize": 5}
            axis.plot(K, middle, label=titles[name], **style)
            axis.fill_between(K, low, high, color=color, alpha=0.15, linewidth=0)
        every = [cell["num_samples"] for cell in cells]
        axis.axhline(1.0, color="black", linewidth=1, linestyle="--")
        axis.set(xscale="log", yscale="log", xlabel="K", title=heading)
        axis.set_xticks(every, [str(k) for k in every])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        if names:
            axis.legend(fontsize="x-small")
    low, high = axes[0].get_ylim()
    ticks = [t for t in (0.125, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0, 16.0) if low <= t <= high]
    axes[0].set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes[0].set_ylabel(f"{'CPU' if on_cpu else 'wall'} time of a step / plain JAX (dashed)")
    figure.savefig(path, dpi=120)
    plt.close(figure)
