"""The table of `benchmarks.agreement`."""

from typing import Any

from benchmarks.shared.measurements import Content
from experiments.shared.markdown import table as markdown


def table(content: Content) -> str:
    """Markdown: what was compared, and a row for each proposal and gradient."""
    origin, limits = content["provenance"], content["tolerances"]
    versions = ", ".join(f"{name} {origin[name]}" for name in ("hiwae_jax", "jax", "jaxlib", "python"))
    head = (
        f"Device {origin['device']}; {origin['processor']}; {versions}; {origin['date']}. float32, with products of "
        'the precision "highest". Distances from the CPU are relative, and absolute where a value is below 1. '
        f"Values may be {limits['value']:g} apart, and gradients {limits['gradient']:g} of their norm. "
        "Written by `python -m benchmarks.agreement`."
    )
    rows = [
        [
            *(cell["proposal"], cell["gradient"], _distance(cell["value_apart"]), _distance(cell["gradient_apart"])),
            f"**no**: {cell['failed']}" if "failed" in cell else "yes",
        ]
        for cell in content["cells"].values()
    ]
    lines = [head, markdown(["proposal", "gradient", "value apart", "gradient apart", "agrees"], rows)]
    if content.get("not_run"):
        lines.append("Not compared yet: " + "; ".join(content["not_run"]) + ".")
    return "\n\n".join(lines)


def _distance(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"


def summary(content: Content) -> str:
    """The outcome in one line."""
    cells: dict[str, dict[str, Any]] = content["cells"]
    failed = [name for name, cell in cells.items() if "failed" in cell]
    text = f"{len(cells) - len(failed)} of {len(cells)} gradients agree with the CPU's"
    text += f"; NOT: {'; '.join(failed)}" if failed else ""
    return text + (f"; {len(content['not_run'])} problems left" if content.get("not_run") else "")
