"""What the numbers in the text of pages are computed from: functions that read the result files.

The expressions in the comments `<!-- numbers` call them (`benchmarks.numbers`). `value` reads any entry of a file. The
others are short for what several pages name. A new one is an entry of `NAMES`.
"""

import functools
import json
import pathlib
from collections.abc import Iterable
from typing import Any

DREG = "doubly_reparameterized"
NETS = {"conv": "conv 450/1,920", "mlp": "mlp 100/100"}
RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"


@functools.cache
def content(file: str) -> Any:
    """A result file, by its path below `results/`.

    Raises:
      ValueError: there is none.
    """
    path = RESULTS / file
    if not path.exists():
        raise ValueError(f"results/{file} does not exist")
    return json.loads(path.read_text())


def value(file: str, *path: str | int | dict[str, Any]) -> Any:
    """An entry of a result file: names of entries, places in a list, or a dict that one cell of a list agrees with.

    Raises:
      ValueError: there is no such file, entry, place or cell, or several such cells.
    """
    found = content(file)
    for step in path:
        if isinstance(step, dict):
            cells = found.values() if isinstance(found, dict) else found
            chosen = [cell for cell in cells if all(cell.get(name) == wanted for name, wanted in step.items())]
            if len(chosen) != 1:
                raise ValueError(f"results/{file}: expected one cell with {step}, got {len(chosen)}")
            found = chosen[0]
            continue
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            there = list(found) if isinstance(found, dict) else f"a list of {len(found)}"
            raise ValueError(f"results/{file}: there is no {step!r} in {there}") from None
    return found


def peers(name: str, K: int, run: str = "peers.json") -> float:
    """CPU time of a step of a contestant of `benchmarks.peers` over that of plain JAX, the median over rounds."""
    ratio: float = value(run, "cells", {"num_samples": K}, "contestants", name, "cpu_ratio", 1)
    return ratio


def span(values: Iterable[float]) -> tuple[float, float]:
    """The smallest and the largest; in an expression, `*span(...)` stands for two numbers."""
    listed = list(values)
    return min(listed), max(listed)


def scaling(what: str, K: int, bound: str = "IWLB", alpha: float = 0.0, **others: str) -> float:
    """An entry of a cell of `benchmarks.k_scaling`: DReG, the MLP in float32, as recommended, or with other settings."""
    file = others.pop("file", "k_scaling_cpu.json")
    usual = {"task": "train", "decoder": "mlp", "gradient": DREG, "precision": "float32", "way": "recommended"}
    cell = {"bound": bound, "alpha": alpha, "num_samples": K, **usual, **others}
    number: float = value(file, "cells", cell, what)
    return number


def evidence(what: str, bound: str, num_samples: int) -> float:
    """The same of the estimate of log p(x) with a million samples, by draws of so many."""
    cell = {"task": "evaluate", "bound": bound, "num_samples": num_samples}
    number: float = value("k_scaling_cpu.json", "cells", cell, what)
    return number


def step(nets: str, name: str, K: int, what: str = "cpu", file: str = "overhead.json") -> float:
    """Of a step of `benchmarks.overhead` with "conv" or "mlp" networks: the median ratio to the IWLB, or an entry."""
    found = value(file, "cells", f"{NETS[nets]}, K = {K}", "steps", name, what)
    number: float = found[0] if isinstance(found, list) else found
    return number


def part(nets: str, name: str, K: int, which: str, what: str = "cpu") -> float:
    """Of a part of such a step, over the whole step of the IWLB."""
    found = value("overhead.json", "cells", f"{NETS[nets]}, K = {K}", "parts", f"{name} {DREG}", which, what)
    number: float = found[0] if isinstance(found, list) else found
    return number


def contest(way: str, K: int, what: str = "cpu") -> float:
    """CPU time of a way of this library over the PyTorch port, or another entry."""
    found = value("overhead.json", "contests", f"{NETS['conv']}, K = {K}", "ways", way, what)
    number: float = found[0] if isinstance(found, list) else found
    return number


def share(K: int, *parts: str) -> float:
    """The share of some parts of a step, in percent (`benchmarks.step_parts`)."""
    return 100.0 * sum(value("step_parts.json", "cells", {"num_samples": K}, "shares", name) for name in parts)


def fastest(K: int, run: str = "peers.json") -> float:
    """The smallest ratio to plain JAX of the other libraries."""
    return min(
        peers(name, K, run) for name in ("numpyro", "tfp", "tfp-dreg", "torch", "torch-compiled", "pyro", "pythae")
    )


def quartiles_apart(name: str, K: int) -> float:
    """The distance of the quartiles of a contestant's ratio to plain JAX."""
    low, _, high = value("peers.json", "cells", {"num_samples": K}, "contestants", name, "cpu_ratio")
    return float(high - low)


def of_plain(K: int) -> float:
    """A whole step over one of plain JAX, as `benchmarks.step_parts` measured it."""
    ratio: float = value("step_parts.json", "cells", {"num_samples": K}, "whole step / plain JAX")
    return ratio


def grown(bound: str, K: int = 5_000, what: str = "temp_bytes", **others: str) -> float:
    """By how much an entry of a cell of `benchmarks.k_scaling` is larger at this K than at K = 50."""
    return scaling(what, K, bound, **others) / scaling(what, 50, bound, **others)


def part_of_refilled(K: int) -> float:
    """The FLOPs that refilling adds to a step of the convolutional networks, over those of the IWLB."""
    steps = (f"H-IWLB 1 {gradient}" for gradient in ("refilled", DREG))
    with_refills, without = (step("conv", name, K, "flops_ratio") for name in steps)
    return with_refills - without


def compile_seconds(nets: str) -> list[float]:
    """Of all steps of `benchmarks.overhead` with these networks."""
    cells = [cell for cell in value("overhead.json", "cells").values() if cell["nets"] == NETS[nets]]
    return [entry["compile_seconds"] for cell in cells for entry in cell["steps"].values()]


FUNCTIONS = (
    *(value, span, peers, fastest, quartiles_apart, scaling, grown, evidence, step, part, part_of_refilled),
    *(compile_seconds, contest, share, of_plain),
)
NAMES: dict[str, Any] = {
    **{function.__name__: function for function in FUNCTIONS},
    "DREG": DREG,
    "PLAIN": "reparameterized",
    "ONE_HEAD": "H-IWLB offsets",
    "PROPOSAL": "proposal networks",
    "SECOND": "peers_second/peers.json",
    "PAIRS": "k_scaling_pairs/k_scaling_cpu.json",
    "NO_DRAW": "overhead_no_draw/overhead.json",
}
