"""Measure on one accelerator what a few minutes allow: one command, which stops by itself.

    python -m benchmarks.accelerator --minutes 8                  # the same command goes on where it stopped
    python -m benchmarks.accelerator --minutes 8 --data-dir DIR   # DIR holds the packed MNIST (docs/experiments.md)
    python -m benchmarks.accelerator --smoke                      # all stages in tiny sizes; figures mean nothing

Its stages are commands of their own, and run in this order, each as one process:

  check       `benchmarks.agreement`: values and gradients beside those of the CPU, for each proposal and gradient.
  k_scaling   `benchmarks.k_scaling`: DReG and plain, IWLB and H-IWLB, MLP and convolutional, K = 1 to 10,000, in
              float32, tf32 and bfloat16, the most important cells first.
  pytorch     `benchmarks.overhead --no-steps`: the convolutional step beside the PyTorch port, if PyTorch is installed.
  training    `experiments.vae`: the cell of MNIST with K = 5 (sweep mnist, model hiwae-1) from its checkpoint, if
              --data-dir or TFDS_DATA_DIR names a folder with the packed set.

The minutes include compilation. When a stage begins, it gets its share of the time that is left: 20, 45, 15 and 20
parts for the four, where stages that are left out have no part. What a stage does not use goes to those after it. After
85 % of its time a stage begins no more work, after 95 % it gets SIGTERM, and at the end it is killed. So no stage takes
the time of a later one. A stage that is not possible here is left out with a line that says why, and one that fails
does not stop the others.

Every stage writes its results after each cell into a folder of its name, and the training its checkpoints into --runs.
A command that was killed at any time has lost one cell at most; the same command measures what is missing, and finds
the programs that were compiled in the folder compiled (or where JAX_COMPILATION_CACHE_DIR says). If a file is
from another device or version, its stage is refused; choose another --output. What stages print is in NAME.log. The
page is `accelerator.md`, the figure `k_scaling.png`, and `accelerator.json` says how the last call went.

Exit status: 0, all is done; 1, a stage failed, or a value or gradient does not agree with the CPU's; 2, refused before
any work; 75, the same command has more to do (as the training does for days); 130, Ctrl-C.
"""

import argparse
import datetime
import os
import pathlib
import signal
import sys
import time
from typing import Any

from benchmarks.accelerator import child, page, stages
from benchmarks.accelerator.stages import Stage
from experiments.shared import command_line, compact_json, provenance, run_folder

NAME = "benchmarks.accelerator"
LEAST = 5.0  # seconds; with less a stage would not even start
MOST_MINUTES = 100_000.0
DONE, LEFT, FAILED, SKIPPED = "done", "goes on", "failed", "left out"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line.Parser(NAME, __doc__)
    minutes = command_line.number(above=0.0, below=MOST_MINUTES)
    parser.add_argument("--minutes", type=minutes, default=8.0, help="for everything; default: %(default)g")
    parser.add_argument(
        "--data-dir",
        type=command_line.existing_folder,
        help="folder that holds hiwae_jax_packed with binarized MNIST; default: TFDS_DATA_DIR",
    )
    parser.add_argument("--runs", type=pathlib.Path, help="folder of the training; default: the folder training there")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, results in runs/accelerator_smoke")
    parser.add_argument("--output", type=pathlib.Path, help="folder; default: runs/accelerator")
    options = parser.parse_args(arguments)
    if options.output is None:
        options.output = pathlib.Path("runs/accelerator_smoke" if options.smoke else "runs/accelerator")
    if options.runs is None:
        options.runs = options.output / "training"
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the stages, unless another process does so in the same folder."""
    began = time.monotonic()
    options = parse(arguments)
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
        command_line.make_folder("--runs", options.runs)
    return run_folder.work_in(options.output, lambda: _run(options, began + 60.0 * options.minutes))


def _run(options: argparse.Namespace, deadline: float) -> int:
    reasons = {stage.name: stage.why_not(options) for stage in stages.STAGES}
    until = datetime.datetime.now() + datetime.timedelta(seconds=deadline - time.monotonic())
    titles = "; ".join(stage.title for stage in stages.STAGES if reasons[stage.name] is None)
    print(f"until {until:%H:%M:%S} ({options.minutes:g} minutes): {titles}. Results: {options.output}/", flush=True)
    content = {"provenance": provenance.of_the_call(), "minutes": options.minutes, "smoke": options.smoke, "stages": {}}
    with run_folder.stops_in_order():
        for number, stage in enumerate(stages.STAGES):
            weights = sum(later.weight for later in stages.STAGES[number:] if reasons[later.name] is None)
            content["stages"][stage.name] = _outcome(options, stage, reasons[stage.name], deadline, weights)
            compact_json.write(options.output / "accelerator.json", content)
            page.write(options, content)
        asked = run_folder.stopping()
    states = {outcome["state"] for outcome in content["stages"].values()}
    print(f"the page is {options.output / 'accelerator.md'}", flush=True)
    if asked is not None:
        return command_line.INTERRUPTED if asked == signal.SIGINT else command_line.AGAIN
    return command_line.FAILED if FAILED in states else command_line.AGAIN if LEFT in states else command_line.DONE


def _outcome(
    options: argparse.Namespace, stage: Stage, reason: str | None, deadline: float, weights: float
) -> dict[str, Any]:
    """Run a stage for its share of the time, or leave it out; returns and prints what came of it."""
    began = time.monotonic()
    left = deadline - began
    if reason is not None:
        state, line = SKIPPED, reason
    elif run_folder.stopping() is not None:
        state, line = LEFT, "not begun: stopped by a signal"
    elif left < LEAST:
        state, line = LEFT, "not begun: the time is over"
    else:
        state, line = _run_stage(options, stage, left * stage.weight / weights)
    seconds = time.monotonic() - began
    print(f"{stage.name}: {state}, {seconds:.0f} s: {line}", flush=True)
    return {"state": state, "line": line, "seconds": seconds}


def _run_stage(options: argparse.Namespace, stage: Stage, seconds: float) -> tuple[str, str]:
    """Run a stage for so many seconds at most; returns its state and what it found."""
    log = options.output / f"{stage.name}.log"
    argv = [sys.executable, "-m", stage.module, *stage.arguments(options)]
    argv += ["--output", str(stage.folder(options)), "--time-limit", f"{child.SOFT * seconds:.3f}"]
    size = log.stat().st_size if log.exists() else 0
    compiled = {} if "JAX_COMPILATION_CACHE_DIR" in os.environ else {"JAX_COMPILATION_CACHE_DIR": _compiled(options)}
    status = child.run(argv, log=log, seconds=seconds, environment=compiled | stage.environment(options))
    printed = log.read_bytes()[size:].decode("utf-8", errors="replace")
    return _read(options, stage, status, printed)


def _compiled(options: argparse.Namespace) -> str:
    """The folder of compiled programs, which a second call reads."""
    return str((options.output / "compiled").absolute())


def _read(options: argparse.Namespace, stage: Stage, status: int, printed: str) -> tuple[str, str]:
    """The state of a stage and what it found, from its exit status, its results and what it printed."""
    last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "it printed nothing")
    if status == command_line.REFUSED:
        return SKIPPED if stage.optional else FAILED, last
    found = stage.found(options, printed)
    if status in (command_line.AGAIN, command_line.INTERRUPTED) or (status == command_line.DONE and found.left):
        return LEFT, found.line
    if status == command_line.DONE:
        return DONE, found.line
    return FAILED, found.line if found.failed else f"{last} (status {status})"
