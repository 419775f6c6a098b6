"""The page and the figure of `benchmarks.accelerator`, from what its stages wrote."""

import argparse
import os
from typing import Any

from benchmarks.accelerator import stages
from benchmarks.agreement import tables as agreement_tables
from benchmarks.k_scaling import tables as k_scaling_tables
from benchmarks.overhead.tables import AT_ONCE, DISPATCHED, ONE_PROGRAM, PORT
from experiments.shared.markdown import table as markdown

FIGURE = "k_scaling.png"


def write(options: argparse.Namespace, content: dict[str, Any]) -> None:
    """Write `accelerator.md` and the figure into the output folder."""
    k_scaling = stages.k_scaling(options)
    drawn = any("milliseconds" in cell and cell["task"] == "train" for cell in k_scaling.get("cells", {}).values())
    if drawn:
        k_scaling_tables.draw([k_scaling], options.output / FIGURE)
    agreement = stages.agreement(options)
    contests = stages.contests(options)
    parts = [_head(content, agreement or k_scaling), _stages(content)]
    if agreement:
        parts += ["## Agreement with the CPU", agreement_tables.table(agreement)]
    if k_scaling:
        parts += ["## Time against K", _k_scaling(k_scaling), *([f"![time and memory against K]({FIGURE})"] * drawn)]
    if contests:
        parts += ["## Beside PyTorch", _contests(contests)]
    path = options.output / "accelerator.md"
    partial = path.with_suffix(".partial")
    partial.write_text("\n\n".join(parts) + "\n")
    os.replace(partial, path)


def _head(content: dict[str, Any], measured: dict[str, Any]) -> str:
    origin = {**measured.get("provenance", {}), **content["provenance"]}
    versions = ", ".join(f"{name} {origin[name]}" for name in ("hiwae_jax", "jax", "jaxlib", "flax") if name in origin)
    smoke = " This was a smoke test in tiny sizes: its figures mean nothing." if content["smoke"] else ""
    return (
        f"# One accelerator\n\nDevice {origin.get('device', 'unknown')}; {origin.get('processor', 'unknown')}; "
        f"{versions}; commit {origin['commit']}; {origin['date']}. Written by `{origin['command']}`.{smoke}"
    )


def _stages(content: dict[str, Any]) -> str:
    rows = [
        [stage.title, content["stages"][stage.name]["state"], content["stages"][stage.name]["line"]]
        for stage in stages.STAGES
        if stage.name in content["stages"]
    ]
    return markdown(["stage", "state", "result"], rows)


def _k_scaling(content: dict[str, Any]) -> str:
    """Microseconds a sample and the fraction of what the device reaches, a row for each configuration."""
    cells = [cell for cell in content["cells"].values() if cell["task"] == "train" and cell["way"] == "recommended"]
    K = sorted({cell["num_samples"] for cell in cells})
    rows = []
    for name in dict.fromkeys(cell["configuration"] for cell in cells):
        found = {cell["num_samples"]: _cell(cell) for cell in cells if cell["configuration"] == name}
        rows.append([name.removesuffix(", recommended"), *(found.get(k, "") for k in K)])
    text = "Microseconds a sample, and the fraction of the rate that matrix products alone reach"
    files = "`k_scaling/k_scaling_*.md` has all cells, and `python -m benchmarks.k_scaling --help` says what they are."
    return f"{text}; {files}\n\n{markdown(['configuration', *(f'K = {k:,}' for k in K)], rows)}"


def _cell(cell: dict[str, Any]) -> str:
    for kind in ("skipped", "failed"):
        if kind in cell:
            return kind
    return f"{cell['microseconds_per_sample']:.3g} ({100 * cell['fraction']:.0f} %)"


def _contests(cells: list[dict[str, Any]]) -> str:
    rows = [
        [str(cell["num_samples"]), way, f"{cell['ways'][way]['wall_ms']:.3g}", f"{cell['ways'][way]['wall'][0]:.2f}"]
        for cell in cells
        for way in (ONE_PROGRAM, DISPATCHED, AT_ONCE, PORT)
    ]
    text = "H-IWLB, alpha 1, plain gradient, float32 on both sides; wall-clock time of value and gradient of a batch."
    return f"{text}\n\n{markdown(['K', 'way', 'ms', 'over the port'], rows)}"
