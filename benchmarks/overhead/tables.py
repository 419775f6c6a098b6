"""The tables and the figure of `benchmarks.overhead`."""

import pathlib
from typing import TYPE_CHECKING, Any

from experiments.shared.markdown import table as markdown

if TYPE_CHECKING:  # at run time Matplotlib waits until the cores are chosen
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

EXACT, REFILLED, PLAIN = "doubly_reparameterized", "refilled", "reparameterized"
BELOW = {"textcoords": "offset points", "va": "bottom", "color": "#6e6e6e"}
PORT, ONE_PROGRAM, DISPATCHED, AT_ONCE = "PyTorch port", "one program", "dispatched chunks", "all at once"


def _spread(figures: list[float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*figures)


def table(content: dict[str, Any]) -> str:
    """Markdown: steps, breakdown, contest."""
    cells, contests = (sorted(content[kind].values(), key=_order) for kind in ("cells", "contests"))
    origin = content["provenance"]
    versions = ", ".join(f"{name} {origin[name]}" for name in ("jax", "jaxlib", "flax"))
    device = "" if _on_cpu(content) else f"{origin['device']}; "
    head = (
        f"{device}{origin['processor']}, {origin['used_cores']} of them used; {versions}; {origin['date']}. Ratios to "
        "the IWLB of the same K, networks and family of gradients; medians [quartiles] over rounds."
    )
    return "\n\n".join([head, *_step_tables(cells), *(_contest_table(contests) if contests else [])])


def _step_tables(cells: list[dict[str, Any]]) -> list[str]:
    """The steps, and their parts."""
    steps = [
        [
            *(cell["nets"], str(cell["batch_size"]), str(cell["num_samples"]), name),
            *(_spread(step["cpu"]), _spread(step["wall"]), f"{step['flops_ratio']:.2f}", f"{step['cpu_ms']:.1f}"),
            *(f"{step['temp_bytes'] / 2**20:.1f}", f"{step['compile_seconds']:.1f}"),
        ]
        for cell in cells
        for name, step in cell["steps"].items()
    ]
    parts = [
        [
            *(cell["nets"], str(cell["num_samples"]), name),
            *(f"{part['cpu'][0]:.2f} ({part['flops_ratio']:.2f})" for part in parts.values()),
        ]
        for cell in cells
        for name, parts in cell["parts"].items()
    ]
    step_header = ["nets", "batch", "K", "step", "CPU", "wall", "FLOPs", "CPU ms", "temp MiB", "compile s"]
    part_header = ["nets", "K", "step", "encoder", "proposal networks", "decoder", "rest"]
    return [
        markdown(step_header, steps),
        "Parts, CPU time (FLOPs) over the whole step of the IWLB.",
        markdown(part_header, parts),
    ]


def _contest_table(contests: list[dict[str, Any]]) -> list[str]:
    """The ways of the library and the port."""
    torch = ", ".join(sorted({cell["torch"] for cell in contests}))
    rows = [
        [
            *(cell["nets"], str(cell["batch_size"]), str(cell["num_samples"]), name),
            *(_spread(way["cpu"]), _spread(way["wall"]), f"{way['cpu_ms']:.0f}", f"{way['wall_ms']:.0f}"),
            "" if way["bytes"] is None else f"{way['bytes'] / 2**20:.0f}",
        ]
        for cell in contests
        for name, way in cell["ways"].items()
    ]
    return [
        f"H-IWLB, alpha 1, plain gradient; times over those of the PyTorch port (torch {torch}).",
        markdown(["nets", "batch", "K", "way", "CPU", "wall", "CPU ms", "wall ms", "MiB"], rows),
    ]


def _order(cell: dict[str, Any]) -> tuple[str, int]:
    return cell["nets"], cell["num_samples"]


def draw(content: dict[str, Any], path: pathlib.Path) -> None:
    """Draw steps relative to the IWLB against K, a panel for each size of networks, and the times of the contest."""
    from experiments.shared.figures import panels, save

    cells, contests = (sorted(content[kind].values(), key=_order) for kind in ("cells", "contests"))
    shown = [("cells", nets) for nets in dict.fromkeys(cell["nets"] for cell in cells)]
    shown += [("contests", nets) for nets in dict.fromkeys(cell["nets"] for cell in contests)]
    figure, axes = panels(max(len(shown), 1), height=2.3)
    for axis, (kind, nets) in zip(axes[:, 0], shown, strict=False):
        of_nets = [cell for cell in (cells if kind == "cells" else contests) if cell["nets"] == nets]
        if kind == "cells":
            _draw_steps(axis, of_nets, nets)
        else:
            _draw_contest(axis, of_nets, nets, "cpu" if _on_cpu(content) else "wall")
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path)


def _drawn(names: list[str]) -> list[str]:
    """The steps with the exact gradient, and one with the refilled one: that of alpha 1, or of the smallest alpha."""
    exact = [name for name in names if name.endswith(f" {EXACT}")]
    refilled = [name for name in names if name.endswith(f" {REFILLED}")]
    return [*exact, *sorted(refilled, key=lambda name: float(name.split()[1]))[:1]]


def _draw_steps(axis: "Axes", cells: list[dict[str, Any]], nets: str) -> None:
    """The steps of one kind of networks, medians with quartiles."""
    from experiments.shared import palette

    names = list(dict.fromkeys(name for cell in cells for name in cell["steps"] if not name.startswith("IWLB")))
    lines = []
    for name in _drawn(names):
        rows = [(cell["num_samples"], *cell["steps"][name]["cpu"]) for cell in cells if name in cell["steps"]]
        K, median, low, high = zip(*rows, strict=True)
        _, alpha, gradient = name.split()
        color = palette.HIWAE.get(float(alpha), palette.HIWAE_1)
        label = f"alpha {alpha}" + (", refilled" if gradient == REFILLED else "")
        linestyle = "--" if gradient == REFILLED else "-"
        lines += axis.plot(K, median, linestyle=linestyle, color=color, marker="o", label=label)
        axis.fill_between(K, low, high, color=color, alpha=0.1, linewidth=0)
    title = f"{nets}: CPU time of a step of H-IWLB / IWLB"
    _finish(axis, [cell["num_samples"] for cell in cells], title, lines, "IWLB")


def _on_cpu(content: dict[str, Any]) -> bool:
    return content.get("provenance", {}).get("device", "cpu").startswith("cpu")


def _draw_contest(axis: "Axes", cells: list[dict[str, Any]], nets: str, clock: str) -> None:
    """The ways of the library over the port, by CPU or wall-clock time."""
    from experiments.shared import palette

    K = [cell["num_samples"] for cell in cells]
    lines = []
    for way, linestyle in zip((ONE_PROGRAM, DISPATCHED, AT_ONCE), ("-", "-.", "--"), strict=True):
        ratios = [cell["ways"][way][clock][0] for cell in cells]
        lines += axis.plot(K, ratios, linestyle=linestyle, marker="o", color=palette.HIWAE_1, label=way)
    axis.set_ylim(bottom=0.0)
    title = f"{nets}, alpha 1, plain gradient: {'CPU' if clock == 'cpu' else 'wall-clock'} time / PyTorch"
    _finish(axis, K, title, lines, "PyTorch")


def _finish(axis: "Axes", K: list[int], title: str, lines: "list[Line2D]", reference: str) -> None:
    """The line at one, scales, titles and names of a panel."""
    from experiments.shared import palette
    from experiments.shared.figures import label_lines, num_samples_axis

    lines = [*lines, axis.axhline(1.0, color=palette.GREY, linewidth=1)]
    axis.annotate(reference, (0.01, 1.0), xycoords=("axes fraction", "data"), xytext=(0, 2), **BELOW)
    num_samples_axis(axis, K)
    axis.set_title(title)
    if len(lines) > 1:
        label_lines(axis, lines[:-1])
