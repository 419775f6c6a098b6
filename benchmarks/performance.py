"""The short tables of docs/performance.md, from the result files whose long ones are in `results/`.

`benchmarks.pages` writes them.
"""

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.overhead.tables import AT_ONCE, DISPATCHED, EXACT, ONE_PROGRAM, PORT, REFILLED
from experiments.shared.markdown import table as markdown

Cell = dict[str, Any]
MIB = 2**20
PEERS = {
    "hiwae": "hiwae_jax, whole batch",
    "hiwae-chunks": "hiwae_jax, `batched_value_and_grad`",
    "hiwae-scanned": "the same, steps scanned",
    "hiwae-dreg": "hiwae_jax DReG, whole batch",
    "hiwae-dreg-chunks": "hiwae_jax DReG, `batched_value_and_grad`",
    "hiwae-dreg-scanned": "the same, scanned",
    "jax-scanned": "plain JAX, scanned",
    "numpyro": "NumPyro",
    "tfp": "TensorFlow Probability on JAX",
    "tfp-dreg": "the same, DReG",
    "torch-compiled": "PyTorch by hand, compiled",
    "pyro": "Pyro",
    "pythae": "pythae",
}
KEPT = ("hiwae-chunks", "hiwae-dreg-chunks", "numpyro", "torch-compiled")  # in the run with the other allocator
STEPS = {
    f"H-IWLB 0 {EXACT}": "alpha 0",
    f"H-IWLB 1 {EXACT}": "alpha 1",
    f"H-IWLB 3 {EXACT}": "alpha 3",
    f"H-IWLB 1 {REFILLED}": "alpha 1, refilled",
}
WAYS = {
    ONE_PROGRAM: "`jit(batched_value_and_grad(...))`",
    DISPATCHED: "`dispatch=True`",
    AT_ONCE: "all examples at once",
}
COMPILED = {"IWLB / IWAE": "IWLB", "H-IWLB, alpha 0": "H-IWLB 0", "H-IWLB, alpha 1": "H-IWLB 1"}
COMPILED_K = 5


def peers_table(content: Cell) -> str:
    """CPU time of a step over that of plain JAX, and temporary memory of ours."""
    cells = sorted(content["cells"], key=_num_samples)
    memory = [
        " / ".join(_significant(cell["contestants"][name]["temp_bytes"] / MIB) for name in ("hiwae", "hiwae-chunks"))
        for cell in cells
    ]
    rows = [*_ratios(cells, PEERS), ["temporaries, whole batch / chunks, MiB", *memory]]
    return markdown(["CPU time of a step / plain JAX", *_heads(cells)], rows)


def allocator_table(content: Cell) -> str:
    """The same where the allocator keeps its memory."""
    cells = sorted(content["cells"], key=_num_samples)
    return markdown(["allocator keeps its memory", *_heads(cells)], _ratios(cells, KEPT))


def k_scaling_table(content: Cell) -> str:
    """Time, fraction of the attainable rate and memory of the DReG gradient with an MLP decoder, against K."""
    train = [cell for cell in content["cells"].values() if cell["task"] == "train" and cell["decoder"] == "mlp"]
    train = [cell for cell in train if cell["gradient"] == EXACT and cell["precision"] == "float32"]

    def row(title: str, bound: str, alpha: float, way: str, entry: Callable[[Cell], str]) -> list[str]:
        of_row = {c["num_samples"]: c for c in train if (c["bound"], c["alpha"], c["way"]) == (bound, alpha, way)}
        return [title, *(entry(of_row[K]) if K in of_row else "" for K in counts)]

    def time(cell: Cell) -> str:
        return f"{cell['microseconds_per_sample']:.1f}" if "milliseconds" in cell else "does not fit"

    def memory(cell: Cell) -> str:
        return _significant(cell["temp_bytes"] / 1e6)

    counts = sorted({cell["num_samples"] for cell in train} - {2, 10, 20})
    rows = [
        row("IWLB, microseconds a sample", "IWLB", 0.0, "recommended", time),
        row("fraction of attainable", "IWLB", 0.0, "recommended", lambda cell: f"{100 * cell['fraction']:.0f} %"),
        row("temporaries, MB", "IWLB", 0.0, "recommended", memory),
        row("whole batch at once, microseconds", "IWLB", 0.0, "all at once", time),
        row("temporaries, MB", "IWLB", 0.0, "all at once", memory),
        row("H-IWLB alpha 0, one head, microseconds", "H-IWLB offsets", 0.0, "recommended", time),
        row("temporaries, MB", "H-IWLB offsets", 0.0, "recommended", memory),
    ]
    return markdown(["DReG", f"K = {counts[0]}", *(f"{K:,}" for K in counts[1:])], rows)


def overhead_table(content: Cell) -> str:
    """CPU time of a step of the H-IWLB over one of the IWLB, and in brackets the same of FLOPs."""
    rows = []
    for nets, cells in _by_networks(content["cells"]):
        for name, title in STEPS.items():
            steps = [cell["steps"][name] for cell in cells]
            rows.append([f"{nets}, {title}", *(f"{step['cpu'][0]:.2f} ({step['flops_ratio']:.2f})" for step in steps)])
    _, cells = _by_networks(content["cells"])[0]
    return markdown(["CPU time (FLOPs) of a step / IWLB", *_heads(cells)], rows)


def pytorch_table(content: Cell) -> str:
    """CPU time over that of the PyTorch port, and memory."""
    ((_, cells),) = _by_networks(content["contests"])
    rows = [[title, *(f"{cell['ways'][way]['cpu'][0]:.2f}" for cell in cells)] for way, title in WAYS.items()]
    memory = [" / ".join(f"{cell['ways'][way]['bytes'] / MIB:.0f}" for way in (ONE_PROGRAM, PORT)) for cell in cells]
    return markdown(["CPU time / PyTorch", *_heads(cells)], [*rows, ["MiB, ours / the port's", *memory]])


def compile_table(content: Cell) -> str:
    """Seconds of tracing and compiling a step, at one K."""
    rows = []
    for nets, cells in reversed(_by_networks(content["cells"])):
        (cell,) = (cell for cell in cells if cell["num_samples"] == COMPILED_K)
        seconds = (cell["steps"][f"{name} {EXACT}"]["compile_seconds"] for name in COMPILED.values())
        rows.append([f"{nets}, K = {COMPILED_K}", *(_significant(second) for second in seconds)])
    return markdown(["seconds to compile a step", *COMPILED], rows)


def _num_samples(cell: Cell) -> int:
    count: int = cell["num_samples"]
    return count


def _heads(cells: Iterable[Cell]) -> list[str]:
    return [f"K = {cell['num_samples']}" for cell in cells]


def _ratios(cells: list[Cell], names: Iterable[str]) -> list[list[str]]:
    return [[PEERS[name], *(f"{cell['contestants'][name]['cpu_ratio'][1]:.2f}" for cell in cells)] for name in names]


def _by_networks(cells: dict[str, Cell]) -> list[tuple[str, list[Cell]]]:
    """The cells of each kind of networks, by K."""
    names = sorted({cell["nets"] for cell in cells.values()})
    return [(name, sorted((c for c in cells.values() if c["nets"] == name), key=_num_samples)) for name in names]


def _significant(number: float) -> str:
    """One decimal below 20, and none above."""
    return f"{number:,.1f}" if number < 20 else f"{number:,.0f}"
