"""Wrong command lines of the benchmarks: each is one line that names what is wrong, and status 2, before any work."""

import os

import pytest

from benchmarks import compile_time, control_variates, cpu_devices, trained_cells
from benchmarks.accelerator import command as accelerator
from benchmarks.agreement import command as agreement
from benchmarks.gradient_quality import command as gradient_quality
from benchmarks.k_scaling import command as k_scaling
from benchmarks.overhead import command as overhead
from benchmarks.peers import command as peers
from benchmarks.shared import cores
from tests.experiments.refused import refusal_of

pytestmark = pytest.mark.usefixtures("as_a_script", "two_cores")

USE_CORES = cores.use_cores  # which `as_a_script` replaces

COUNTS = ("0", "-1", "1.5", "nan", "many")


@pytest.fixture
def two_cores(as_a_script, monkeypatch):
    """The process may use two cores, and keeps them whatever it is told."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: None, raising=False)
    monkeypatch.setattr(cores, "use_cores", USE_CORES)


def counts(*names):
    """Every wrong count under each of the options."""
    return [
        (f"--{name} {value}", f"argument --{name}: expected a whole number from 1 to 2,147,483,647, got '{value}'")
        for name in names
        for value in COUNTS
    ]


def numbers(name, limit, *values):
    """Every wrong number under the option."""
    return [
        (f"--{name} {value}", f"argument --{name}: expected a finite number {limit}, got '{value}'") for value in values
    ]


OUTPUT = [
    ("--output {tmp}/file", "argument --output: cannot write into the folder {tmp}/file"),
    ("--output {tmp}/file/below", "argument --output: cannot write into the folder {tmp}/file/below"),
]
ACCELERATOR = [
    *numbers("minutes", "above 0 and below 100000", "0", "-1", "nan", "inf", "x"),
    ("--data-dir {tmp}/nowhere", "argument --data-dir: expected a folder, and {tmp}/nowhere does not exist"),
    ("--data-dir {tmp}/file", "argument --data-dir: expected a folder, and {tmp}/file is a file"),
    ("--runs {tmp}/file", "argument --runs: cannot write into the folder {tmp}/file"),
    ("--stages check", "unrecognized arguments: --stages check"),
    *OUTPUT,
]
AGREEMENT = [
    *numbers("time-limit", "of at least 0", "-1", "nan", "inf", "x"),
    *OUTPUT,
    ("--output {tmp}/agreement", "{tmp}/agreement/agreement.json: no readable JSON"),
    ("--output {tmp}/lacking_agreement", "agreement.json: lacks what its table shows"),
]
COMPILE_TIME = [
    ("--sweeps cifar", "argument --sweeps: expected some of mnist-mlp"),
    ("--models gan", "model: expected vae, iwae"),
    ("--models hiwae-7", "nothing in this sweep has"),
    ("--models", "argument --models: expected at least one argument"),
    ("--steps 5", "unrecognized arguments: --steps 5"),
]
CONTROL_VARIATES = [
    *[(line, message.replace("from 1 to", "from 100 to")) for line, message in counts("draws")],
    ("--models iwae", "--models: expected hiwae-A, whose members differ"),
    ("--models gan", "model: expected vae, iwae"),
]
GRADIENT_QUALITY = [
    *counts("num-samples", "steps", "seeds", "draws"),
    *numbers("alpha", "of at least 0", "-1", "nan", "inf", "x"),
    ("--problems mnist", "argument --problems: invalid choice: 'mnist'"),
    ("--steps 30", "argument --steps: expected a multiple of 20, got 30"),
    ("--steps 10", "argument --steps: expected at least 20, got 10"),
    ("--draws 10", "argument --draws: expected at least 40, got 10"),
    *OUTPUT,
    ("--output {tmp}/gradient_quality", "toy-alpha1-K2.json: no readable JSON"),
    ("--output {tmp}/lacking", "toy-alpha1-K2.json: lacks what its table shows"),
]
K_SCALING = [
    *counts("cores"),
    *numbers("time-limit", "of at least 0", "-1", "nan", "inf", "x"),
    *numbers("memory-limit", "above 0", "0", "-1", "nan", "inf", "x"),
    ("--cores 100000", "--cores: expected 1 to"),
    ("--only nonsense --output {tmp}/new", "argument --only: no cell's name contains all of 'nonsense'"),
    *OUTPUT,
    ("--smoke --output {tmp}/k_scaling", "{tmp}/k_scaling/k_scaling_other.json: no readable JSON"),
]
OVERHEAD = [
    *counts("num-samples", "batch-size", "chunk-size", "rounds", "cores"),
    *numbers("alpha", "of at least 0", "-1", "nan", "inf", "x"),
    ("--cores 100000", "--cores: expected 1 to"),
    ("--decoders transformer", "argument --decoders: invalid choice: 'transformer'"),
    ("--proposals medium", "argument --proposals: invalid choice: 'medium'"),
    *numbers("time-limit", "of at least 0", "-1", "nan", "inf", "x"),
    *OUTPUT,
    ("--output {tmp}/overhead", "{tmp}/overhead/overhead.json: no readable JSON"),
]
PEERS = [
    *counts("num-samples", "rounds", "cores"),
    *numbers("seconds", "above 0", "0", "-1", "nan", "inf", "x"),
    ("--cores 100000", "--cores: expected 1 to"),
    ("--contestants edward", "argument --contestants: invalid choice: 'edward'"),
    ("--data-dir {tmp}/nowhere", "argument --data-dir: expected a folder, and {tmp}/nowhere does not exist"),
    ("--data-dir {tmp}/file", "argument --data-dir: expected a folder, and {tmp}/file is a file"),
    *OUTPUT,
    ("--output {tmp}/new --figure {tmp}", "argument --figure: expected the name of a file, and {tmp} is a folder"),
    ("--output {tmp}/new --figure {tmp}/file/x.png", "argument --figure: cannot write into the folder {tmp}/file"),
]
CPU_DEVICES = [
    *counts("rounds", "devices"),
    *numbers("seconds", "above 0", "0", "-1", "nan", "inf", "x"),
    ("--devices 1", "--devices: expected at least 2"),
    *OUTPUT,
]
TRAINED_CELLS = [
    ("", "the following arguments are required: --runs"),
    ("--runs {tmp}/nowhere", "argument --runs: expected a folder, and {tmp}/nowhere does not exist"),
    ("--runs {tmp} --images 1", "argument --images: expected a whole number from 2"),
    ("--runs {tmp} --output {tmp}/new", "--runs: no finished cell of experiments.vae with its checkpoint is there"),
    *((f"--runs {{tmp}} {line}", message) for line, message in OUTPUT),
]
FILES = {
    "agreement/agreement.json": "{",
    "lacking_agreement/agreement.json": '{"provenance": {}}',
    "overhead/overhead.json": "{",
    "k_scaling/k_scaling_other.json": "{",
    "gradient_quality/cells/toy-alpha1-K2.json": "{",
    "lacking/cells/toy-alpha1-K2.json": '{"provenance": {}, "problem": "toy", "alpha": 1.0}',
}
COMMANDS = {
    accelerator: ACCELERATOR,
    agreement: AGREEMENT,
    compile_time: COMPILE_TIME,
    control_variates: CONTROL_VARIATES,
    cpu_devices: CPU_DEVICES,
    gradient_quality: GRADIENT_QUALITY,
    k_scaling: K_SCALING,
    overhead: OVERHEAD,
    peers: PEERS,
    trained_cells: TRAINED_CELLS,
}


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [(module, *wrong) for module, lines in COMMANDS.items() for wrong in lines],
    ids=lambda value: value if isinstance(value, str) and value.startswith("-") else "",
)
def test_a_wrong_command_line_is_one_line_and_status_2(module, line, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    err = refusal_of(module, [word.format(tmp=tmp_path) for word in line.split()], capsys)
    assert message.replace("{tmp}", str(tmp_path)) in err


def test_the_folder_of_the_figure_is_made_before_anything_is_measured(tmp_path, monkeypatch):
    """A part of K has its figure in runs/peers, whatever folder the tables go to."""
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(peers, "_run", lambda options: seen.append(options.figure.parent.is_dir()))
    assert peers.main(["--num-samples", "1", "--output", str(tmp_path / "tables")]) == 0
    assert seen == [True]
    assert (tmp_path / "runs" / "peers").is_dir()
