"""The table and the figure of `benchmarks.k_scaling`."""

import pathlib
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from experiments.shared import palette
from experiments.shared.figures import Axes, label_lines, log_ticks, num_samples_axis, panels, save

HEAD = (
    "| configuration | K | at once | ms | us a sample | samples/s | GFLOP/s | of attainable | temp MB |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)
# What the figure shows, of the MLP: bound, alpha, precision and way, all with the DReG gradient, and how it is drawn.
SHOWN: dict[tuple[str, float, str, str], tuple[str, str, str]] = {
    ("IWLB", 0.0, "float32", "recommended"): ("IWLB", palette.IWAE, "-"),
    ("IWLB", 0.0, "float32", "all at once"): ("IWLB, all at once", palette.IWAE, "--"),
    ("IWLB", 0.0, "tf32", "recommended"): ("IWLB, tf32", palette.IWAE, "-."),
    ("IWLB", 0.0, "bfloat16", "recommended"): ("IWLB, bfloat16", palette.IWAE, ":"),
    ("H-IWLB", 1.0, "float32", "recommended"): ("H-IWLB, alpha 1", palette.HIWAE_1, "-"),
    ("H-IWLB offsets", 0.0, "float32", "recommended"): ("H-IWLB, alpha 0", palette.HIWAE_0, "-"),
}
GRADIENT = "doubly_reparameterized"
LEAST_POINTS = 2  # of a line of the figure


def line(cell: dict[str, Any]) -> str:
    """A cell as a row of the table."""
    head = f"| {cell['configuration']} | {cell['num_samples']:,} | {cell.get('chunks', '')} |"
    for reason in ("skipped", "failed"):
        if reason in cell:
            return f"{head} {reason}: {cell[reason]} | | | | | |"
    return (
        f"{head} {cell['milliseconds']:,.4g} | {cell['microseconds_per_sample']:.4g} "
        f"| {cell['samples_per_second']:,.0f} | {cell['flops_per_second'] / 1e9:,.1f} | {100 * cell['fraction']:.0f} % "
        f"| {cell['temp_bytes'] / 1e6:,.1f} |"
    )


def rates_line(precision: str, rates: dict[str, Any]) -> str:
    """What the machine reaches in one precision, as a sentence."""

    def listed(values: dict[str, float]) -> str:
        return ", ".join(f"{value / 1e9:,.0f} ({size})" for size, value in values.items())

    parts = rates["microseconds_per_row"]
    others = ", ".join(f"{name} {value:.3g}" for name, value in parts.items())
    return (
        f"{precision}: GFLOP/s of square matrix products (size) {listed(rates['square'])}; of the products of the MLP "
        f"decoder's forward and backward pass (rows) {listed(rates['decoder'])}; of its output layer "
        f"{rates['output_layer'] / 1e9:,.0f}; memory {rates['bytes_per_second'] / 1e9:,.0f} GB/s. Microseconds a row, "
        f"forward and backward: {others}. If these simply add up, the decoder's products are "
        f"{100 * parts['matrix products'] / sum(parts.values()):.0f} % of the time."
    )


def table(content: dict[str, Any]) -> str:
    """Markdown: what was measured with, the rates, and a row for each cell."""
    origin = content["provenance"]
    versions = ", ".join(f"{name} {origin[name]}" for name in ("hiwae_jax", "jax", "jaxlib", "flax", "python"))
    lines = [
        f"Device {origin['device']}; {origin['processor']}, {origin['used_cores']} of them used; {versions}; "
        f"{origin['date']}. Batch {origin['sizes']['batch']}; float32 parameters; value and gradient, no optimizer. "
        "Written by `python -m benchmarks.k_scaling`, whose `--help` says what the columns are.",
        "",
        *(f"- {rates_line(precision, rates)}" for precision, rates in content["rates"].items()),
        "",
        *HEAD,
    ]
    ordered = sorted(content["cells"].values(), key=lambda cell: (cell["task"], cell["decoder"] != "mlp"))
    order = {cell["configuration"]: place for place, cell in reversed(list(enumerate(ordered)))}
    ordered.sort(key=lambda cell: (cell["task"] != "train", order[cell["configuration"]], cell["num_samples"]))
    lines += [line(cell) for cell in ordered]
    if content.get("not_run"):
        lines += ["", "Not run yet:", "", *(f"- {name}" for name in content["not_run"])]
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Time a sample and temporary memory against K, two panels for each device: the lines of `SHOWN`."""
    figure, axes = panels(2 * len(results), height=2.6, sharex="row")
    for number, content in enumerate(results):
        time_axis, memory_axis = axes[2 * number : 2 * number + 2, 0]
        measured = [c for c in content["cells"].values() if c["task"] == "train" and "milliseconds" in c]
        lines = _draw_cells(time_axis, memory_axis, measured)
        machine = _machine(content["provenance"])
        _draw_limits(time_axis, measured)
        time_axis.set_title(f"{machine}\nMicroseconds a sample, value and gradient")
        memory_axis.set_title("MB of temporary memory")
        for axis, of_axis in ((time_axis, lines[0]), (memory_axis, lines[1])):
            num_samples_axis(axis, [int(K) for line in of_axis for K in line.get_xdata()])
            log_ticks(axis)
            if of_axis:
                label_lines(axis, of_axis)
    save(figure, path)


def _machine(origin: dict[str, Any]) -> str:
    device = origin["device"].split(" ", 1)[1]
    count = origin["used_cores"]
    return f"{origin['processor'].split(',')[0]}, {count} core{'s' if count > 1 else ''}" if device == "cpu" else device


def _draw_cells(
    time_axis: Axes, memory_axis: Axes, measured: list[dict[str, Any]]
) -> tuple[list[Line2D], list[Line2D]]:
    """The lines of `SHOWN` that were measured, in both panels."""
    times, memories = [], []
    for key, (label, color, linestyle) in SHOWN.items():
        cells = [c for c in measured if (c["decoder"], c["gradient"]) == ("mlp", GRADIENT) and _key(c) == key]
        if len(cells) < LEAST_POINTS:
            continue
        cells.sort(key=lambda cell: cell["num_samples"])
        K = [cell["num_samples"] for cell in cells]
        style = {"color": color, "linestyle": linestyle, "marker": "o", "label": label}
        times += time_axis.plot(K, [cell["microseconds_per_sample"] for cell in cells], **style)
        memories += memory_axis.plot(K, [max(cell["temp_bytes"], 1) / 1e6 for cell in cells], **style)
    for axis in (time_axis, memory_axis):
        axis.set_yscale("log")
    return times, memories


def _key(cell: dict[str, Any]) -> tuple[str, float, str, str]:
    return cell["bound"], cell["alpha"], cell["precision"], cell["way"]


def _draw_limits(axis: Axes, measured: list[dict[str, Any]]) -> None:
    """The time that the decoder's matrix products alone would take, in each precision with a line."""
    for precision in dict.fromkeys(key[2] for key in SHOWN):
        key = ("IWLB", 0.0, precision, "recommended")
        cells = [c for c in measured if (c["decoder"], c["gradient"]) == ("mlp", GRADIENT) and _key(c) == key]
        if len(cells) < LEAST_POINTS:
            continue
        attainable = float(np.median([cell["attainable"] for cell in cells]))
        floor = 1e6 * cells[0]["flops"] / cells[0]["samples"] / attainable
        axis.axhline(floor, color=palette.GREY, linewidth=1, linestyle=(0, (4, 3)))
        axis.annotate(
            f"the decoder's matrix products alone{'' if precision == 'float32' else f', {precision}'}",
            (0.01, floor),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            color=palette.GREY,
        )
        # Room for the words, on a logarithmic axis of any length.
        lowest, highest = axis.get_ylim()
        axis.set_ylim(bottom=min(lowest, floor * (floor / highest) ** 0.12))
