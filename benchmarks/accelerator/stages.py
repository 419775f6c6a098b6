"""The stages of `benchmarks.accelerator`: commands with their arguments, and what they wrote."""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.agreement import tables as agreement_tables
from benchmarks.k_scaling import tables as k_scaling_tables
from benchmarks.overhead import tables as overhead_tables
from benchmarks.overhead.tables import ONE_PROGRAM, PORT
from benchmarks.shared import measurements
from benchmarks.shared.measurements import Content
from experiments.shared import stored
from experiments.vae import options as training_options
from hiwae_jax.data import packed_cache
from hiwae_jax.data.binarized_mnist import SPECIFICATION

SMOKE_TRAINING = ["--dataset", "digits", "--model", "iwae", "--num-samples", "2", "--steps", "20", "--warmup", "5"]
SMOKE_TRAINING += ["--hidden", "8", "--latent", "2", "--nll-samples", "2", "--nll-images", "4"]
TRAINING = ["--sweep", "mnist", "--model", "hiwae-1", "--num-samples", "5"]
PROGRESS = re.compile(r"(\d+)/(\d+) \[[^\]]*bound=(-?[\d.]+)")  # of the bar that `experiments.vae` prints


class Found(NamedTuple):
    """What a stage has written so far.

    Attributes:
      line: in words.
      left: whether the same command would add to it.
      failed: whether it has a finding that counts as a failure.
    """

    line: str
    left: bool = False
    failed: bool = False


NOTHING = Found("nothing yet", left=True)


class Stage(NamedTuple):
    """A command of its own.

    Attributes:
      name: of its folder and its log.
      title: what it does, in words.
      weight: its share of the time that is left, relative to the weights of the stages after it.
      module: that is run.
      arguments: `(options) -> list` of the command line, without --output and --time-limit.
      found: `(options, printed) -> Found`, from its results and from what it printed in this call.
      why_not: `(options) -> reason` to leave the stage out; None to run it.
      environment: `(options) -> variables` for it.
      optional: whether the stage is left out, and has not failed, where its command is refused.
    """

    name: str
    title: str
    weight: float
    module: str
    arguments: Callable[[argparse.Namespace], list[str]]
    found: Callable[[argparse.Namespace, str], Found]
    why_not: Callable[[argparse.Namespace], str | None] = lambda options: None
    environment: Callable[[argparse.Namespace], dict[str, str]] = lambda options: {}
    optional: bool = False

    def folder(self, options: argparse.Namespace) -> pathlib.Path:
        """Where its results are."""
        return options.runs if self.name == "training" else options.output / self.name


def agreement(options: argparse.Namespace) -> Content:
    """What `benchmarks.agreement` has written; empty if nothing, or nothing readable."""
    return _newest(options.output / "check", "agreement.json", agreement_tables.table)


def k_scaling(options: argparse.Namespace) -> Content:
    """Likewise `benchmarks.k_scaling`."""
    return _newest(options.output / "k_scaling", "k_scaling_*.json", k_scaling_tables.table)


def contests(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The contests with PyTorch that `benchmarks.overhead` has written."""
    return list(
        _newest(options.output / "pytorch", "overhead.json", overhead_tables.table).get("contests", {}).values()
    )


def _newest(folder: pathlib.Path, pattern: str, table: Callable[[Content], str]) -> Content:
    files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    with contextlib.suppress(ValueError):  # the stage itself refuses a damaged file, and says so
        return measurements.measured(files[-1], table) if files else {}
    return {}


def _smoke(options: argparse.Namespace, *arguments: str) -> list[str]:
    return ["--smoke", *arguments] if options.smoke else []


def _found_agreement(options: argparse.Namespace, printed: str) -> Found:
    del printed
    content = agreement(options)
    if not content:
        return NOTHING
    failed = any("failed" in cell for cell in content["cells"].values())
    return Found(agreement_tables.summary(content), bool(content["not_run"]), failed)


def _found_k_scaling(options: argparse.Namespace, printed: str) -> Found:
    del printed
    content = k_scaling(options)
    if not content:
        return NOTHING
    cells = content["cells"].values()
    counts = {kind: sum(kind in cell for cell in cells) for kind in ("milliseconds", "skipped", "failed")}
    told = [f"{counts['milliseconds']} cells measured"]
    told += [f"{counts[kind]} {kind}" for kind in ("skipped", "failed") if counts[kind]]
    left = 0 if options.smoke else len(content["not_run"])  # a smoke test asks for one cell
    return Found(", ".join([*told, *([f"{left} left"] if left else [])]), left > 0)


def _found_contests(options: argparse.Namespace, printed: str) -> Found:
    del printed
    lines = [
        f"K = {cell['num_samples']}: {cell['ways'][ONE_PROGRAM]['wall_ms']:.3g} ms, and the port "
        f"{cell['ways'][PORT]['wall_ms']:.3g} ms"
        for cell in contests(options)
    ]
    return Found("; ".join(lines)) if lines else NOTHING


def _training(options: argparse.Namespace) -> list[str]:
    return SMOKE_TRAINING if options.smoke else TRAINING


def _found_training(options: argparse.Namespace, printed: str) -> Found:
    (settings,) = training_options.cells(training_options.parse(_training(options)))
    path = options.runs / settings.name() / "result.json"
    if path.exists():
        result = stored.read_json(path)
        bounds = result["test_bound"]["mean"]
        return Found(f"finished after {result['steps']:,} steps: test bound {sum(bounds) / len(bounds):.2f} nats")
    steps = PROGRESS.findall(printed)
    if not steps:
        return NOTHING
    done, total, bound = steps[-1]
    return Found(f"step {int(done):,} of {int(total):,}: validation bound {bound} nats", left=True)


def _why_no_port(options: argparse.Namespace) -> str | None:
    del options
    return None if importlib.util.find_spec("torch") else "PyTorch is not installed (pip install torch)"


def _data_dir(options: argparse.Namespace) -> pathlib.Path:
    default = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
    return (default if options.data_dir is None else options.data_dir).expanduser()


def _why_no_data(options: argparse.Namespace) -> str | None:
    folder = _data_dir(options)
    path = packed_cache.cache_path(SPECIFICATION, folder)
    if options.smoke or path.exists():
        return None
    return (
        f"{path} does not exist. Load the set on any machine, copy its folder hiwae_jax_packed into a folder, and name "
        'that with --data-dir or TFDS_DATA_DIR (docs/experiments.md, "On an accelerator")'
    )


STAGES = (
    Stage(
        "check",
        "values and gradients beside the CPU's",
        20.0,
        "benchmarks.agreement",
        _smoke,
        _found_agreement,
    ),
    Stage(
        "k_scaling",
        "K-scaling",
        45.0,
        "benchmarks.k_scaling",
        # One cell of the smoke test; `python -m benchmarks.k_scaling --smoke` has them all.
        lambda options: _smoke(options, "--only", "IWLB, reparameterized", "mlp"),
        _found_k_scaling,
    ),
    Stage(
        "pytorch",
        "the convolutional step beside PyTorch",
        15.0,
        "benchmarks.overhead",
        lambda options: [
            *("--no-steps", "--decoders", "conv", "--proposals", "large", "--num-samples", "5", "50"),
            *_smoke(options),
        ],
        _found_contests,
        _why_no_port,
        # JAX would take three quarters of the memory, and PyTorch needs its part.
        lambda options: {"XLA_PYTHON_CLIENT_MEM_FRACTION": os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")},
        optional=True,
    ),
    Stage(
        "training",
        "training on MNIST with K = 5",
        20.0,
        "experiments.vae",
        _training,
        _found_training,
        _why_no_data,
        lambda options: {"TFDS_DATA_DIR": str(_data_dir(options))},
        optional=True,
    ),
)
