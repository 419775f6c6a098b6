"""Train and evaluate VAE, IWAE, IWAE(h) and H-IWAE on real images.

    python -m experiments.vae                                            # six models on the digits, a few minutes
    python -m experiments.vae --sweep mnist-mlp --data-dir DIR           # a named grid, from the raw files in DIR
    python -m experiments.vae --sweep mnist --model iwae hiwae-1 --num-samples 5 --seeds 5 --data-dir DIR
    python -m experiments.vae --sweep mnist --data-dir DIR --time-limit 600

Every setting takes one value or several, and all combinations are run. Without --sweep what is left out has the
default of `settings.Settings`. With it the values given replace those of the named grid (`sweeps.py`), except that data
set, model, K, gradient and encoder updates choose among its cells.

Finished cells are kept in --output and not repeated; one that was stopped, by whatever, goes on from its last
checkpoint to the numbers that it would have had. With --time-limit the command stops by itself; its exit status is
then 75, and 0 once everything is finished, or 1 if an objective became NaN or infinite, which does not keep the other
cells from being run. `experiments.tables` makes tables of the results. With --mesh a run lies over several devices,
with --distributed over several processes; docs/devices.md has the commands.
"""

import argparse
import contextlib
import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments import evaluation, images, layout, report, sweeps, training
from experiments.models import MODELS, alpha_of, make_model, of_one
from experiments.settings import Settings, from_json

STOPPED = 75  # exit status: try again


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; a setting that is left out is None."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", choices=tuple(sweeps.SWEEPS), help="a named grid")
    parser.add_argument("--data-dir", type=pathlib.Path, help="folder of the raw files, plain or .gz")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs"), help="default: %(default)s")
    parser.add_argument("--time-limit", type=float, help="seconds after which to stop, to go on another time")
    parser.add_argument("--in-turn", action="store_true", help="run the seeds one after another, not vectorised")
    parser.add_argument("--tensorboard", action="store_true", help="also write learning curves for TensorBoard")
    parser.add_argument("--mesh", type=layout.parse_mesh, help="devices by axis: data=4,sample=2 (docs/devices.md)")
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="auto",
        help="one of several processes: found by itself under Slurm, Open MPI, Kubernetes and on TPU pods, or "
        "HOST:PORT,COUNT,INDEX; needs --mesh",
    )
    settings = parser.add_argument_group("settings", "one value or several; see experiments/settings.py")
    for name, default in Settings()._asdict().items():
        kind = _layers if name == "hidden" else type(default)
        settings.add_argument(f"--{name.replace('_', '-')}", nargs="+", type=kind, help=f"default: {default}")
    options = parser.parse_args(arguments)
    if options.distributed and not options.mesh:
        parser.error("argument --distributed: needs --mesh, with all devices of all processes")
    return options


def _layers(text: str) -> tuple[int, ...]:
    """One value of --hidden, its layers separated by commas: 200,200."""
    return tuple(int(units) for units in text.split(","))


def cells(options: argparse.Namespace) -> list[Settings]:
    """What the command line asks for, checked."""
    given = {name: getattr(options, name) for name in Settings._fields if getattr(options, name) is not None}
    grids = sweeps.SWEEPS[options.sweep] if options.sweep else [{"model": given.get("model", MODELS)}]
    different: dict[Settings, Settings] = {}
    for settings in sweeps.expand(grids, given):
        settings.check()
        alpha_of(settings.model)
        # The VAE has one sample, whatever K is.
        different.setdefault(settings._replace(num_samples=1) if settings.model == "vae" else settings, settings)
    return list(different.values())


def _check_all(grid: list[Settings], data: dict[str, images.AnyDataset], mesh: Mesh | None) -> None:
    # A mistake in the last cell is an error before the first one trains.
    for settings in grid:
        layout.check(settings, mesh)
        training.make_plan(settings, len(data[settings.dataset].train))
    different = {(s.architecture, s.model, s.gradient, s.free_bits > 0.0): s for s in grid}
    for settings in different.values():
        model = make_model(settings, pixel_mean=images.pixel_mean(data[settings.dataset]))
        training.make_objective(model, settings)


def run(
    settings: Settings,
    data: images.AnyDataset,
    output: pathlib.Path,
    *,
    in_turn: bool = False,
    mesh: Mesh | None = None,
    deadline: float | None = None,
    log: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> dict[str, Any] | None:
    """One cell: trained, evaluated and written to its folder; read back if that was done before.

    With several processes all of them call it, and the first one writes.

    Returns:
      The result, or None if the deadline (of `time.monotonic()`) came before all was done.
    """
    settings.check()
    layout.check(settings, mesh)
    folder = output / settings.name()
    result_path = folder / "result.json"
    if layout.agreed(result_path.exists()):
        layout.say(f"{settings.name()}: finished before, read from {result_path}")
        return json.loads(result_path.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    provenance = report.provenance()
    make = functools.partial(make_model, settings, pixel_mean=images.pixel_mean(data))
    on_one_device = make()
    model = on_one_device if mesh is None else make(sharding=layout.over(mesh, "sample"))
    trained = training.train(model, settings, data, folder, in_turn=in_turn, mesh=mesh, deadline=deadline, log=log)
    if not trained.finished:
        return None
    best, evaluated = trained.state.best, folder / "evaluated.npz"
    figures = evaluation.evaluate(model, settings, best, data, mesh=mesh, saved=evaluated, deadline=deadline)
    if figures is None:
        return None
    if layout.is_first():
        one = jax.tree.map(np.asarray, of_one(best, 0))
        report.write_pictures(on_one_device, settings, one, data, folder)
    curves = report.finished_curves(trained)
    result = {
        "settings": settings._asdict(),
        "steps": int(curves["step"][-1]),
        **figures,
        "train_seconds": trained.seconds,
        "curves": curves,
        "data": {"name": data.name, "checksum": data.checksum},
        "provenance": provenance | ({} if mesh is None else {"mesh": layout.describe(mesh)}),
    }
    if layout.is_first():
        report.write_json(result_path, result)
        evaluated.unlink(missing_ok=True)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run every cell asked for, and print and write what they have in common."""
    options = parse(arguments)
    if options.distributed:
        layout.join(options.distributed)
    deadline = None if options.time_limit is None else time.monotonic() + options.time_limit
    if jax.config.jax_compilation_cache_dir is None:  # the pieces of a run compile once
        jax.config.update("jax_compilation_cache_dir", str((options.output / "compiled").absolute()))
    grid = cells(options)
    mesh = None if options.mesh is None else layout.make_mesh(options.mesh)
    names = list(dict.fromkeys(settings.dataset for settings in grid))
    data = {name: images.load(name, options.data_dir) for name in names}  # what is missing is an error before any work
    _check_all(grid, data, mesh)
    results, failed = [], []
    for settings in grid:
        folder = options.output / settings.name()
        logged = options.tensorboard and layout.is_first()
        with report.tensorboard_log(folder) if logged else contextlib.nullcontext() as log:
            try:
                result = run(
                    settings,
                    data[settings.dataset],
                    options.output,
                    in_turn=options.in_turn,
                    mesh=mesh,
                    deadline=deadline,
                    log=log,
                )
            except FloatingPointError as error:  # the other cells may well be sound
                failed.append(str(error))
                layout.say(f"\n{error}")
                continue
        if result is None:
            layout.say(f"\nstopped after the time limit in {settings.name()}: the same command goes on from there")
            return STOPPED
        results.append(result)
    if not layout.is_first():
        return 1 if failed else 0
    for name in dict.fromkeys(result["settings"]["dataset"] for result in results):
        of_set = [result for result in results if result["settings"]["dataset"] == name]
        text = report.table(of_set)
        print(
            f"\n{data[name].name}: bounds and NLL in nats, NLL from {of_set[0]['nll_samples']:,} samples of z for each "
            f"of {of_set[0]['nll_images'][1]:,} test images\n\n{text}"
        )
        stem = options.output / (f"{name}-{options.sweep}" if options.sweep else name)
        stem.with_suffix(".md").write_text(text + "\n")
        every = [from_json(result["settings"]) for result in of_set]
        titles = [f"{label}, K {s.num_samples}" for label, s in zip(report.labels(every), every, strict=True)]
        curves = {name: result["curves"] for name, result in zip(titles, of_set, strict=True)}
        report.write_curves(stem.with_name(f"{stem.name}-curves.png"), curves)
    print("\n".join([f"\nfigures, samples and JSON are in {options.output}/", *failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
