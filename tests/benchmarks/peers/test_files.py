"""A run of the peers: who is skipped, what the JSON file holds, and that tables and figure are made from it."""

import json
import sys
import types

import jax
import pytest
from matplotlib import pyplot as plt

from benchmarks.peers import command as peers
from benchmarks.peers import contestants as peer_list
from benchmarks.peers import tables as peer_tables
from benchmarks.peers.contestants import PEERS, Peer

CLOCKS = ("cpu", "wall")


def row(title, ratio, **others):
    figures = {f"{clock}_ratio": [ratio - 0.25, ratio, ratio + 0.5] for clock in CLOCKS}
    figures["wall_ratio"] = [x + 10.0 for x in figures["wall_ratio"]]
    milliseconds = {"cpu_milliseconds": 1.2345, "wall_milliseconds": 0.5, "temp_bytes": 3 * 2**19}
    return {"title": title, **figures, **milliseconds, **others}


@pytest.fixture
def result():
    """Two cells, the larger K first; NumPyro is in that alone, and nothing says its memory."""
    first = {"jax": row("plain JAX", 1.0), "jax-scanned": row("plain JAX, scanned", 0.75), "hiwae": row("ours", 1.5)}
    second = {name: {**entry, "cpu_ratio": [1.0, 2.0, 3.0]} for name, entry in first.items()}
    second["numpyro"] = row("NumPyro", 4.0, temp_bytes=None, peak_bytes=5 * 2**20)
    return {
        "settings": {"cores": 1, "rounds": 7},
        "provenance": {"processor": "a chip, 8 cores", "device": "cpu cpu"},
        "skipped": {"torch": "No module named 'torch'; pip install torch"},
        "cells": [{"num_samples": 5, "contestants": second}, {"num_samples": 1, "contestants": first}],
    }


def test_the_tables_have_the_figures_of_their_rows(result):
    note, cpu, wall, milliseconds, memory, peak, skipped = peer_tables.table(result).split("\n\n")
    assert note == "Medians over 7 rounds [quartiles]; 1 core(s), a chip, 8 cores."
    assert cpu.splitlines() == [
        "| CPU time of a step / plain JAX | K = 1 | K = 5 |",
        "| --- | --- | --- |",
        "| plain JAX | 1.00 [0.75, 1.50] | 2.00 [1.00, 3.00] |",
        "| plain JAX, scanned | 0.75 [0.50, 1.25] | 2.00 [1.00, 3.00] |",
        "| ours | 1.50 [1.25, 2.00] | 2.00 [1.00, 3.00] |",
        "| NumPyro | - | 4.00 [3.75, 4.50] |",
    ]
    assert "| ours | 11.50 [11.25, 12.00] | 11.50 [11.25, 12.00] |" in wall.splitlines()
    assert "| ours | 1.23 (0.5) | 1.23 (0.5) |" in milliseconds.splitlines()
    assert "| ours | 1.5 | 1.5 |" in memory.splitlines()
    assert "NumPyro" not in memory
    assert peak.splitlines()[2:] == ["| NumPyro | - | 5.0 |"]
    assert skipped == "Skipped: torch: No module named 'torch'; pip install torch"


@pytest.mark.parametrize(("device", "shift"), [("cpu cpu", 0.0), ("gpu of a kind", 10.0)])
def test_the_figure_has_the_clock_of_its_device_against_k(result, device, shift, tmp_path, monkeypatch):
    result["provenance"]["device"] = device
    figures = []
    with monkeypatch.context() as context:
        context.setattr(plt, "close", figures.append)
        peer_tables.draw_figure(result, tmp_path / "peers.png")
    (figure,) = figures
    ours, others = figure.axes
    clock = "CPU" if shift == 0.0 else "Wall-clock"
    titles = [f"{clock} time of a step / plain JAX: {whose}" for whose in ("hiwae_jax, DReG gradient", "others")]
    assert [axis.get_title(loc="left") for axis in (ours, others)] == titles

    def lines(axis):
        found = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}
        return {label: data for label, data in found.items() if not label.startswith("_")}

    second = 2.0 if shift == 0.0 else None  # the wall-clock ratios of both cells are the same
    scanned = ([1, 5], [0.75 + shift, second or 0.75 + shift])
    assert lines(ours) == {"plain JAX, scanned": scanned, "ours": ([1, 5], [1.5 + shift, second or 1.5 + shift])}
    assert lines(others) == {"NumPyro": ([5], [4.0 + shift])}
    assert {text.get_text() for text in ours.texts} == {"plain JAX, scanned", "ours"}
    plt.close(figure)


def test_a_run_skips_who_is_missing_and_keeps_all_that_it_shows(as_a_script, tmp_path, monkeypatch, capsys):
    absent = Peer("Absent", "on_absent.make", package="no_such_framework", install="framework==1.0")
    monkeypatch.setitem(PEERS, "absent", absent)
    drawn = []
    draw = peer_tables.draw_figure
    monkeypatch.setattr(peer_tables, "draw_figure", lambda *arguments: drawn.append(arguments) or draw(*arguments))
    arguments = ["--smoke", "--num-samples", "2", "--contestants", "absent", "jax-scanned", "hiwae-dreg-chunks"]
    peers.main([*arguments, "--output", str(tmp_path), "--figure", str(tmp_path / "figure.png")])
    reason = "No module named 'no_such_framework'; pip install framework==1.0"
    assert capsys.readouterr().out.startswith(f"skipped: absent: {reason}\n")
    result = json.loads((tmp_path / "peers.json").read_text())
    assert result["skipped"] == {"absent": reason}
    (cell,) = result["cells"]
    assert list(cell["contestants"]) == ["jax", "jax-scanned", "hiwae-dreg-chunks"]
    assert cell["contestants"]["jax"]["cpu_ratio"] == [1.0, 1.0, 1.0]
    assert cell["contestants"]["jax-scanned"]["steps_per_round"] % 20 == 0
    assert all(
        set(row["relative_difference"]) == {"loss", "encoder", "decoder"} for row in cell["contestants"].values()
    )
    assert (tmp_path / "peers.md").read_text() == peer_tables.table(result) + "\n"
    assert drawn == [(result, tmp_path / "figure.png")]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert jax.config.jax_default_matmul_precision == "float32"


def test_a_rival_that_is_broken_by_a_newer_jax_is_skipped_too(tmp_path, monkeypatch):
    (tmp_path / "old_framework.py").write_text("import jax\njax.removed_long_ago\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PEERS, "old", Peer("Old", "on_old.make", package="old_framework", install="old==1.0"))
    assert peer_list.why_missing("old") == "module 'jax' has no attribute 'removed_long_ago'; pip install old==1.0"
    assert "old_framework" not in sys.modules


def test_rivals_that_run_on_the_cpu_alone_are_not_compared_with_an_accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    refused = {name for name in PEERS if peer_list.why_missing(name) == "runs on the CPU only, and JAX does not here"}
    assert refused == {"torch", "torch-compiled", "pyro", "pythae"}


def test_the_process_that_measures_peak_memory_has_the_same_settings(monkeypatch, tmp_path):
    asked = []

    def run(command, **options):
        asked.append(command)
        return types.SimpleNamespace(stdout="a line of some framework\n4096\n")

    monkeypatch.setattr("subprocess.run", run)
    options = peers.parse(["--smoke", "--cores", "2", "--data-dir", str(tmp_path), "--num-samples", "1", "5"])
    assert peers.peak_in_own_process(options, "hiwae", 5) == 4096
    ((python, flag, module, *arguments),) = asked
    assert (python, flag, module) == (sys.executable, "-m", "benchmarks.peers")
    theirs = peers.parse(arguments)
    assert (theirs.peak_of, theirs.num_samples) == ("hiwae", [5])
    for name in ("smoke", "cores", "data_dir"):
        assert getattr(theirs, name) == getattr(options, name)


@pytest.mark.parametrize(
    ("arguments", "folder", "figure"),
    [
        ([], "results", "docs/peers.png"),
        (["--rounds", "7"], "results", "docs/peers.png"),
        (["--num-samples", "5"], "runs/peers", "runs/peers/peers.png"),
        (["--contestants", "numpyro"], "runs/peers", "runs/peers/peers.png"),
        (["--smoke", "--num-samples", "5"], "runs/peers_smoke", "runs/peers_smoke/peers.png"),
        (["--num-samples", "5", "--output", "here"], "here", "runs/peers/peers.png"),
    ],
    ids=str,
)
def test_a_part_does_not_replace_the_published_whole(arguments, folder, figure):
    options = peers.parse(arguments)
    assert (options.output.as_posix(), options.figure.as_posix()) == (folder, figure)
