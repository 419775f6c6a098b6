"""An overhead file goes on where it stopped, on the same machine alone, and holds all that tables and figure show."""

import importlib.util
import json
import types

import pytest
from matplotlib import pyplot as plt

from benchmarks.overhead import command as overhead
from benchmarks.overhead import contest as contests
from benchmarks.overhead import measurement
from benchmarks.overhead import tables as overhead_tables
from benchmarks.overhead.tables import AT_ONCE, DISPATCHED, EXACT, ONE_PROGRAM, PLAIN, PORT
from benchmarks.shared import cores
from experiments.shared import command_line, provenance

ORIGIN = {"processor": "a chip, 8 cores", "jax": "1.0", "jaxlib": "1.1", "flax": "2.0", "device": "cpu cpu"}


def step(ratio, milliseconds):
    return {
        "cpu": [ratio, ratio - 0.25, ratio + 0.25],
        "wall": [ratio + 1.0, ratio, ratio + 2.0],
        "flops_ratio": ratio + 3.0,
        "cpu_ms": milliseconds,
        "wall_ms": milliseconds + 1.0,
        "temp_bytes": int(ratio * 2**20),
        "compile_seconds": 7.0,
    }


def make_cell(nets, num_samples, alphas):
    """Ratios of the H-IWLB are K, and a hundredth of alpha on top."""
    ratios = {"IWLB": 1.0, **{f"H-IWLB {alpha:g}": num_samples + alpha / 100 for alpha in alphas}}
    parts = {"encoder": 0.1, "proposal networks": 0.2, "decoder": 0.3, "rest": 0.4}
    return {
        "nets": nets,
        "num_samples": num_samples,
        "batch_size": 4,
        "steps": {f"{name} {rule}": step(ratio, 5.0) for name, ratio in ratios.items() for rule in (EXACT, PLAIN)},
        "parts": {
            f"{name} {EXACT}": {part: {"cpu": [ratio * x, 0, 9], "flops_ratio": x} for part, x in parts.items()}
            for name, ratio in ratios.items()
        },
    }


def make_contest(nets, num_samples):
    ways = {name: step(1.0 + number, 8.0) for number, name in enumerate((PORT, ONE_PROGRAM, DISPATCHED, AT_ONCE))}
    for name, way in ways.items():
        way["bytes"] = None if name == DISPATCHED else 3 * 2**20
    return {"nets": nets, "num_samples": num_samples, "batch_size": 4, "torch": "9.9", "ways": ways}


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script on cells that are made up; what it measures and draws, and whether PyTorch is there."""
    found = types.SimpleNamespace(measured=[], drawn=[], torch=False, stop_after=100, origin=dict(ORIGIN), cores=2)

    def measure(sizes, num_samples, alphas, options):
        if len(found.measured) == found.stop_after:
            raise KeyboardInterrupt
        found.measured.append((num_samples, alphas))
        return make_cell(sizes.name(), num_samples, alphas)

    def contest(sizes, num_samples, options):
        found.measured.append((num_samples, PORT))
        return make_contest(sizes.name(), num_samples)

    def find_spec(name, *arguments, look=importlib.util.find_spec):
        return found.torch or None if name == "torch" else look(name, *arguments)

    def run(*arguments):
        found.measured.clear()
        given = ["--decoders", "conv", "--proposals", "small", "--output", str(tmp_path), *arguments]
        found.status = overhead.run(overhead.parse(given))
        return found.measured

    monkeypatch.setattr(measurement, "measure", measure)
    monkeypatch.setattr(contests, "contest", contest)
    monkeypatch.setattr(overhead, "draw", lambda content, path: found.drawn.append((content, path)))
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(provenance, "provenance", lambda: {**found.origin, "date": "2026-01-01"})
    monkeypatch.setattr(cores, "used_cores", lambda: found.cores)
    found.run = run
    return found


def test_a_run_that_was_stopped_goes_on_and_measures_nothing_twice(script, tmp_path):
    script.stop_after = 1
    script.run("--num-samples", "2", "3", "--alpha", "0", "1")
    assert script.status == command_line.INTERRUPTED
    assert list(json.loads((tmp_path / "overhead.json").read_text())["cells"]) == ["conv 100/100, K = 2"]
    script.stop_after = 100
    assert script.run("--num-samples", "2", "3", "--alpha", "0", "1") == [(3, [0.0, 1.0])]
    assert script.run("--num-samples", "2", "3", "--alpha", "0", "1") == []


def test_another_alpha_is_added_to_what_is_there(script, tmp_path):
    script.run("--num-samples", "2", "--alpha", "0", "10")
    assert script.run("--num-samples", "2", "--alpha", "0", "1") == [(2, [1.0])]  # 10 begins with 1 and is another
    (cell,) = json.loads((tmp_path / "overhead.json").read_text())["cells"].values()
    assert {name.rsplit(" ", 1)[0] for name in cell["steps"]} == {"IWLB", "H-IWLB 1", "H-IWLB 10", "H-IWLB 0"}
    assert len(cell["parts"]) == 4


def test_the_contest_is_run_once_where_pytorch_is_and_left_out_by_name_elsewhere(script, capsys):
    arguments = ("--num-samples", "2", "--alpha", "1")
    assert script.run(*arguments) == [(2, [1.0])]
    assert "torch is not installed: the PyTorch port is left out (pip install torch)" in capsys.readouterr().out
    script.torch = True
    assert script.run(*arguments, "--no-contest") == []
    assert script.run(*arguments) == [(2, PORT)]
    assert script.run(*arguments) == []
    assert "torch is not installed" not in capsys.readouterr().out
    assert script.run(*arguments, "--decoders", "mlp") == [(2, [1.0])]  # the port is of the other decoder


def test_a_time_limit_leaves_the_rest_to_the_same_command(script, capsys):
    arguments = ("--num-samples", "2", "--alpha", "1")
    assert script.run(*arguments, "--time-limit", "0") == []
    assert script.status == command_line.AGAIN
    assert "the time limit of 0 s is reached; the same command goes on" in capsys.readouterr().out
    assert script.run(*arguments, "--time-limit", "100") == [(2, [1.0])]
    assert script.status == command_line.DONE


def test_the_contest_alone_is_refused_where_it_cannot_run(script, capsys):
    with pytest.raises(SystemExit) as refused:
        script.run("--no-steps")
    assert refused.value.code == command_line.REFUSED
    assert "argument --no-steps: nothing is left to measure: torch is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("changed", [*ORIGIN, "used_cores", "batch_size", "chunk_size", "draw"])
def test_a_file_of_another_machine_version_or_setting_is_refused_by_name(script, tmp_path, changed, capsys):
    arguments = ["--num-samples", "2", "--alpha", "1"]
    script.run(*arguments)
    before = (tmp_path / "overhead.json").read_text()
    options = {"batch_size": ["--batch-size", "5"], "chunk_size": ["--chunk-size", "1"], "draw": ["--no-draw"]}
    if changed == "used_cores":
        script.cores = 1
    elif changed in ORIGIN:
        script.origin[changed] = "another"
    arguments = ["--num-samples", "2", "3", "--alpha", "1", *options.get(changed, [])]
    with pytest.raises(SystemExit) as refused:
        script.run(*arguments)
    assert refused.value.code == command_line.REFUSED
    assert f"overhead.json was measured with another {changed}: --output chooses" in capsys.readouterr().err
    assert script.measured == []
    assert (tmp_path / "overhead.json").read_text() == before
    assert script.run(*arguments, "--again") == [(2, [1.0]), (3, [1.0])]


def test_table_and_figure_are_those_of_the_json_file(script, tmp_path, capsys):
    script.torch = True
    script.run("--num-samples", "10", "--alpha", "1")
    script.run("--num-samples", "2", "--alpha", "1")
    content = json.loads((tmp_path / "overhead.json").read_text())
    assert script.drawn[-1] == (content, tmp_path / "overhead.png")
    text = (tmp_path / "overhead.md").read_text()
    assert text == overhead_tables.table(content) + "\n"
    assert text.startswith("a chip, 8 cores, 2 of them used; jax 1.0, jaxlib 1.1, flax 2.0; 2026-01-01. Ratios to the")
    rows = [line for line in text.splitlines() if line.startswith("| conv")]
    ours = f"H-IWLB 1 {EXACT}"
    # K = 2 is before K = 10, though it was measured later.
    assert [row for row in rows if f"| {ours} | 2.01" in row or f"| {ours} | 10.01" in row] == [
        f"| conv 100/100 | 4 | 2 | {ours} | 2.01 [1.76, 2.26] | 3.01 [2.01, 4.01] | 5.01 | 5.0 | 2.0 | 7.0 |",
        f"| conv 100/100 | 4 | 10 | {ours} | 10.01 [9.76, 10.26] | 11.01 [10.01, 12.01] | 13.01 | 5.0 | 10.0 | 7.0 |",
    ]
    assert f"| conv 100/100 | 10 | {ours} | 1.00 (0.10) | 2.00 (0.20) | 3.00 (0.30) | 4.00 (0.40) |" in rows
    assert f"| conv 100/100 | 4 | 2 | {PORT} | 1.00 [0.75, 1.25] | 2.00 [1.00, 3.00] | 8 | 9 | 3 |" in rows
    assert f"| conv 100/100 | 4 | 2 | {DISPATCHED} | 3.00 [2.75, 3.25] | 4.00 [3.00, 5.00] | 8 | 9 |  |" in rows
    assert set(rows) <= set(capsys.readouterr().out.splitlines())


def test_the_figure_has_the_medians_of_every_method_against_k(tmp_path, monkeypatch):
    cells = [make_cell("mlp 1/2", 10, [1.0, 3.0]), make_cell("mlp 1/2", 2, [1.0]), make_cell("conv 1/2", 4, [0.0])]
    contests = [make_contest("conv 1/2", 8), make_contest("conv 1/2", 4)]
    content = {"cells": dict(enumerate(cells)), "contests": dict(enumerate(contests))}
    figures = []
    with monkeypatch.context() as context:
        context.setattr(plt, "close", figures.append)
        overhead_tables.draw(content, tmp_path / "new" / "overhead.png")
    assert (tmp_path / "new" / "overhead.png").stat().st_size > 10_000
    (figure,) = figures
    steps = "CPU time of a step of H-IWLB / IWLB"
    panels = {axis.get_title(loc="left"): axis for axis in figure.axes}
    contest_title = "conv 1/2, alpha 1, plain gradient: CPU time / PyTorch"
    assert list(panels) == [f"conv 1/2: {steps}", f"mlp 1/2: {steps}", contest_title]

    def lines(title):  # the last is the grey one at 1
        found = panels[title].lines[:-1]
        return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in found}

    assert lines(f"conv 1/2: {steps}") == {"alpha 0": ([4], [4.0])}
    assert lines(f"mlp 1/2: {steps}") == {"alpha 1": ([2, 10], [2.01, 10.01]), "alpha 3": ([10], [10.03])}
    assert list(lines(contest_title).values()) == [([4, 8], [ratio] * 2) for ratio in (2.0, 3.0, 4.0)]
    names = {text.get_text() for text in panels[f"mlp 1/2: {steps}"].texts}
    assert names == {"IWLB", "alpha 1", "alpha 3"}
    plt.close(figure)
