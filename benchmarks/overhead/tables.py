"""The tables and the figure of `benchmarks.overhead`."""

import pathlib
from typing import TYPE_CHECKING, Any

from experiments.shared.markdown import table as markdown

if TYPE_CHECKING:  # at run time Matplotlib waits until the cores are chosen
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

EXACT, REFILLED, PLAIN = "doubly_reparameterized", "refilled", "reparameterized"
LINE_STYLES = {EXACT: "-", REFILLED: "--", PLAIN: ":"}
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
    from experiments.shared.figures import plt, save

    cells, contests = (sorted(content[kind].values(), key=_order) for kind in ("cells", "contests"))
    panels = [("cells", nets) for nets in dict.fromkeys(cell["nets"] for cell in cells)]
    panels += [("contests", nets) for nets in dict.fromkeys(cell["nets"] for cell in contests)]
    count = max(len(panels), 1)
    figure, axes = plt.subplots(1, count, figsize=(3.6 * count, 3.8), squeeze=False, layout="constrained")
    handles: dict[str, Line2D] = {}
    for axis, (kind, nets) in zip(axes[0], panels, strict=False):
        if kind == "cells":
            handles |= _draw_steps(axis, [cell for cell in cells if cell["nets"] == nets], nets)
        else:
            clock = "cpu" if _on_cpu(content) else "wall"
            _draw_contest(axis, [cell for cell in contests if cell["nets"] == nets], nets, clock)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path, dpi=110)


def _draw_steps(axis: "Axes", cells: list[dict[str, Any]], nets: str) -> "dict[str, Line2D]":
    """The steps of one kind of networks; returns the lines by their labels."""
    names = list(dict.fromkeys(name for cell in cells for name in cell["steps"] if not name.startswith("IWLB")))
    alphas = sorted({name.split()[1] for name in names}, key=float)
    handles = {}
    for name in names:
        rows = [(cell["num_samples"], *cell["steps"][name]["cpu"]) for cell in cells if name in cell["steps"]]
        K, median, low, high = zip(*rows, strict=True)
        _, alpha, gradient = name.split()
        color = f"C{alphas.index(alpha)}"
        (line,) = axis.plot(K, median, linestyle=LINE_STYLES[gradient], color=color, marker=".")
        handles[f"alpha {alpha}, {gradient}"] = line
        axis.fill_between(K, low, high, color=color, alpha=0.12)
    _finish(axis, [cell["num_samples"] for cell in cells], nets, "CPU time / IWLB")
    return handles


def _on_cpu(content: dict[str, Any]) -> bool:
    return content.get("provenance", {}).get("device", "cpu").startswith("cpu")


def _draw_contest(axis: "Axes", cells: list[dict[str, Any]], nets: str, clock: str) -> None:
    """The ways of the library over the port, by CPU or wall-clock time."""
    K = [cell["num_samples"] for cell in cells]
    for number, way in enumerate((ONE_PROGRAM, DISPATCHED, AT_ONCE)):
        axis.plot(K, [cell["ways"][way][clock][0] for cell in cells], marker=".", color=f"C{number + 4}", label=way)
    _finish(axis, K, f"{nets}, alpha 1, plain", f"{'CPU' if clock == 'cpu' else 'wall-clock'} time / PyTorch port")
    axis.set_ylim(bottom=0.0)
    axis.legend(fontsize="x-small")


def _finish(axis: "Axes", K: list[int], title: str, ylabel: str) -> None:
    """Scales, ticks and titles of a panel."""
    axis.set_xscale("log")
    axis.set_xticks(K, [str(k) for k in K])
    axis.minorticks_off()
    axis.set(title=title, xlabel="K", ylabel=ylabel)
    axis.axhline(1.0, color="grey", linewidth=0.8)
    axis.grid(alpha=0.3)
