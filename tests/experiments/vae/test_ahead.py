"""Programs that are compiled while another cell trains: they are used, and change no number."""

import json
import threading

import pytest

from experiments.vae import ahead, evaluation, training
from experiments.vae import command as vae

OPTIONS = ["--model", "vae", "iwae", "--steps", "60", "--warmup", "20", "--latent", "4", "--hidden", "16"]
OPTIONS += ["--num-samples", "2", "--nll-samples", "20", "--nll-images", "30"]


@pytest.fixture
def threads(monkeypatch):
    """The threads that made the programs of each cell."""
    found = {"training": [], "evaluation": []}

    def watched(module, name):
        make = module.make_programs

        def make_programs(*arguments, **options):
            found[name].append(threading.current_thread())
            return make(*arguments, **options)

        monkeypatch.setattr(module, "make_programs", make_programs)

    watched(training, "training")
    watched(evaluation, "evaluation")
    return found


def figures(folder):
    """The results without what depends on the clock."""
    found = {}
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        found[path.parent.name] = {
            name: value for name, value in result.items() if "seconds" not in name and name != "provenance"
        }
    return found


def test_the_second_cell_is_compiled_by_another_thread_to_the_same_numbers(tmp_path, threads, monkeypatch):
    monkeypatch.setattr(training, "STEPS_A_CALL", 30)
    assert vae.main([*OPTIONS, "--output", str(tmp_path / "ahead")]) == 0
    for made in threads.values():
        assert len(made) == 2
        assert made.count(threading.main_thread()) == 1
    monkeypatch.setattr(ahead.Compiler, "begin", lambda *arguments, **options: None)
    assert vae.main([*OPTIONS, "--output", str(tmp_path / "alone")]) == 0
    assert set(threads["training"][2:]) == {threading.main_thread()}
    assert len(figures(tmp_path / "ahead")) == 2
    assert figures(tmp_path / "ahead") == figures(tmp_path / "alone")


def test_a_cell_whose_programs_could_not_be_compiled_ahead_compiles_them_itself(tmp_path, threads, monkeypatch):
    def fails(*arguments, **options):
        raise MemoryError("as of a compiler")

    monkeypatch.setattr(ahead, "compile_all", fails)
    assert vae.main([*OPTIONS, "--output", str(tmp_path)]) == 0
    assert len(figures(tmp_path)) == 2
    assert threads["training"] == 2 * [threading.main_thread()]


def test_a_cell_that_is_finished_is_not_compiled(tmp_path, threads):
    options = [*OPTIONS, "--output", str(tmp_path)]
    second = [option if option != "vae" else "iwae" for option in options if option != "iwae"]
    assert vae.main(second) == 0
    assert vae.main(options) == 0
    assert threads["training"] == 2 * [threading.main_thread()]
