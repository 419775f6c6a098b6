"""The command line of `experiments.vae`, and the cells that it asks for."""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

from experiments.shared import command_line
from experiments.vae import layout, sweeps
from experiments.vae.models import MODELS, alpha_of
from experiments.vae.settings import BOUNDS_AT_LEAST, Settings

NAME = "experiments.vae"
ABOVE_ZERO = command_line.number(above=0.0)
NUMBERS = {
    "learning_rate": ABOVE_ZERO,
    "clip": ABOVE_ZERO,
    "free_bits": command_line.number(least=0.0),
    "polyak": command_line.number(least=0.0, below=1.0),
}


def parse(arguments: list[str] | None = None, *, description: str | None = None) -> argparse.Namespace:
    """Read the command line; a setting that is left out is None."""
    parser = command_line.Parser(NAME, description)
    parser.add_argument(
        "--sweep", choices=tuple(sweeps.SWEEPS), help="a named grid of settings, one cell for each table entry"
    )
    parser.add_argument("--data-dir", type=command_line.existing_folder, help="folder of the raw files, plain or .gz")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs"), help="default: %(default)s")
    seconds = command_line.number(least=0.0)
    parser.add_argument("--time-limit", type=seconds, help="stop after so many seconds; the same command continues")
    parser.add_argument("--in-turn", action="store_true", help="run the seeds one after another, not vectorised")
    parser.add_argument("--tensorboard", action="store_true", help="also write learning curves for TensorBoard")
    parser.add_argument(
        "--mesh", type=layout.parse_mesh, help="number of devices of each axis, as data=4,sample=2 (docs/devices.md)"
    )
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="auto",
        help="run as one of several processes; under Slurm, Open MPI, Kubernetes and on TPU pods address, count and "
        "index are found, elsewhere give them as HOST:PORT,COUNT,INDEX; needs --mesh",
    )
    settings = parser.add_argument_group("settings", "one value or several; see experiments/vae/settings.py")
    for name, default in Settings()._asdict().items():
        kind = _layers if name == "hidden" else _kind(name, default)
        settings.add_argument(f"--{name.replace('_', '-')}", nargs="+", type=kind, help=f"default: {default}")
    options = parser.parse_args(arguments)
    if options.distributed and not options.mesh:
        parser.error("argument --distributed: needs --mesh, with all devices of all processes")
    return options


def _layers(text: str) -> tuple[int, ...]:
    """One value of --hidden, its layers separated by commas: 200,200."""
    return tuple(map(command_line.whole_number(1), text.split(",")))


def _kind(name: str, default: Any) -> Callable[[str], Any]:
    if isinstance(default, int):
        return command_line.whole_number(BOUNDS_AT_LEAST[name])
    return NUMBERS.get(name, str)


def cells(options: argparse.Namespace) -> list[Settings]:
    """The cells that the command line asks for, checked."""
    given = {name: getattr(options, name) for name in Settings._fields if getattr(options, name) is not None}
    grids = sweeps.SWEEPS[options.sweep] if options.sweep else [{"model": given.get("model", MODELS)}]
    different: dict[Settings, Settings] = {}
    for settings in sweeps.expand(grids, given):
        settings.check()
        alpha_of(settings.model)
        # The VAE has one sample, whatever K is.
        different.setdefault(settings._replace(num_samples=1) if settings.model == "vae" else settings, settings)
    return list(different.values())
