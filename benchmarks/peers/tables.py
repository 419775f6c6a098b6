"""Tables and the figure of `benchmarks.peers`."""

import pathlib
from typing import Any

from benchmarks.peers.contestants import REFERENCE
from experiments.shared import palette
from experiments.shared.figures import Axes, label_lines, log_ticks, num_samples_axis, panels, save

# What the figure shows, with the names and the lines in it; a run with none of a panel's shows all that it has.
OURS = {
    "hiwae-dreg": ("whole batch", ":"),
    "hiwae-dreg-chunks": ("in chunks", "--"),
    "hiwae-dreg-scanned": ("chunks, scanned", "-"),
}
OTHERS = {
    "numpyro": ("NumPyro", "-"),
    "tfp": ("TFP on JAX", "--"),
    "torch-compiled": ("PyTorch, compiled", "-."),
    "pyro": ("Pyro", ":"),
    "pythae": ("pythae", "-"),
}
SCANNED, FASTEST = "jax-scanned", "hiwae-dreg-scanned"


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
    cells, cores = _cells(result), result["settings"]["cores"]
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
    """Ratios to plain JAX against K: this library above, everybody else below with the fastest of ours."""
    cells = _cells(result)
    clock = "cpu" if result["provenance"]["device"].startswith("cpu") else "wall"
    names = [name for name in _titles(cells) if name != REFERENCE]
    ours = [name for name in names if name.startswith("hiwae")]
    others = [name for name in names if name not in (SCANNED, *ours)]
    ours = [name for name in ours if name in OURS] or ours
    others = [name for name in others if name in OTHERS] or others
    figure, axes = panels(2, height=2.7, sharey=True)
    title = f"{'CPU' if clock == 'cpu' else 'Wall-clock'} time of a step / plain JAX"
    _draw_panel(axes[0, 0], cells, [name for name in names if name == SCANNED] + ours, clock)
    _draw_panel(axes[1, 0], cells, [name for name in names if name == FASTEST] + others, clock)
    log_ticks(axes[0, 0])
    for line in axes[1, 0].lines:
        if line.get_label() == OURS[FASTEST][0]:
            line.set_label("hiwae_jax")
    for axis, heading in zip(axes[:, 0], ("hiwae_jax, DReG gradient", "others"), strict=True):
        axis.set_title(f"{title}: {heading}")
        num_samples_axis(axis, [cell["num_samples"] for cell in cells])
        label_lines(axis, axis.lines[:-1])
    save(figure, path)


def _draw_panel(axis: Axes, cells: list[dict[str, Any]], names: list[str], clock: str) -> None:
    """The medians of some contestants against K, and their quartiles as a band; last, a line at one."""
    for name in names:
        rows = [(cell["num_samples"], cell["contestants"][name]) for cell in cells if name in cell["contestants"]]
        K = [num_samples for num_samples, _ in rows]
        low, middle, high = zip(*(row[f"{clock}_ratio"] for _, row in rows), strict=True)
        label, linestyle = {**OURS, **OTHERS}.get(name, (_titles(cells)[name], "-"))
        color = palette.OURS if name.startswith("hiwae") else palette.OTHERS.get(name, palette.GREY)
        axis.plot(K, middle, label=label, color=color, linestyle=linestyle, marker="o")
        axis.fill_between(K, low, high, color=color, alpha=0.12, linewidth=0)
    axis.axhline(1.0, color=palette.GREY, linewidth=1)
    axis.set_yscale("log")


def _cells(result: dict[str, Any]) -> list[dict[str, Any]]:
    """By K, in whichever order they were measured."""
    return sorted(result["cells"], key=lambda cell: cell["num_samples"])


def _titles(cells: list[dict[str, Any]]) -> dict[str, str]:
    """The contestants of all cells, with their names in tables."""
    return {name: row["title"] for cell in cells for name, row in cell["contestants"].items()}
