"""Measure one optimisation step of one IWAE, in this library, in plain JAX, and in other libraries that have it.

    python -m benchmarks.peers                                        # everything that is installed, one core
    python -m benchmarks.peers --num-samples 5 50 --contestants hiwae-chunks numpyro --rounds 20
    python -m benchmarks.peers --peak --cores 2                       # peak memory too; two cores
    python -m benchmarks.peers --smoke                                # all of it in tiny sizes, to see that it works

A step is loss, gradient and Adam update of one batch of 64 binary images, including the drawing of noise. The
parameters are carried on from step to step. The encoder is 784-200-200-(32 + 32), and the decoder 32-200-200-784 with
Bernoulli logits. Units are tanh, q is a diagonal Gaussian with scale softplus + 1e-4, the prior is standard normal, and
all is float32. Every ratio is to "plain JAX": vmap, logsumexp and optax written by hand, under one jit, the whole batch
at once. CPU time is that of all threads. Data loading, compiling, logging and convergence are not measured. The batch
is the same at every step and lies on the device.

  hiwae_jax   plain and DReG ("doubly_reparameterized") gradient. "chunks": with `batched_value_and_grad`, which chooses
              how many examples it evaluates at once. "scanned": 20 of these steps in one call with `lax.scan` (2 at
              K = 500), time for each step; "plain JAX, scanned" is the same without chunks.
  NumPyro     jitted `SVI.update`, `RenyiELBO(alpha=0)` with vectorised particles, optax.
  TFP         `tfp.vi.monte_carlo_variational_loss(importance_sample_size=K)` on JAX, optax. Its DReG squares the
              weights of the model's gradient too: the decoder's gradient is then biased for K > 1.
  PyTorch     by hand, eager and with `torch.compile`; `torch.optim.Adam(fused=True)`, as for pythae.
  Pyro        `SVI.step`, `RenyiELBO(alpha=0, vectorize_particles=True)`, validation off, `pyro.optim.Adam`.
  pythae      `IWAE` with the networks above.

Before anything is timed, each contestant must have the same loss to 1e-5 and gradient to 1e-3 as plain JAX, from the
same parameters and the same noise. hiwae_jax draws its noise as plain JAX does. Pyro, pythae and PyTorch are given
noise in place of what they would draw. For NumPyro and TFP, the z that belong to their key are drawn a second time, and
plain JAX is evaluated there. The loss of pythae is the mean of log w under the normalised weights. Its gradient is that
of the bound, and it is compared with that mean. Losses that are sums over the batch are divided by 64.

Contestants that are not installed are skipped, and named. To install all of them, use a separate environment, and
install PyTorch's build for CPUs first:

    pip install torch==2.13.0
    pip install -e ".[peers]"

In a round every contestant runs in shuffled order, each for at least 0.3 s. The tables have the median over rounds of
the ratio within a round, and its quartiles.

On Linux the C library returns large buffers to the system after each call and gets them again page by page. At K = 50
and 500 this is a third of the CPU time of plain JAX, and much of what chunks and scanning save. It keeps large buffers
with these variables in the environment (up to K = 50 also without the first):

    MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=4000000000

Such variables are recorded with the results. Look at the figures with and without them.
"""

import argparse
import importlib.metadata
import os
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.peers.contestants import PEERS, REFERENCE, why_missing
from benchmarks.shared import cores
from experiments.shared import command_line, run_folder

if TYPE_CHECKING:  # at run time it waits until the cores are chosen
    from benchmarks.peers.problem import Problem

NAME = "benchmarks.peers"
RIVALS = ("numpyro", "tfp-nightly", "torch", "pyro-ppl", "pythae")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; `--smoke` replaces defaults only."""
    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(1)
    parser.add_argument("--num-samples", nargs="+", type=count, help="K; default: 1 5 50 500")
    parser.add_argument("--contestants", nargs="+", choices=tuple(PEERS), metavar="NAME", help="default: all")
    parser.add_argument("--rounds", type=count, help="rounds of measurement; default: 15")
    parser.add_argument(
        "--seconds", type=command_line.number(above=0.0), help="seconds of one contestant in one round; default: 0.3"
    )
    parser.add_argument("--cores", type=count, default=1, help="CPU cores to run on; default: %(default)s")
    parser.add_argument(
        "--data-dir",
        type=command_line.existing_folder,
        help="folder of the files of binarized MNIST, to use its images",
    )
    parser.add_argument("--peak", action="store_true", help="measure peak memory, each contestant in its own process")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder of table and JSON; default: results, and runs/peers for a part of K or contestants",
    )
    parser.add_argument(
        "--figure", type=pathlib.Path, help="file of the figure; default: docs/peers.png, or peers.png in runs/peers"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one short round, results in runs/peers_smoke")
    parser.add_argument("--peak-of", choices=tuple(PEERS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    in_part = options.num_samples is not None or options.contestants is not None
    folder = pathlib.Path("runs/peers_smoke" if options.smoke else "runs/peers")
    to_publish = not (options.smoke or in_part)
    defaults = {
        "num_samples": [1, 3] if options.smoke else [1, 5, 50, 500],
        "rounds": 2 if options.smoke else 15,
        "seconds": 0.01 if options.smoke else 0.3,
        "contestants": list(PEERS),
        "output": pathlib.Path("results") if to_publish else folder,
        "figure": pathlib.Path("docs/peers.png") if to_publish else folder / "peers.png",
    }
    for name, default in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    return options


def restrict(count: int) -> None:
    """Keep this process on so many cores; frameworks size their thread pools by it when they are imported."""
    cores.use_cores(count)
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        import torch
    except (ImportError, OSError):
        return
    torch.set_num_threads(count)


def make_problem(options: argparse.Namespace, num_samples: int) -> "Problem":
    """The problem that all contestants solve at one K."""
    import jax

    from benchmarks.peers.problem import Sizes, make_problem
    from experiments.vae import images

    sizes, pixels = Sizes(batch=8, pixels=20, hidden=16, latent=4) if options.smoke else Sizes(), None
    if options.data_dir is not None:
        data = images.load("binarized_mnist", options.data_dir)
        pixels = images.make_pixels(data)(data.train[: sizes.batch], jax.random.key(0))[:, : sizes.pixels]
    return make_problem(sizes, num_samples, pixels)


def peak_in_own_process(options: argparse.Namespace, name: str, num_samples: int) -> int:
    """Measure `measurement.peak_bytes` in a process of its own, in which no other contestant has used memory."""
    command = [sys.executable, "-m", "benchmarks.peers", "--peak-of", name, "--num-samples", str(num_samples)]
    command += ["--cores", str(options.cores), *(["--smoke"] if options.smoke else [])]
    command += [] if options.data_dir is None else ["--data-dir", str(options.data_dir)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(finished.stdout.splitlines()[-1])


def _versions() -> dict[str, str]:
    versions = {}
    for name in RIVALS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def main(arguments: list[str] | None = None) -> int:
    """Measure, unless another process does so in the same folder."""
    options = parse(arguments)
    with command_line.refusals(NAME):
        restrict(options.cores)
    if options.peak_of:
        _print_peak(options)
        return command_line.DONE
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
        command_line.make_folder_of("--figure", options.figure)
        if options.data_dir is not None:
            from experiments.vae import images

            images.load("binarized_mnist", options.data_dir)  # missing files are an error before any work
    return run_folder.work_in(options.output, lambda: _run(options))


def _print_peak(options: argparse.Namespace) -> None:
    import jax

    from benchmarks.peers import measurement

    jax.config.update("jax_default_matmul_precision", "float32")
    print(measurement.peak_bytes(options.peak_of, make_problem(options, options.num_samples[0])))


def _run(options: argparse.Namespace) -> None:
    """Print and write the tables."""
    import jax
    import numpy as np

    from benchmarks.peers import measurement, tables
    from experiments.shared import compact_json, provenance

    jax.config.update("jax_default_matmul_precision", "float32")  # accelerators multiply shorter floats by default
    wanted = list(dict.fromkeys([REFERENCE, *options.contestants]))
    skipped = {name: reason for name in wanted if (reason := why_missing(name)) is not None}
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}", flush=True)
    names = [name for name in wanted if name not in skipped]
    settings = {name: getattr(options, name) for name in ("num_samples", "rounds", "seconds", "cores", "smoke")}
    settings["environment"] = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    result = {
        "settings": {**settings, "images": "coin flips" if options.data_dir is None else "binarized MNIST"},
        "provenance": {**provenance.provenance(), **_versions()},
        "skipped": skipped,
        "history": [],  # one call measures the whole file
        "cells": [],
    }
    for K in options.num_samples:
        problem = make_problem(options, K)
        result["settings"] |= {"sizes": problem.sizes._asdict(), "pixel_mean": float(np.mean(problem.images))}
        cell = measurement.run_cell(problem, names, rounds=options.rounds, least_seconds=options.seconds)
        if options.peak:
            for name, row in cell["contestants"].items():
                row["peak_bytes"] = peak_in_own_process(options, name, K)
        result["cells"].append(compact_json.rounded(cell))
        compact_json.write(options.output / "peers.json", result)
        print(tables.table({**result, "cells": result["cells"][-1:]}), end="\n\n", flush=True)
    text = tables.table(result)
    (options.output / "peers.md").write_text(text + "\n")
    tables.draw_figure(result, options.figure)
    print(f"{text}\n\ntables and JSON are in {options.output}/, the figure is {options.figure}")
