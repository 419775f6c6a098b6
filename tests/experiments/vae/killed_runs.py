"""Kill -9 a run of `experiments.vae` twenty times, and see that it comes to the numbers of a run that was left alone.

    python -m tests.experiments.vae.killed_runs                  # 22 starts, some minutes; status 0 if all is equal
    python -m tests.experiments.vae.killed_runs --folder DIR     # keeps what it wrote

The kills are spread over the preparation of the data, compilation, training between checkpoints, the writing of
checkpoints, evaluation and the saving of its pieces, the pictures, and the writing of the result. Every start goes on
where the one before it was killed. The last one is left alone, and what it writes is compared with an uninterrupted
run: all figures and curves to the last bit, and the pictures byte by byte.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[3]
OPTIONS = "--model hiwae-1 --num-samples 2 --steps 480 --warmup 60 --batch-size 20 --latent 4 --hidden 16,16"
OPTIONS += " --proposal-hidden 8 --nll-samples 20 --seeds 2"
COMPARED = ("format", "settings", "steps", "train_bound", "validation_bound", "test_bound", "validation_nll")
COMPARED += ("test_nll", "nll_samples", "nll_images", "curves", "data")
RESTORED = "a checkpoint was restored"
NEXT = "-- the next command"
SIZES = {"train": 400, "validation": 100, "test": 100}  # images of a small set in the format of binarized MNIST


class Kill(NamedTuple):
    """Where a process is to die.

    Attributes:
      phase: a key of `PHASES` in the program below.
      skipped: how many times the phase is passed before.
      delay: seconds from its beginning; at the end of the phase at the latest.
      between_checkpoints: seconds, of `training.SECONDS_BETWEEN_CHECKPOINTS`.
    """

    phase: str
    skipped: int
    delay: float
    between_checkpoints: float = 0.0


TWENTY = [
    *[Kill("preparation", 0, delay) for delay in (0.0, 0.4)],
    Kill("packed file", 0, 0.0),
    *[Kill("compilation", 0, delay) for delay in (0.2, 1.0, 2.5)],
    # Two calls that no checkpoint saves, and some way into the third.
    *[Kill("training", 2, delay, 1e9) for delay in (0.0, 0.03)],
    *[Kill("checkpoint", 0, delay) for delay in (0.0, 0.03, 0.08)],
    *[Kill("training", 1, delay, 1e9) for delay in (0.01, 0.02)],
    *[Kill("checkpoint", 1, delay) for delay in (0.05, 0.15)],
    Kill("evaluation", 1, 0.0),
    Kill("evaluation", 7, 0.0),
    Kill("pieces", 3, 0.0),
    Kill("pictures", 0, 0.5),
    Kill("result", 0, 0.0),
]

# Runs commands in a process that kills itself at the place that is named.
PROGRAM = """
import json, os, signal, sys, threading
phase, skipped, delay, between, prelude, arguments = json.loads(sys.argv[1])
exec(prelude)
import jax
from tests import hurry
from experiments.shared import stored
from experiments.vae import checkpoints, command, evaluation, pictures, training
from hiwae_jax.data import packed_cache, preparation

hurry.begin()
training.STEPS_A_CALL, training.SECONDS_BETWEEN_CHECKPOINTS = 40, between
evaluation.SECONDS_BETWEEN_SAVES, evaluation.ROWS_ON_CPU = -1.0, {"mlp": 100}

restore = checkpoints.Checkpoints.restore

def restore_and_tell(self, state):
    found = restore(self, state)
    if found is not None:
        print("a checkpoint was restored")
    return found

checkpoints.Checkpoints.restore = restore_and_tell

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def deadly(function):
    seen = []
    def wrapped(*arguments, **options):
        seen.append(1)
        if len(seen) <= skipped:
            return function(*arguments, **options)
        threading.Timer(delay, die).start() if delay else die()
        jax.block_until_ready(function(*arguments, **options))
        die()
    return wrapped

def deadly_call(make):
    return lambda *arguments, **options: deadly(make(*arguments, **options))

PHASES = {
    "preparation": (preparation, "_prepare", deadly),
    "packed file": (os, "fsync", deadly),
    "compilation": (training, "make_run_call", deadly_call),
    "training": (training, "make_run_call", deadly_call),
    "checkpoint": (checkpoints.Checkpoints, "save", deadly),
    "evaluation": (evaluation, "of_one", deadly),
    "pieces": (stored.Pieces, "write", deadly),
    "pictures": (pictures, "write_pictures", deadly),
    "result": (stored, "write_json", deadly),
}
if phase:
    module, name, change = PHASES[phase]
    setattr(module, name, change(getattr(module, name)))
status = 0
for given in arguments:
    print("-- the next command")
    status = status or command.main(given)
sys.exit(status)
"""


def small_set(folder: pathlib.Path) -> tuple[str, list[str]]:
    """Raw files of a small set: the statements that make the library take it, and the options that name it."""
    import numpy as np

    from hiwae_jax.data import binarized_mnist
    from hiwae_jax.data.dataset import checksum
    from tests.data.tiny_files import TinySet, amat, describe

    rng = np.random.default_rng(1)
    images = {split: rng.integers(0, 2, (size, 784), dtype=np.uint8) for split, size in SIZES.items()}
    names = {split: file.filename for split, file in binarized_mnist.SPECIFICATION.files.items()}
    texts = {names[split]: amat(array) for split, array in images.items()}
    specification = binarized_mnist.SPECIFICATION._replace(
        name="small",
        files={split: describe(texts[name], name) for split, name in names.items()},
        split_sizes=tuple(SIZES.values()),
        checksum=checksum(*(np.packbits(array, axis=-1) for array in images.values())),
    )
    tiny = TinySet(specification, images, texts, folder / "raw", folder / "prepared")
    tiny.manual_dir.mkdir(parents=True)
    tiny.write()
    return tiny.in_python, ["--dataset", "binarized_mnist", "--data-dir", str(tiny.manual_dir)]


class Runs(NamedTuple):
    """Runs of one cell.

    Attributes:
      folder: for everything; compiled programs are shared, because what is compared is the numbers.
      prelude: statements that each process begins with.
      arguments: of the command, without --output.
    """

    folder: pathlib.Path
    prelude: str
    arguments: list[str]

    def start(self, *outputs: str, kill: Kill | None = None) -> tuple[int, str]:
        """The exit status of a process that runs the command for each output, and what was said."""
        phase, *others = kill or Kill("", 0, 0.0)
        arguments = [[*self.arguments, "--output", str(self.folder / output)] for output in outputs]
        told = json.dumps([phase, *others, self.prelude, arguments])
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "TFDS_DATA_DIR": str(self.folder / "prepared" / outputs[0]),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [sys.executable, "-c", PROGRAM, told]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace")
        return done.returncode, done.stdout + done.stderr

    def result(self, output: str) -> tuple[dict, dict[str, bytes]]:
        """What is compared: figures, and the pictures."""
        (path,) = (self.folder / output).glob("*/result.json")
        content = json.loads(path.read_text())
        pictures = {picture.name: picture.read_bytes() for picture in path.parent.glob("*.png")}
        return {name: content[name] for name in COMPARED}, pictures


def check(runs: Runs, kills: list[Kill], *, last_in_one_process: bool = False) -> list[str]:
    """What is wrong: a process that did not die where it should, or another result; says what it does.

    The run that goes on to the end and the one that was left alone have a process each, or one for both.
    """
    faults = []
    for number, kill in enumerate(kills, start=1):
        began = time.monotonic()
        status, told = runs.start("killed", kill=kill)
        print(
            f"{number:2d} of {len(kills)}: {kill.phase}, {time.monotonic() - began:.0f} s, status {status}", flush=True
        )
        if status != -9:
            faults.append(f"{kill} ended with status {status}: {told[-2000:]}")
    for outputs in [("killed", "whole")] if last_in_one_process else [("killed",), ("whole",)]:
        began = time.monotonic()
        status, told = runs.start(*outputs)
        print(f"{outputs}, to the end: {time.monotonic() - began:.0f} s, status {status}", flush=True)
        if status != 0:
            return [*faults, f"{outputs} ended with status {status}: {told[-2000:]}"]
        for output, of_it in zip(outputs, told.split(NEXT)[1:], strict=True):
            if (output == "killed") != (RESTORED in of_it):
                faults.append(f"{output}: {RESTORED if RESTORED in of_it else 'no checkpoint was restored'}")
    (figures, pictures), (whole, its_pictures) = runs.result("killed"), runs.result("whole")
    faults += [
        f"{name} differs: {figures[name]} and {whole[name]}" for name in COMPARED if figures[name] != whole[name]
    ]
    faults += [f"{name} differs" for name in its_pictures if pictures.get(name) != its_pictures[name]]
    if set(pictures) != {"samples.png", "reconstructions.png"}:
        faults.append(f"pictures: {sorted(pictures)}")
    return faults


def main() -> int:
    """Twenty kills on a small set that has to be prepared first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, help="default: one that is removed at the end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or pathlib.Path(temporary)).absolute()
        prelude, of_data = small_set(folder)
        faults = check(Runs(folder, prelude, [*OPTIONS.split(), *of_data]), TWENTY)
    print("\n".join(faults) if faults else f"{len(TWENTY)} kills: the result is that of the uninterrupted run")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
