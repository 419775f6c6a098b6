"""Train and evaluate VAE, IWAE, IWAE(h) and H-IWAE on real images.

    python -m experiments.vae                                            # six models on the digits, a few minutes
    python -m experiments.vae --sweep mnist-mlp --data-dir DIR           # a named grid, from the raw files in DIR
    python -m experiments.vae --sweep mnist --model iwae hiwae-1 --num-samples 5 --seeds 5 --data-dir DIR
    python -m experiments.vae --sweep mnist --data-dir DIR --time-limit 600
    python -m experiments.vae --model iwae hiwae-1 mixture-12            # K samples from a mixture of 12 Gaussians

Every setting takes one value or several, and all combinations are run. Without --sweep, settings that are not given
have the default of `settings.Settings`. With --sweep, data set, model, K, gradient and encoder updates choose among the
cells of the named grid (`sweeps.py`). Other values replace those of the grid.

Finished cells are kept in --output and not repeated. A cell that was stopped continues from its last checkpoint to the
numbers that it would have had. With --time-limit the command stops by itself, but not before one compiled call. SIGTERM
or Ctrl-C make it save and stop. A cell in which another process works is left to that process. Files of a cell that are
damaged or belong to other settings or data are named in an error, or made anew.

Exit status: 0, everything is finished; 1, some cell failed, for example because it diverged, and the others were run;
2, refused before any work, in one line; 75, the same command continues, after the time limit, SIGTERM, or because
another process is at work; 130, Ctrl-C, and the same command continues too.

`experiments.tables` makes tables of the results. With --mesh a run uses several devices, and with --distributed several
processes. docs/devices.md has the commands.
"""

import argparse
import contextlib
import functools
import importlib.util
import itertools
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.shared import command_line, run_folder, stored
from experiments.shared.provenance import provenance
from experiments.vae import ahead, evaluation, images, layout, pictures, report, result_files, training
from experiments.vae.models import make_model, of_one
from experiments.vae.options import NAME, cells, parse
from experiments.vae.settings import Settings, from_json

STOPPED = command_line.AGAIN


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
    programs: ahead.Programs | None = None,
    deadline: float | None = None,
    log: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> dict[str, Any] | None:
    """Train and evaluate one cell and write its folder, or read the result if that was done before.

    With several processes all of them call it, and the first one writes.

    Returns:
      The result, or None if the deadline (of `time.monotonic()`) or a signal came before all was done.

    Raises:
      BusyError: another process works in the folder.
      UnusableError: a file in the folder is damaged or belongs to something else.
      FloatingPointError: a seed diverged.
    """
    settings.check()
    layout.check(settings, mesh)
    folder = output / settings.name()
    with _held(folder):
        result_path = folder / result_files.RESULT
        if layout.agreed(result_path.exists()):
            layout.say(f"{settings.name()}: finished before, read from {result_path}")
            return result_files.read_of_cell(result_path, settings, data)
        return _run(settings, data, folder, in_turn=in_turn, mesh=mesh, programs=programs, deadline=deadline, log=log)


@contextlib.contextmanager
def _held(folder: pathlib.Path) -> Iterator[None]:
    """Keep other processes out of the folder. Of several processes of one run, the first one takes the lock for all."""
    with contextlib.ExitStack() as stack:
        busy = None
        if layout.is_first():
            try:
                stack.enter_context(run_folder.held(folder))
            except run_folder.BusyError as error:
                busy = error
        if not layout.agreed(busy is None):
            raise busy or run_folder.BusyError(f"{folder}: another process works in this folder")
        yield


def _run(
    settings: Settings,
    data: images.AnyDataset,
    folder: pathlib.Path,
    *,
    in_turn: bool,
    mesh: Mesh | None,
    programs: ahead.Programs | None,
    deadline: float | None,
    log: Callable[[dict[str, np.ndarray]], None] | None,
) -> dict[str, Any] | None:
    """Train and evaluate what is not finished yet."""
    origin = provenance()
    make = functools.partial(make_model, settings, pixel_mean=images.pixel_mean(data))
    on_one_device = make()
    model = on_one_device if mesh is None else make(sharding=layout.over(mesh, "sample"))
    ready = programs or ahead.Programs()
    trained = training.train(
        model, settings, data, folder, in_turn=in_turn, mesh=mesh, programs=ready.train, deadline=deadline, log=log
    )
    if not trained.finished:
        return None
    best, evaluated = trained.state.best, folder / "evaluated.npz"
    figures = evaluation.evaluate(
        model, settings, best, data, mesh=mesh, programs=ready.evaluate, saved=evaluated, deadline=deadline
    )
    if figures is None:
        return None
    if layout.is_first():
        one = jax.tree.map(np.asarray, of_one(best, 0))
        pictures.write_pictures(on_one_device, settings, one, data, folder)
    curves = report.finished_curves(trained)
    result = {
        "format": stored.FORMAT,
        "settings": settings.written(),
        "steps": int(curves["step"][-1]),
        **figures,
        "train_seconds": trained.seconds,
        "curves": curves,
        "data": {"name": data.name, "checksum": data.checksum},
        "provenance": origin | ({} if mesh is None else {"mesh": layout.describe(mesh)}),
    }
    if layout.is_first():
        stored.write_json(folder / result_files.RESULT, result)
        evaluated.unlink(missing_ok=True)
    return result


class _Prepared(NamedTuple):
    """The cells that the command line asks for, their data and the mesh, all checked."""

    grid: list[Settings]
    data: dict[str, images.AnyDataset]
    mesh: Mesh | None


def _prepare(options: argparse.Namespace) -> _Prepared:
    """Check everything that can be checked before any work."""
    if options.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise ImportError("argument --tensorboard: needs the package tensorboardX: pip install tensorboardX")
    command_line.make_folder("--output", options.output)
    if options.mesh is not None and not options.distributed:
        layout.split_cpu(options.mesh)
    grid = cells(options)
    mesh = None if options.mesh is None else layout.make_mesh(options.mesh)
    names = list(dict.fromkeys(settings.dataset for settings in grid))
    data = {name: images.load(name, options.data_dir) for name in names}
    _check_all(grid, data, mesh)
    fault = None
    if layout.is_first():
        try:
            for settings in grid:
                path = options.output / settings.name() / result_files.RESULT
                if path.exists():
                    result_files.read_of_cell(path, settings, data[settings.dataset])
        except stored.UnusableError as error:
            fault = error
    if not layout.agreed(fault is None):
        raise fault or stored.UnusableError("the first process refuses a result file")
    return _Prepared(grid, data, mesh)


class _Outcome(NamedTuple):
    """The results, messages on cells that failed or are busy, and the cell in which the run stopped."""

    results: list[dict[str, Any]]
    failed: list[str]
    busy: list[str]
    stopped_in: str | None


def _run_all(options: argparse.Namespace, prepared: _Prepared, deadline: float | None) -> _Outcome:
    """Run every cell, until a limit or a signal stops it."""
    with ahead.compiler() as compiler:
        return _run_each(options, prepared, deadline, compiler)


def _run_each(
    options: argparse.Namespace, prepared: _Prepared, deadline: float | None, compiler: ahead.Compiler
) -> _Outcome:
    outcome, worked = _Outcome([], [], [], None), False
    for settings, following in itertools.zip_longest(prepared.grid, prepared.grid[1:]):
        name, folder = settings.name(), options.output / settings.name()
        is_there = layout.agreed((folder / result_files.RESULT).exists())
        late = worked and deadline is not None and time.monotonic() > deadline
        if not is_there and layout.agreed(late or run_folder.stopping() is not None):
            return outcome._replace(stopped_in=name)
        logged = options.tensorboard and layout.is_first()
        with report.tensorboard_log(folder) if logged else contextlib.nullcontext() as log:
            try:
                result = run(
                    settings,
                    prepared.data[settings.dataset],
                    options.output,
                    in_turn=options.in_turn,
                    mesh=prepared.mesh,
                    programs=compiler.take(settings),
                    deadline=deadline,
                    log=_after_call(options, prepared, log, following, compiler),
                )
            except run_folder.BusyError as error:
                outcome.busy.append(str(error))
                layout.say(f"\n{error}")
                continue
            # Another cell may train well, or need less memory.
            except (FloatingPointError, stored.UnusableError, MemoryError, jax.errors.JaxRuntimeError) as error:
                told = isinstance(error, FloatingPointError | stored.UnusableError)
                text = str(error) if told else f"{name}: {(str(error) or type(error).__name__).splitlines()[0]}"
                outcome.failed.append(text)
                layout.say(f"\n{text}")
                continue
        if result is None:
            return outcome._replace(stopped_in=name)
        worked = worked or not is_there
        outcome.results.append(result)
        layout.say(report.sentence(result))
    return outcome


def _after_call(
    options: argparse.Namespace,
    prepared: _Prepared,
    log: Callable[[dict[str, np.ndarray]], None] | None,
    following: Settings | None,
    compiler: ahead.Compiler,
) -> Callable[[dict[str, np.ndarray]], None]:
    """What is done after each call of a cell: its log is told, and the following cell begins to compile."""
    path = None if following is None else options.output / following.name() / result_files.RESULT

    def told(row: dict[str, np.ndarray]) -> None:
        if log is not None:
            log(row)
        on_one_device = prepared.mesh is None and jax.process_count() == 1
        if following is not None and path is not None and on_one_device and not path.exists():
            compiler.begin(following, prepared.data[following.dataset], in_turn=options.in_turn)

    return told


def _write_summaries(options: argparse.Namespace, data: dict[str, images.AnyDataset], results: list[dict]) -> None:
    """Write a table and the learning curves of each data set into the output folder."""
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
        pictures.write_curves(stem.with_name(f"{stem.name}-curves.png"), curves)


def _say_stopped(where: str, limit: float | None, seconds: float) -> int:
    """Print how to go on, and return the exit status."""
    by = run_folder.stopping()
    reason = "after the time limit" if by is None else "by Ctrl-C" if by == signal.SIGINT else f"by {by.name}"
    layout.say(f"\nstopped {reason} in {where}: the same command goes on from there")
    if by is None and limit is not None and seconds > 1.1 * limit + 1.0:
        layout.say(
            f"--time-limit {limit:g} is too short: starting, compiling and the one call that is always run took "
            f"{seconds:.0f} s; each start gets a little further, and a longer limit is better use of the time"
        )
    return command_line.INTERRUPTED if by == signal.SIGINT else STOPPED


def main(arguments: list[str] | None = None) -> int:
    """Run every cell that is asked for, and write tables and curves of all of them."""
    began = time.monotonic()
    options = parse(arguments, description=__doc__)
    with run_folder.stops_in_order():
        with command_line.refusals(NAME):
            if options.distributed:
                layout.join(options.distributed)
            if jax.config.jax_compilation_cache_dir is None:  # the pieces of a run compile once
                jax.config.update("jax_compilation_cache_dir", str((options.output / "compiled").absolute()))
            prepared = _prepare(options)
        deadline = None if options.time_limit is None else began + options.time_limit
        outcome = _run_all(options, prepared, deadline)
        if outcome.stopped_in is not None:
            return _say_stopped(outcome.stopped_in, options.time_limit, time.monotonic() - began)
    if layout.is_first():
        _write_summaries(options, prepared.data, outcome.results)
        told = [*outcome.failed, *outcome.busy]
        print("\n".join([f"\nfigures, samples and JSON are in {options.output}/", *told]))
    if outcome.busy:
        return STOPPED
    return command_line.FAILED if outcome.failed else command_line.DONE
