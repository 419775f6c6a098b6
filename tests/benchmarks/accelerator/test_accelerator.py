"""The stages run in order, each within its time; what fails, is late or cannot run stops nothing else."""

import importlib
import json
import os
import signal
import sys
import time
import types

import pytest

from benchmarks.accelerator import child, page, stages
from benchmarks.accelerator import command as accelerator
from benchmarks.agreement import comparison
from benchmarks.k_scaling import measurement
from experiments.shared import command_line, run_folder
from experiments.vae import training

pytestmark = pytest.mark.usefixtures("as_a_script")

NAMES = ["check", "k_scaling", "pytorch", "training"]


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """Stages that are made up: the seconds that each was given in the order of calls, and how each ends."""
    found = types.SimpleNamespace(given={}, takes={}, statuses={}, prints={}, reasons={}, results={}, now=0.0)
    found.environments = []

    def stage(name, original):
        return original._replace(
            why_not=lambda options: found.reasons.get(name),
            found=lambda options, printed: found.results.get(name, stages.Found(f"result of {name}")),
        )

    def run(argv, *, log, seconds, environment):
        name = log.stem
        assert argv[argv.index("--time-limit") + 1] == f"{0.85 * seconds:.3f}"
        found.given[name] = seconds
        found.environments.append(environment)
        found.now += found.takes.get(name, 0.0)
        with log.open("a") as file:
            file.write(found.prints.get(name, ""))
        return found.statuses.get(name, command_line.DONE)

    def main(*arguments):
        found.given.clear()
        return accelerator.main(["--output", str(tmp_path), *arguments])

    def states():
        outcomes = json.loads((tmp_path / "accelerator.json").read_text())["stages"]
        return {name: (outcome["state"], outcome["line"]) for name, outcome in outcomes.items()}

    monkeypatch.setattr(stages, "STAGES", tuple(stage(original.name, original) for original in stages.STAGES))
    monkeypatch.setattr(accelerator, "time", types.SimpleNamespace(monotonic=lambda: found.now))
    monkeypatch.setattr(child, "run", run)
    found.main, found.states = main, states
    return found


def test_the_stages_share_the_time_and_hand_on_what_they_do_not_use(made_up, capsys):
    made_up.takes = {"check": 2.0, "k_scaling": 45.0, "pytorch": 0.0, "training": 53.0}
    assert made_up.main("--minutes", str(100 / 60)) == command_line.DONE
    assert list(made_up.given) == NAMES
    shares = [20.0, 98.0 * 45 / 80, 53.0 * 15 / 35, 53.0]
    assert list(made_up.given.values()) == pytest.approx(shares)
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first.startswith("until ")
    assert "(1.66667 minutes): values and gradients beside the CPU's; K-scaling; the convolutional step" in first
    assert lines == [f"{name}: done, {made_up.takes[name]:.0f} s: result of {name}" for name in NAMES]
    assert last.startswith("the page is ")


def test_a_stage_that_is_not_possible_is_left_out_with_a_line_and_takes_no_share(made_up, capsys):
    made_up.reasons = {"pytorch": "no PyTorch", "training": "no data"}
    assert made_up.main("--minutes", str(100 / 60)) == command_line.DONE
    assert made_up.given == pytest.approx({"check": 100 * 20 / 65, "k_scaling": 100.0})
    assert made_up.states()["training"] == ("left out", "no data")
    out = capsys.readouterr().out
    assert "pytorch: left out, 0 s: no PyTorch\ntraining: left out, 0 s: no data\n" in out
    assert "training on MNIST" not in out.splitlines()[0]


def test_a_failure_does_not_stop_the_others_and_is_the_exit_status(made_up):
    made_up.statuses = {"check": command_line.FAILED, "k_scaling": -11, "training": command_line.AGAIN}
    made_up.results = {"check": stages.Found("2 of 3 agree", failed=True)}
    made_up.prints = {"k_scaling": "a cell\nFatal Python error\n\n"}
    assert made_up.main() == command_line.FAILED
    assert list(made_up.given) == NAMES
    assert made_up.states() == {
        "check": ("failed", "2 of 3 agree"),
        "k_scaling": ("failed", "Fatal Python error (status -11)"),
        "pytorch": ("done", "result of pytorch"),
        "training": ("goes on", "result of training"),
    }


def test_a_refusal_is_a_failure_of_the_stages_that_always_can_run(made_up):
    made_up.statuses = {"k_scaling": command_line.REFUSED}
    made_up.prints = {"k_scaling": "another jax", "pytorch": "torch cannot"}
    assert made_up.main() == command_line.FAILED
    assert made_up.states()["k_scaling"] == ("failed", "another jax")
    made_up.statuses = {"pytorch": command_line.REFUSED}
    assert made_up.main() == command_line.DONE
    assert made_up.states()["pytorch"] == ("left out", "torch cannot")


def test_all_stages_keep_their_programs_in_one_folder_unless_the_caller_has_one(made_up, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    made_up.main()
    folders = {environment.get("JAX_COMPILATION_CACHE_DIR") for environment in made_up.environments}
    assert folders == {str(tmp_path / "compiled")}
    made_up.environments.clear()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    made_up.main()
    assert {environment.get("JAX_COMPILATION_CACHE_DIR") for environment in made_up.environments} == {None}


def test_what_is_left_is_told_by_the_exit_status(made_up):
    made_up.results = {"k_scaling": stages.Found("40 cells left", left=True)}
    assert made_up.main() == command_line.AGAIN
    assert made_up.states()["k_scaling"] == ("goes on", "40 cells left")


def test_stages_after_the_deadline_are_not_begun_and_named(made_up):
    made_up.takes = {"k_scaling": 1_000.0}
    assert made_up.main("--minutes", "8") == command_line.AGAIN
    assert list(made_up.given) == ["check", "k_scaling"]
    late = ("goes on", "not begun: the time is over")
    assert made_up.states() == {
        "check": ("done", "result of check"),
        "k_scaling": ("done", "result of k_scaling"),
        "pytorch": late,
        "training": late,
    }


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, command_line.AGAIN), (signal.SIGINT, 130)])
def test_after_a_signal_nothing_more_is_begun(made_up, monkeypatch, number, status):
    def stopped(argv, *, log, **others):
        made_up.given["check"] = 0.0
        log.touch()
        os.kill(os.getpid(), number)
        return command_line.AGAIN

    monkeypatch.setattr(child, "run", stopped)
    assert made_up.main() == status
    assert list(made_up.given) == ["check"]
    assert made_up.states()["training"] == ("goes on", "not begun: stopped by a signal")


def test_every_stage_has_a_command_line_that_its_command_takes(tmp_path):
    for smoke in ([], ["--smoke"]):
        options = accelerator.parse(["--output", str(tmp_path), *smoke])
        for stage in stages.STAGES:
            arguments = [*stage.arguments(options), "--output", str(stage.folder(options)), "--time-limit", "12.345"]
            module = "experiments.vae.options" if stage.name == "training" else f"{stage.module}.command"
            parsed = importlib.import_module(module).parse(arguments)
            assert (parsed.output, parsed.time_limit) == (tmp_path / stage.name, 12.345)
    assert accelerator.parse(["--runs", "there"]).runs.name == "there"


def test_training_wants_the_packed_set_and_finds_it(tmp_path, monkeypatch):
    *_, training_stage = stages.STAGES
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "of_the_environment"))
    for arguments, folder in (([], tmp_path / "of_the_environment"), (["--data-dir", str(tmp_path)], tmp_path)):
        options = accelerator.parse(arguments)
        reason = training_stage.why_not(options)
        assert f"{folder}/hiwae_jax_packed/binarized_mnist-" in reason
        assert "copy its folder hiwae_jax_packed" in reason
        packed = stages.packed_cache.cache_path(stages.SPECIFICATION, folder)
        packed.parent.mkdir(parents=True)
        packed.touch()
        assert training_stage.why_not(options) is None
        assert training_stage.environment(options) == {"TFDS_DATA_DIR": str(folder)}


def test_how_far_the_training_is_comes_from_its_progress(tmp_path):
    options = accelerator.parse(["--output", str(tmp_path)])
    *_, training_stage = stages.STAGES
    bar = "cell:  10%|#  | {}/312400 [00:10<01:40, 3.0step/s, bound=-9{}.50, ess=3.10]\r"
    printed = bar.format(781, 9) + bar.format(1562, 1) + "\nstopped after the time limit in cell\n"
    line = "step 1,562 of 312,400: validation bound -91.50 nats"
    assert training_stage.found(options, printed) == stages.Found(line, left=True)
    assert training_stage.found(options, "compiling") == stages.NOTHING


PATIENT = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); time.sleep(60)"
)
SAVING = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); time.sleep(60)"


@pytest.mark.parametrize(
    ("program", "seconds", "status"),
    [
        ("import os; print(os.environ['A_VALUE']); raise SystemExit(3)", 60.0, 3),
        ("import time; time.sleep(60)", 0.5, command_line.AGAIN),
        (SAVING, 1.0, command_line.AGAIN),
        (PATIENT, 1.0, command_line.AGAIN),
    ],
)
def test_a_process_is_ended_at_its_deadline_whatever_it_does(tmp_path, program, seconds, status):
    log, began = tmp_path / "log", time.monotonic()
    log.write_text("earlier\n")
    environment = {"A_VALUE": "5"}
    assert child.run([sys.executable, "-c", program], log=log, seconds=seconds, environment=environment) == status
    assert time.monotonic() - began < 20.0
    assert log.read_text() == "earlier\n" + {3: "5\n"}.get(status, "begun\n" if program == PATIENT else "")


@pytest.mark.parametrize("program", ["import time; time.sleep(60)", PATIENT])
def test_a_process_is_told_when_this_one_is_told_to_stop(tmp_path, monkeypatch, program):
    began, log = time.monotonic(), tmp_path / "log"
    # A program that ignores the signal says when it does.
    monkeypatch.setattr(run_folder, "stopping", lambda: program != PATIENT or log.stat().st_size > 0)
    monkeypatch.setattr(child, "GRACE", 0.2)
    assert child.run([sys.executable, "-c", program], log=log, seconds=60.0, environment={}) == command_line.AGAIN
    assert time.monotonic() - began < 20.0


def test_what_the_stages_found_is_read_from_their_files(tmp_path):
    options = accelerator.parse(["--output", str(tmp_path)])
    found = {stage.name: lambda stage=stage: stage.found(options, "") for stage in stages.STAGES}
    assert {name: read() for name, read in found.items()} == dict.fromkeys(NAMES, stages.NOTHING)
    versions = dict.fromkeys(("device", "processor", "date", "hiwae_jax", "jax", "jaxlib", "flax", "python"), "x")
    cell = {"proposal": "markov", "gradient": "a", "value_apart": 0.0, "gradient_apart": 0.5}
    content = {"provenance": versions, "tolerances": {"value": 1e-5, "gradient": 1e-4}, "not_run": ["mixture"]}
    write(tmp_path / "check" / "agreement.json", content | {"cells": {"one": cell, "two": cell | {"failed": "far"}}})
    line = "1 of 2 gradients agree with the CPU's; NOT: two; 1 problems left"
    assert found["check"]() == stages.Found(line, left=True, failed=True)
    write(tmp_path / "check" / "agreement.json", content | {"cells": {"one": cell}, "not_run": []})
    assert found["check"]() == stages.Found("1 of 1 gradients agree with the CPU's")
    cells = {reason: {"configuration": "c", "num_samples": 1, reason: "x"} for reason in ("skipped", "failed")}
    cells = {name: {**cell, "task": "train", "decoder": "mlp"} for name, cell in cells.items()}
    content = {"provenance": versions | {"used_cores": 1, "sizes": {"batch": 1}}, "rates": {}, "not_run": ["c"] * 3}
    write(tmp_path / "k_scaling" / "k_scaling_x.json", content | {"cells": cells})
    assert found["k_scaling"]() == stages.Found("0 cells measured, 1 skipped, 1 failed, 3 left", left=True)
    (tmp_path / "k_scaling" / "k_scaling_x.json").write_text("{")
    assert found["k_scaling"]() == stages.NOTHING


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def test_smoke_goes_through_all_stages_once(tmp_path, capsys, monkeypatch):
    """In this process, with one cell of each stage. The cell of K-scaling is not the one that its own test runs."""
    measured = []

    def count(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **b: (measured.append(name), function(*a, **b))[1])

    def run(argv, *, log, seconds, environment):
        status = importlib.import_module(f"{argv[2]}.command").main(argv[3:])
        log.write_text(capsys.readouterr().out)
        return status

    count(comparison, "compare")
    count(measurement, "measure")
    count(training, "train")
    monkeypatch.setattr(child, "run", run)
    monkeypatch.setattr(stages.importlib.util, "find_spec", lambda name: None)  # its steps take a minute to compile
    arguments = ["--smoke", "--output", str(tmp_path)]
    assert accelerator.main(arguments) == command_line.DONE
    assert measured == ["compare", "compare", "measure", "train"]
    text = (tmp_path / "accelerator.md").read_text()
    for line in (
        "| values and gradients beside the CPU's | done | 3 of 3 gradients agree with the CPU's |",
        "| K-scaling | done | 1 cells measured |",
        "| the convolutional step beside PyTorch | left out | PyTorch is not installed (pip install torch) |",
        "| training on MNIST with K = 5 | done | finished after 20 steps: test bound -2",
        "| IWLB, reparameterized, mlp, float32 | ",
        "![time and memory against K](k_scaling.png)",
        "its figures mean nothing",
    ):
        assert line in text
    assert (tmp_path / "k_scaling.png").stat().st_size > 4_000
    assert accelerator.main(arguments) == command_line.DONE
    assert measured == ["compare", "compare", "measure", "train"]


def test_the_page_has_the_contest_and_cells_without_figures(tmp_path):
    way = {"wall_ms": 12.34, "wall": [0.5, 0.4, 0.6]}
    ways = dict.fromkeys(("one program", "dispatched chunks", "all at once", "PyTorch port"), way)
    assert "| 5 | one program | 12.3 | 0.50 |" in page._contests([{"num_samples": 5, "ways": ways}])
    shared = {"task": "train", "way": "recommended", "configuration": "IWLB, recommended"}
    cells = [
        {**shared, "num_samples": 1, "microseconds_per_sample": 1.234, "fraction": 0.5},
        {**shared, "num_samples": 10_000, "skipped": "needs more"},
        {**shared, "num_samples": 10, "failed": "out of memory"},
    ]
    text = page._k_scaling({"cells": dict(enumerate(cells))})
    assert "| configuration | K = 1 | K = 10 | K = 10,000 |" in text
    assert "| IWLB | 1.23 (50 %) | failed | skipped |" in text
