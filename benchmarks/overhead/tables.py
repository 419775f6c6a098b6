"""The tables and the figure of `benchmarks.overhead`."""

import pathlib
from typing import Any

EXACT, REFILLED, PLAIN = "doubly_reparameterized", "refilled", "reparameterized"
PORT, ONE_PROGRAM, DISPATCHED, AT_ONCE = "PyTorch port", "one program", "dispatched chunks", "all at once"


def _spread(figures: list[float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*figures)


def table(content: dict[str, Any]) -> str:
    """Markdown: steps, breakdown, contest."""
    cells, contests = (sorted(content[kind].values(), key=_order) for kind in ("cells", "contests"))
    origin = content["provenance"]
    versions = ", ".join(f"{name} {origin[name]}" for name in ("jax", "jaxlib", "flax"))
    lines = [
        f"{origin['processor']}, {origin['used_cores']} of them used; {versions}; {origin['date']}. Ratios to the IWLB "
        "of the same K, networks and family of gradients; medians [quartiles] over rounds.",
        "",
        "| nets | batch | K | step | CPU | wall | FLOPs | CPU ms | temp MiB | compile s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in cells:
        for name, step in cell["steps"].items():
            lines.append(
                f"| {cell['nets']} | {cell['batch_size']} | {cell['num_samples']} | {name} | {_spread(step['cpu'])} "
                f"| {_spread(step['wall'])} | {step['flops_ratio']:.2f} | {step['cpu_ms']:.1f} "
                f"| {step['temp_bytes'] / 2**20:.1f} | {step['compile_seconds']:.1f} |"
            )
    lines += [
        "",
        "Parts, CPU time (FLOPs) over the whole step of the IWLB.",
        "",
        "| nets | K | step | encoder | proposal networks | decoder | rest |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in cells:
        for name, parts in cell["parts"].items():
            columns = " | ".join(f"{part['cpu'][0]:.2f} ({part['flops_ratio']:.2f})" for part in parts.values())
            lines.append(f"| {cell['nets']} | {cell['num_samples']} | {name} | {columns} |")
    if contests:
        torch = ", ".join(sorted({cell["torch"] for cell in contests}))
        lines += [
            "",
            f"H-IWLB, alpha 1, plain gradient; times over those of the PyTorch port (torch {torch}).",
            "",
            "| nets | batch | K | way | CPU | wall | CPU ms | wall ms | MiB |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
    for cell in contests:
        for name, way in cell["ways"].items():
            memory = "" if way["bytes"] is None else f"{way['bytes'] / 2**20:.0f}"
            lines.append(
                f"| {cell['nets']} | {cell['batch_size']} | {cell['num_samples']} | {name} | {_spread(way['cpu'])} "
                f"| {_spread(way['wall'])} | {way['cpu_ms']:.0f} | {way['wall_ms']:.0f} | {memory} |"
            )
    return "\n".join(lines)


def _order(cell: dict[str, Any]) -> tuple[str, int]:
    return cell["nets"], cell["num_samples"]


def draw(content: dict[str, Any], path: pathlib.Path) -> None:
    """Steps relative to the IWLB against K, a panel for each networks, and the contest's times."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cells, contests = (sorted(content[kind].values(), key=_order) for kind in ("cells", "contests"))
    panels = list(dict.fromkeys(cell["nets"] for cell in cells))
    contest_panels = list(dict.fromkeys(cell["nets"] for cell in contests))
    count = max(len(panels) + len(contest_panels), 1)
    figure, axes = plt.subplots(1, count, figsize=(3.6 * count, 3.8), squeeze=False, layout="constrained")
    styles = {EXACT: "-", REFILLED: "--", PLAIN: ":"}

    def finish(axis: Any, K: list[int], title: str, ylabel: str) -> None:
        axis.set_xscale("log")
        axis.set_xticks(K, [str(k) for k in K])
        axis.minorticks_off()
        axis.set(title=title, xlabel="K", ylabel=ylabel)
        axis.axhline(1.0, color="grey", linewidth=0.8)
        axis.grid(alpha=0.3)

    handles = {}
    for axis, nets in zip(axes[0], panels, strict=False):
        here = [cell for cell in cells if cell["nets"] == nets]
        names = list(dict.fromkeys(name for cell in here for name in cell["steps"] if not name.startswith("IWLB")))
        alphas = sorted({name.split()[1] for name in names}, key=float)
        for name in names:
            rows = [(cell["num_samples"], *cell["steps"][name]["cpu"]) for cell in here if name in cell["steps"]]
            K, median, low, high = zip(*rows, strict=True)
            _, alpha, gradient = name.split()
            color = f"C{alphas.index(alpha)}"
            label = f"alpha {alpha}, {gradient}"
            (handles[label],) = axis.plot(K, median, linestyle=styles[gradient], color=color, marker=".")
            axis.fill_between(K, low, high, color=color, alpha=0.12)
        finish(axis, [cell["num_samples"] for cell in here], nets, "CPU time / IWLB")
    for axis, nets in zip(axes[0][len(panels) :], contest_panels, strict=False):
        here = [cell for cell in contests if cell["nets"] == nets]
        K = [cell["num_samples"] for cell in here]
        for number, way in enumerate((ONE_PROGRAM, DISPATCHED, AT_ONCE)):
            axis.plot(K, [cell["ways"][way]["cpu"][0] for cell in here], marker=".", color=f"C{number + 4}", label=way)
        finish(axis, K, f"{nets}, alpha 1, plain", "CPU time / PyTorch port")
        axis.set_ylim(bottom=0.0)
        axis.legend(fontsize="x-small")
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
