"""How fast the training script runs on a CPU, with all cores as one device and with a device for each core.

    python -m benchmarks.cpu_devices                          # ten minutes on two cores
    python -m benchmarks.cpu_devices --rounds 2 --seconds 3   # half of that

Without `--mesh`, `experiments.vae` has one device, in which XLA spreads each operation over the cores. With `--mesh
data=2` each of two cores takes half of a batch, and of a block of images. The programs are those of the script: a call
of training, with 16 steps and the bounds of 128 images after them, and the negative log-likelihood of a block of images
from 100 samples of z. Images are coin flips, and a batch has 64.

Each measurement is a process of its own, and the first call of a program is not timed. In a round every configuration
runs in shuffled order. The table has medians over rounds, and the ratio of several devices to one within a round.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from experiments.shared import command_line, compact_json, run_folder
from experiments.shared.markdown import table as markdown
from experiments.shared.provenance import provenance

if TYPE_CHECKING:  # at run time it waits until the devices are chosen
    from experiments.vae.settings import Settings
    from hiwae_jax.data import Dataset

NAME = "benchmarks.cpu_devices"
CELLS = {  # the sweep, model and K of each
    "conv, IWAE, K = 1": ("mnist-short", "iwae", 1),
    "conv, H-IWAE alpha 1, K = 5": ("mnist-short", "hiwae-1", 5),
    "mlp, H-IWAE alpha 1, K = 5": ("mnist-mlp", "hiwae-1", 5),
}
IMAGES = 1_024  # of the training set; an epoch is a call
NLL_SAMPLES = 100
WORK = {"training": "ms a step", "evaluation": "ms an image"}


def main(arguments: list[str] | None = None) -> int:
    """Time all configurations, or one of them, and print and write the table."""
    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(1)
    parser.add_argument("--rounds", type=count, default=3, help="default: %(default)s")
    parser.add_argument("--devices", type=count, default=None, help="devices beside one; default: the cores")
    parser.add_argument("--seconds", type=command_line.number(above=0.0), default=5.0, help="of one program in a round")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/cpu_devices"))
    parser.add_argument("--of", choices=tuple(CELLS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.of is not None:
        print(json.dumps(measure(options.of, options.devices, options.seconds)))
        return command_line.DONE
    from benchmarks.shared.cores import used_cores

    options.devices = options.devices or used_cores()
    with command_line.refusals(NAME):
        if options.devices < 2:
            raise ValueError("--devices: expected at least 2, which are compared with one")
        command_line.make_folder("--output", options.output)
    return run_folder.work_in(options.output, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    import numpy as np

    found: dict[str, dict[int, list[dict[str, float]]]] = {cell: {1: [], options.devices: []} for cell in CELLS}
    generator = np.random.default_rng(0)
    for _ in range(options.rounds):
        for cell in CELLS:
            for devices in generator.permutation([1, options.devices]).tolist():
                found[cell][devices].append(_in_own_process(cell, devices, options))
    cells = [{"cell": cell, **_summary(of_cell[1], of_cell[options.devices])} for cell, of_cell in found.items()]
    settings = {name: getattr(options, name) for name in ("rounds", "devices", "seconds")}
    content = {"history": [], "provenance": provenance(), "settings": settings, "cells": cells}
    compact_json.write(options.output / "cpu_devices.json", content)
    (options.output / "cpu_devices.md").write_text(table(content) + "\n")
    print(f"{table(content)}\n\ntable and JSON are in {options.output}/")


def _in_own_process(cell: str, devices: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", NAME, "--of", cell, "--devices", str(devices), "--seconds", str(options.seconds)]
    compiled = {"JAX_COMPILATION_CACHE_DIR": str((options.output / "compiled").absolute())}  # once for all rounds
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **compiled})
    seconds: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return seconds


def _summary(one: list[dict[str, float]], several: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """For each work the medians over rounds: milliseconds with one device and with several, and their ratio."""
    return {
        work: {
            "one": 1e3 * statistics.median(row[work] for row in one),
            "several": 1e3 * statistics.median(row[work] for row in several),
            "ratio": statistics.median(b[work] / a[work] for a, b in zip(one, several, strict=True)),
        }
        for work in WORK
    }


def measure(cell: str, devices: int, seconds: float) -> dict[str, float]:
    """The seconds of a step of training, and of an image of evaluation."""
    from experiments.vae import layout

    layout.split_cpu({"data": devices})
    mesh = None if devices == 1 else layout.make_mesh({"data": devices})

    import jax

    from experiments.vae import evaluation, models, training

    settings, data = _settings(cell), _coin_flips()
    model = models.make_model(settings, pixel_mean=jax.numpy.full(784, 0.5), sharding=layout.over(mesh, "sample"))
    programs = training.make_programs(model, settings, data, mesh=mesh)
    seeds, *arrays = layout.whole(mesh, (jax.numpy.arange(1), data.train, data.validation, data.test))
    state = programs.first_state(seeds)
    nll = evaluation.make_programs(model, settings, data, mesh=mesh).nll
    block = data.train[: evaluation.rows_of_block(settings) // devices * devices]  # as many for each device

    def train() -> None:
        nonlocal state
        state = jax.block_until_ready(programs.call(seeds, state, *arrays))

    def evaluate() -> None:
        with jax.default_matmul_precision(evaluation.PRECISION):
            params = jax.tree.map(lambda leaf: leaf[0], state.params)
            jax.block_until_ready(nll(params, block, jax.numpy.arange(len(block))))

    return {
        "training": _seconds_of(train, seconds) / settings.steps,
        "evaluation": _seconds_of(evaluate, seconds) / len(block),
    }


def _settings(cell: str) -> "Settings":
    """The settings of a cell, for one seed and one call."""
    from experiments.vae import sweeps

    sweep, model, num_samples = CELLS[cell]
    chosen = {"model": [model], "num_samples": [num_samples], "encoder_updates": [1]}
    chosen |= {"seeds": [1], "steps": [IMAGES // 64], "nll_samples": [NLL_SAMPLES], "warmup": [0]}
    return sweeps.expand(sweeps.SWEEPS[sweep], chosen)[0]


def _coin_flips() -> "Dataset":
    """A data set of random images, with few besides those of training."""
    import numpy as np

    from hiwae_jax.data import Dataset

    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 784 // 8), np.uint8)
    return Dataset(images, images[:64], images[:64], (28, 28), "coin flips", "")


def _seconds_of(call: Callable[[], None], seconds: float) -> float:
    """The mean time of a call, of as many as take so many seconds, after one that is not timed."""
    call()
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < seconds:
        call()
        calls += 1
    return (time.perf_counter() - began) / calls


def table(content: dict[str, Any]) -> str:
    """Markdown, a row for each cell."""
    devices = content["settings"]["devices"]
    header = [f"one device / {devices} devices"]
    header += [text for work, unit in WORK.items() for text in (f"{work}, {unit}", f"{devices} devices / one")]
    rows = []
    for cell in content["cells"]:
        row = [cell["cell"]]
        for work in WORK:
            figures = cell[work]
            row += [f"{figures['one']:.1f} / {figures['several']:.1f}", f"{figures['ratio']:.2f}"]
        rows.append(row)
    return markdown(header, rows)


if __name__ == "__main__":
    sys.exit(main())
