"""The table and the figure of `benchmarks.k_scaling`."""

import pathlib
from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator

from experiments.shared.figures import plt, save

HEAD = (
    "| configuration | K | at once | ms | us a sample | samples/s | GFLOP/s | of attainable | temp MB |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)
STYLES = {"recommended": "-", "all at once": "--", "sample chunks": ":"}
MARKERS = {"float32": "o", "tf32": "s", "bfloat16": "^"}
COLORS = {
    ("IWLB", 0.0, "doubly_reparameterized"): "C0",
    ("IWLB", 0.0, "reparameterized"): "C9",
    ("H-IWLB", 1.0, "doubly_reparameterized"): "C3",
    ("H-IWLB", 1.0, "refilled"): "C1",
    ("H-IWLB", 1.0, "reparameterized"): "C6",
    ("H-IWLB", 0.0, "doubly_reparameterized"): "C2",
    ("H-IWLB", 0.0, "reparameterized"): "C8",
    ("H-IWLB offsets", 0.0, "doubly_reparameterized"): "C5",
    ("H-IWLB offsets", 0.0, "reparameterized"): "C7",
    ("H-IWLB offsets", 1.0, "doubly_reparameterized"): "C4",
    ("H-IWLB offsets", 1.0, "reparameterized"): "black",
}


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
    """Time a sample, fraction of the attainable rate and temporary memory against K; a row for each device."""
    figure, axes = plt.subplots(len(results), 3, figsize=(13, 6.4 * len(results)), squeeze=False, layout="constrained")
    for row, content in zip(axes, results, strict=True):
        measured = [c for c in content["cells"].values() if c["task"] == "train" and "milliseconds" in c]
        _draw_cells(row, measured)
        _draw_limits(row, content, measured)
        _label(row, content["provenance"], measured)
    save(figure, path, dpi=110)


def _draw_cells(row: np.ndarray, measured: list[dict[str, Any]]) -> None:
    """A line for each configuration in each of the three panels."""
    time_axis, fraction_axis, memory_axis = row
    for configuration in dict.fromkeys(cell["configuration"] for cell in measured):
        cells = sorted((c for c in measured if c["configuration"] == configuration), key=lambda c: c["num_samples"])
        first = cells[0]
        conv = first["decoder"] == "conv"
        style = {
            "color": COLORS[first["bound"], first["alpha"], first["gradient"]],
            "markerfacecolor": "white" if conv else None,
            "linestyle": STYLES[first["way"]],
            "marker": MARKERS[first["precision"]],
            "markersize": 4,
            "linewidth": 1.2,
            "label": configuration,
        }
        K = [cell["num_samples"] for cell in cells]
        time_axis.loglog(K, [cell["microseconds_per_sample"] for cell in cells], **style)
        fraction_axis.loglog(K, [cell["fraction"] for cell in cells], **style)
        memory_axis.loglog(K, [max(cell["temp_bytes"], 1) / 1e6 for cell in cells], **style)


def _draw_limits(row: np.ndarray, content: dict[str, Any], measured: list[dict[str, Any]]) -> None:
    """The time that the matrix products alone would take in each precision, and fractions of 1 and 0.7."""
    time_axis, fraction_axis, _ = row
    for precision in content["rates"]:
        mlp = [
            c for c in measured if c["decoder"] == "mlp" and c["precision"] == precision and c["gradient"] != "refilled"
        ]
        if mlp:
            attainable = float(np.median([cell["attainable"] for cell in mlp]))
            floor = 1e6 * mlp[0]["flops"] / mlp[0]["samples"] / attainable
            time_axis.axhline(floor, color="grey", linewidth=1)
            note = f"the MLP's matrix products alone, {precision}: {attainable / 1e12:.3g} TFLOP/s"
            time_axis.annotate(
                note, (0.99, floor), xycoords=("axes fraction", "data"), ha="right", va="top", fontsize=7
            )
    for fraction, name, linestyle in ((1.0, "attainable", "-"), (0.7, "0.7", ":")):
        fraction_axis.axhline(fraction, color="grey", linewidth=1, linestyle=linestyle)
        fraction_axis.annotate(name, (0.01, fraction), xycoords=("axes fraction", "data"), va="bottom", fontsize=7)


def _label(row: np.ndarray, origin: dict[str, Any], measured: list[dict[str, Any]]) -> None:
    """Titles with the device's name, ticks and the legend."""
    time_axis, fraction_axis, memory_axis = row
    machine = origin["device"].split(" ", 1)[1]
    machine = f"{origin['processor']}, {origin['used_cores']} used" if machine == "cpu" else machine
    time_axis.set(title=f"{machine}: microseconds a sample", xlabel="K")
    fraction_axis.set(title="decoder FLOP/s, fraction of attainable", xlabel="K")
    memory_axis.set(title="temporary memory, MB", xlabel="K")
    ticks = [K for K in (1, 5, 20, 100, 1_000, 10_000) if any(c["num_samples"] == K for c in measured)]
    for axis in row:
        axis.set_xticks(ticks, [f"{K:,}" for K in ticks], fontsize=7)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(alpha=0.3)
    handles, labels = time_axis.get_legend_handles_labels()
    # Of several devices the last figure's legend stands; they have the same cells.
    time_axis.figure.legends.clear()
    time_axis.figure.legend(handles, labels, fontsize=7, loc="outside lower center", ncols=3, frameon=False)
