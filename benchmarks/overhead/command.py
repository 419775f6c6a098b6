"""Measure the cost of the hierarchical bound beside the IWLB, find where it goes, and compare with a PyTorch port.

    python -m benchmarks.overhead                                     # everything; an hour or two on two cores
    python -m benchmarks.overhead --decoders conv --num-samples 5 50 --cores 1
    python -m benchmarks.overhead --smoke                             # tiny, in minutes; figures mean nothing

A step is value and gradient of the mean bound of a batch, without an optimizer, compiled as a user would:
`jax.jit(hj.batched_value_and_grad(bound, draw=bound.draw))`. This draws the samples of the whole batch at once. It
evaluates the rest of the bound for as many examples at once as it chooses. The networks are the paper's
(`hiwae_jax.nn`) with 32 latents. The proposal's networks have 100 context and 100 hidden units, or 450 and 1,920.
Encoder and decoder are MLPs (784-200-context, latent-200-200-784, tanh units) or the residual convolutional networks.

Every method is compared with the IWLB of the same K, networks and family of gradients. Plain is compared with plain,
and "refilled" with the doubly reparameterized one. Programs take turns, with one call each in a round. A ratio is that
of two calls of one round. Columns:

  CPU         CPU seconds over those of the IWLB: median over rounds [quartiles]. All threads count.
  wall        the same of wall-clock seconds.
  FLOPs       the same, as XLA counts them in the program before it is compiled, for the whole batch at once.
  CPU ms      of the step itself.
  temp MiB    temporary memory of the compiled program.
  compile s   CPU seconds of tracing and compiling.

The breakdown times programs that evaluate a part alone, in the same rounds, with value and gradient at the shapes of a
step. The parts are the encoder, the networks of the proposal (base, conditionals, reverse), and the decoder with the
likelihood at all K x batch samples. The rest is the step minus these parts: noise, densities, weighting, gradient rule,
and under "refilled" the K more forward passes of the decoder. Each part includes the overhead of a program of its own,
so the rest of small steps is negative.

The contest compares the convolutional H-IWLB at alpha = 1 with a port to PyTorch (`torch_port.py`), eager, all rows at
once. The port is evaluated in float64 at the same parameters and noise. Our float32 value must agree with it to 1e-5
and our plain gradient to 1e-4, or there is no result. The port is timed in float32. Ours are the plain estimator in one
program, the same dispatched chunk by chunk from Python, and all examples at once. "MiB" is the temporary memory of our
compiled program, which includes gradients. For PyTorch it is what the forward pass keeps for the backward pass, without
gradients. Without PyTorch the port is left out. On a GPU both run there, without TensorFloat-32 on either side. CPU
times are then of the process that waits, so look at the wall-clock times.

Finished cells are kept in the JSON file. A second call adds what is missing, and new values of alpha too. If the file
is from another machine, version or batch, the command stops with an error. `--again` replaces it.
"""

import argparse
import itertools
import pathlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.overhead.tables import draw, table
from benchmarks.shared import cores
from experiments.shared import command_line, run_folder

if TYPE_CHECKING:  # at run time it waits until the cores are chosen
    from benchmarks.overhead.problem import Sizes
    from benchmarks.shared.measurements import Content

NAME = "benchmarks.overhead"
ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "results"
FIGURE = ROOT / "docs" / "overhead.png"
WIDTHS = {"small": (100, 100), "large": (450, 1_920)}  # context, and hidden units of the proposal's networks
SMOKE_WIDTHS = {"small": (12, 16), "large": (20, 24)}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line. `--cores` takes effect here, before JAX is imported and starts its threads."""
    parser = command_line.Parser(NAME, __doc__)
    count, alpha = command_line.whole_number(1), command_line.number(least=0.0)
    parser.add_argument("--decoders", nargs="+", choices=("mlp", "conv"), default=["mlp", "conv"])
    parser.add_argument(
        "--proposals",
        nargs="+",
        choices=("small", "large"),
        default=["small", "large"],
        help="sizes of the networks: 100/100 or 450/1,920 units",
    )
    parser.add_argument("--num-samples", nargs="+", type=count, default=[1, 2, 5, 10, 20, 50], help="K")
    parser.add_argument("--alpha", nargs="+", type=alpha, default=[0.0, 1.0, 3.0], help="default: 0 1 3")
    parser.add_argument("--batch-size", type=count, default=64, help="default: %(default)s")
    parser.add_argument(
        "--chunk-size", type=count, help="number of examples evaluated at once; default: chosen by the library"
    )
    parser.add_argument("--no-draw", action="store_true", help="evaluate the proposal in chunks as well")
    parser.add_argument("--rounds", type=count, default=9, help="default: %(default)s")
    parser.add_argument("--cores", type=count, help="CPU cores to run on; default: all that the process may use")
    parser.add_argument(
        "--time-limit", type=command_line.number(least=0.0), help="begin no cell after so many seconds; default: none"
    )
    parser.add_argument("--no-steps", action="store_true", help="run only the comparison with the PyTorch port")
    parser.add_argument("--no-contest", action="store_true", help="leave out the PyTorch port")
    parser.add_argument("--again", action="store_true", help="replace the file of results instead of adding to it")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, results in runs/overhead_smoke")
    parser.add_argument("--output", type=pathlib.Path, help="folder; default: results")
    options = parser.parse_args(arguments)
    with command_line.refusals(NAME):
        cores.use_cores(options.cores)
    if options.smoke:
        options.proposals, options.num_samples, options.alpha = ["small"], [2], [1.0]
        options.batch_size, options.rounds = 4, 2
    if options.output is None:
        options.output = pathlib.Path("runs/overhead_smoke") if options.smoke else RESULTS
    return options


class File(NamedTuple):
    """The JSON file to which a run adds.

    Attributes:
      path: where it is.
      content: what it holds; what is measured is added to it.
    """

    path: pathlib.Path
    content: "Content"

    def add(self, kind: str, name: str, figures: dict[str, Any]) -> None:
        """Put the figures of a cell into the file and into the table beside it, and print them."""
        from benchmarks.shared import measurements

        measurements.add(self.content, kind, name, figures)
        self.write()
        only = {
            "cells": {},
            "contests": {},
            "provenance": self.content["provenance"],
            kind: {name: self.content[kind][name]},
        }
        print("\n".join(line for line in table(only).splitlines() if line.startswith("| ")), flush=True)

    def write(self) -> None:
        """Write the file, and the table beside it."""
        from experiments.shared import compact_json

        compact_json.write(self.path, self.content)
        self.path.with_suffix(".md").write_text(table(self.content) + "\n")


def run(options: argparse.Namespace) -> int:
    """Measure what is missing, unless another process does so in the same folder."""
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
    return run_folder.work_in(options.output, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from benchmarks.overhead.problem import Sizes

    began = time.monotonic()
    figure = FIGURE if options.output.resolve() == RESULTS.resolve() else options.output / FIGURE.name
    file = _open(options, figure)
    with_port = not options.no_contest and _has_port(options)
    widths = SMOKE_WIDTHS if options.smoke else WIDTHS
    late = False
    for decoder, proposal, K in itertools.product(options.decoders, options.proposals, options.num_samples):
        late = options.time_limit is not None and time.monotonic() - began > options.time_limit
        if late:
            print(f"the time limit of {options.time_limit:g} s is reached; the same command goes on")
            break
        _measure_cell(file, Sizes(decoder, *widths[proposal]), K, options, with_port=with_port)
    if late and not (file.content["cells"] or file.content["contests"]):
        return command_line.AGAIN
    if not (file.content["cells"] or file.content["contests"]):
        print(f"nothing was measured, and {file.path} has nothing to draw")
        return command_line.FAILED
    file.write()
    draw(file.content, figure)
    print(f"{time.monotonic() - began:.0f} s; wrote {file.path}, the table next to it, and {figure}")
    return command_line.AGAIN if late else command_line.DONE


def _open(options: argparse.Namespace, figure: pathlib.Path) -> File:
    """Open the file to which this run adds, or begin it."""
    from benchmarks.shared import measurements
    from experiments.shared import provenance

    path = options.output / "overhead.json"
    origin = {**provenance.provenance(), "used_cores": cores.used_cores()}
    origin |= {"batch_size": options.batch_size, "chunk_size": options.chunk_size, "draw": not options.no_draw}
    with command_line.refusals(NAME):
        command_line.make_folder_of("--output", figure)
        content = measurements.begun(path, origin, again=options.again, table=table) or {"cells": {}, "contests": {}}
    return File(path, content | {"provenance": origin})


def _has_port(options: argparse.Namespace) -> bool:
    """Whether the PyTorch port can run; if not, a line says why, and the command is refused if it is all there is."""
    from benchmarks.overhead import contest

    reason = contest.why_missing()
    if reason is not None:
        if options.no_steps:
            with command_line.refusals(NAME):
                raise ImportError(f"argument --no-steps: nothing is left to measure: {reason}")
        print(reason)
    return reason is None


def _measure_cell(
    file: File, sizes: "Sizes", num_samples: int, options: argparse.Namespace, *, with_port: bool
) -> None:
    """Measure what the file lacks of one cell."""
    name = f"{sizes.name()}, K = {num_samples}"
    if not options.no_steps:
        cell = file.content["cells"].get(name, {"steps": {}, "parts": {}})
        missing = [a for a in options.alpha if not any(f"WLB {a:g} " in step for step in cell["steps"])]
        if missing:
            from benchmarks.overhead import measurement

            found = measurement.measure(sizes, num_samples, missing, options)
            file.add("cells", name, found | {kind: cell[kind] | found[kind] for kind in ("steps", "parts")})
    if with_port and sizes.decoder == "conv" and name not in file.content["contests"]:
        from benchmarks.overhead import contest

        file.add("contests", name, contest.contest(sizes, num_samples, options))


def main(arguments: list[str] | None = None) -> int:
    """Measure what the command line asks for."""
    return run(parse(arguments))
