"""One process works in a folder; signals, time limits and diverged seeds stop a run in order."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import pytest

from experiments.shared import run_folder
from experiments.shared.run_folder import BusyError
from experiments.vae import command as vae
from experiments.vae import images, training
from experiments.vae.models import make_model
from experiments.vae.settings import Settings

ROOT = pathlib.Path(__file__).resolve().parents[3]
SETTINGS = Settings(model="vae", num_samples=1, steps=80, warmup=40, polyak=0.5, latent=2, hidden=(4,))
HOLD = "import sys, time, pathlib; from experiments.shared import run_folder\n"
HOLD += "with run_folder.held(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"


def test_the_second_process_is_told_which_one_works_there(tmp_path):
    folder = tmp_path / "cell"
    with run_folder.held(folder):
        message = f"^{folder}: process {os.getpid()} on .*, since .* works in this folder"
        with pytest.raises(BusyError, match=message), run_folder.held(folder):
            pass
        with run_folder.held(tmp_path / "another"):
            pass
    with run_folder.held(folder):
        pass


def test_a_killed_process_leaves_no_lock_behind(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"^{tmp_path}: process {holder.pid} on "), run_folder.held(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with run_folder.held(tmp_path):
        pass


def test_the_command_leaves_a_cell_to_the_process_that_works_in_it(tmp_path, capsys, monkeypatch):
    ran = []
    monkeypatch.setattr(vae, "_run", lambda settings, *arguments, **options: ran.append(settings.steps))
    arguments = ["--model", "vae", "--steps", "60", "70", "--output", str(tmp_path)]
    held, free = vae.cells(vae.parse(arguments))
    with run_folder.held(tmp_path / held.name()):
        assert vae.main(arguments) == 75
    out = capsys.readouterr().out
    assert f"{tmp_path / held.name()}: process {os.getpid()} on " in out
    assert ran == [free.steps]


def test_work_in_a_folder_is_told_apart_by_its_status(tmp_path, capsys):
    assert run_folder.work_in(tmp_path, lambda: None) == 0
    assert run_folder.work_in(tmp_path, lambda: 1) == 1
    with run_folder.held(tmp_path):
        assert run_folder.work_in(tmp_path, lambda: 0) == 75
    assert "works in this folder" in capsys.readouterr().out

    def interrupted():
        raise KeyboardInterrupt

    assert run_folder.work_in(tmp_path, interrupted) == 130
    assert "the same command goes on" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_the_second_one_is_as_before(number, capfd):
    came = []
    before = signal.signal(number, lambda *_: came.append(1))
    try:
        with run_folder.stops_in_order():
            assert run_folder.stopping() is None
            os.kill(os.getpid(), number)
            assert run_folder.stopping() == number
            assert not came
            os.kill(os.getpid(), number)
            assert came == [1]
        assert run_folder.stopping() is None
        os.kill(os.getpid(), number)
        assert came == [1, 1]
    finally:
        signal.signal(number, before)
    assert capfd.readouterr().err.count("saving and stopping") == 1


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [
        (signal.SIGTERM, 75, "stopped by SIGTERM in digits-mlp-vae"),
        (signal.SIGINT, 130, "stopped by Ctrl-C in digits-mlp-vae"),
        (None, 75, "stopped after the time limit in digits-mlp-vae"),
    ],
)
def test_a_stopped_command_says_how_to_go_on(number, status, told, tmp_path, capsys, monkeypatch):
    def stopped(*_, **__):
        if number is not None:
            os.kill(os.getpid(), number)
        time.sleep(0.0 if number else 1.2)

    monkeypatch.setattr(vae, "_run", stopped)
    arguments = ["--model", "vae", "--output", str(tmp_path), *(() if number else ("--time-limit", "0"))]
    assert vae.main(arguments) == status
    out = capsys.readouterr().out
    assert told in out
    assert out.count("the same command goes on from there") == 1
    assert ("--time-limit 0 is too short" in out) == (number is None)


@pytest.fixture
def trained(digits, tmp_path, monkeypatch):
    """Training whose compiled calls only write curves: `trained(rows, before_call)`, and the calls that were made."""
    made = []

    def train(rows, before_call=lambda call: None, settings=SETTINGS, **options):
        def run_call(seeds, state, *arrays):
            call = int(state.calls[0])
            made.append(call)
            before_call(call)
            figures = jnp.array([(call + 1) * 20.0, -20.0, -26.0, rows[call], 1.0])
            curves = state.curves.at[:, call].set(figures)
            return state._replace(curves=curves, calls=state.calls + 1, stale=state.stale * 0)

        monkeypatch.setattr(training, "STEPS_A_CALL", 20)
        monkeypatch.setattr(training, "make_run_call", lambda *_, **__: run_call)
        model = make_model(settings, pixel_mean=images.pixel_mean(digits))
        return training.train(model, settings, digits, tmp_path, **options)

    train.made = made
    train.checkpoint = lambda: [path.name for path in (tmp_path / "checkpoints").iterdir()]
    return train


FINE = [-30.0, -28.0, -27.0, -26.0]


def test_a_signal_stops_training_with_a_checkpoint_from_which_it_goes_on(trained):
    with run_folder.stops_in_order():
        first = trained(FINE, lambda call: os.kill(os.getpid(), signal.SIGTERM) if call == 1 else None)
    assert not first.finished
    assert trained.made == [0, 1]
    assert trained.checkpoint() == ["2"]
    assert trained(FINE).finished
    assert trained.made == [0, 1, 2, 3]


def test_every_start_makes_one_call_whatever_the_time_limit(trained):
    pieces = [trained(FINE, deadline=time.monotonic() - 100.0).finished for _ in range(4)]
    assert pieces == [False, False, False, True]
    assert trained.made == [0, 1, 2, 3]


def test_a_diverged_seed_stops_the_run_and_the_last_good_checkpoint_stays(trained, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)  # one after every call
    message = f"^{SETTINGS.name()}: the validation bound of seed 0 is -30,941.0 at step 60, far below the -2\\d.\\d of"
    with pytest.raises(FloatingPointError, match=message):
        trained([-30.0, -28.0, -30_941.0])
    assert trained.checkpoint() == ["2"]
    # From there it goes on, should anything have changed.
    assert trained(FINE).finished
    assert trained.made == [0, 1, 2, 2, 3]


def test_under_warm_up_a_bound_may_be_anything(trained):
    assert trained([-9e3, -9e3, -9e3, -26.0], settings=SETTINGS._replace(warmup=1_000)).finished


def test_at_the_end_it_may_not(trained):
    with pytest.raises(FloatingPointError, match=r"validation bound of seed 0 is -9,000.0 at step 80, far below"):
        trained([-30.0, -30.0, -30.0, -9e3], settings=SETTINGS._replace(warmup=1_000))
