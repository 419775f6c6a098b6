"""Compare values and gradients on the device that is there, an accelerator, with those of the CPU.

    python -m benchmarks.agreement                     # a minute or two; most of it is compilation
    python -m benchmarks.agreement --time-limit 60     # the same command goes on
    python -m benchmarks.agreement --smoke             # two proposals

Every kind of proposal is compared under every gradient that is valid for it, in small sizes, and the H-IWLB of the
paper's convolutional networks under one gradient. Both sides have the same parameters, examples and keys. They compute
in float32, with matrix products of the precision "highest". A value may be 1e-5 away (relative; absolute where the
value is below 1) and a gradient 1e-4 (of the norm of the gradient of all parameters). For the small problems on a CPU,
float32 is within a fiftieth of that from float64. A Student t family is not compared: its noise is drawn by rejection,
which rounding can decide.

Without an accelerator the CPU is compared with itself, which says that the command works and nothing else.

The JSON file and the table beside it are written after each proposal. A second call compares what is missing and what
did not agree. If the file is from another device or version, the command stops with an error; `--again` replaces it.
The exit status is 1 if something does not agree, and 75 if the time limit left something out.
"""

import argparse
import pathlib
import time

import jax

from benchmarks.agreement import comparison, problems, tables
from benchmarks.shared import measurements
from experiments.shared import command_line, compact_json, provenance, run_folder

NAME = "benchmarks.agreement"
FILE = "agreement.json"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line.Parser(NAME, __doc__)
    seconds = command_line.number(least=0.0)
    parser.add_argument("--time-limit", type=seconds, help="begin no proposal after so many seconds")
    parser.add_argument("--again", action="store_true", help="replace the file of results instead of adding to it")
    parser.add_argument("--smoke", action="store_true", help="two proposals, results in runs/agreement_smoke")
    parser.add_argument("--output", type=pathlib.Path, help="folder; default: runs/agreement")
    options = parser.parse_args(arguments)
    if options.output is None:
        options.output = pathlib.Path("runs/agreement_smoke" if options.smoke else "runs/agreement")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Compare what is missing, unless another process does so in the same folder."""
    began = time.monotonic()
    options = parse(arguments)
    deadline = None if options.time_limit is None else began + options.time_limit
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
    return run_folder.work_in(options.output, lambda: _run(options, deadline))


def _run(options: argparse.Namespace, deadline: float | None) -> int:
    path = options.output / FILE
    with command_line.refusals(NAME):
        where = comparison.devices()
        origin = {**provenance.provenance(), "smoke": options.smoke}
        content = measurements.begun(path, origin, again=options.again, table=tables.table) or {"cells": {}}
    tolerances = {"value": comparison.VALUE_TOLERANCE, "gradient": comparison.GRADIENT_TOLERANCE}
    content |= {"provenance": origin, "tolerances": tolerances}
    if where.here == where.cpu:
        print("there is no accelerator: the CPU is compared with itself", flush=True)
    names = problems.names(smoke=options.smoke)

    def write() -> None:
        content["not_run"] = [name for name in names if not _cells_of(content, name)]
        compact_json.write(path, content)
        path.with_suffix(".md").write_text(tables.table(content) + "\n")

    write()
    for name in names:
        found = _cells_of(content, name)
        if found and not any("failed" in cell for cell in found):
            continue
        if deadline is not None and time.monotonic() > deadline:
            break
        try:
            cells = comparison.compare(name, where)
        except jax.errors.JaxRuntimeError as error:  # one that the device cannot run, and the others may
            cells = {name: {"proposal": name, "gradient": "all", "value_apart": None, "gradient_apart": None}}
            cells[name]["failed"] = (str(error) or type(error).__name__).splitlines()[0]
        content["cells"] = {cell: old for cell, old in content["cells"].items() if old["proposal"] != name}
        for cell, figures in cells.items():
            measurements.add(content, "cells", cell, figures)
        write()
    print(f"{tables.summary(content)}; wrote {path} and the table next to it")
    if any("failed" in cell for cell in content["cells"].values()):
        return command_line.FAILED
    return command_line.AGAIN if content["not_run"] else command_line.DONE


def _cells_of(content: measurements.Content, name: str) -> list[dict]:
    """What the file has of a problem."""
    return [cell for cell in content["cells"].values() if cell["proposal"] == name]
