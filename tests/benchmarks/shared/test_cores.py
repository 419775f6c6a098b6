"""`--cores` counts: nothing that starts threads is imported before it takes effect."""

import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks.shared import cores as machine

REPOSITORY = pathlib.Path(__file__).parents[3]
TRIED = """
import contextlib, sys
from benchmarks.k_scaling import command as k_scaling
from benchmarks.overhead import command as overhead
from benchmarks.peers import command as peers
from benchmarks.shared import cores as core_choice

def use_cores(cores):
    print(cores, *sorted({"jax", "numpy", "torch"} & set(sys.modules)))
    raise SystemExit

core_choice.use_cores = use_cores
for start in (k_scaling.parse, overhead.parse, peers.main):
    print(start.__module__.removesuffix(".command"))
    with contextlib.suppress(SystemExit):
        start(["--cores", "1"])
"""
linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot set the cores of a process")


def test_cores_are_set_before_any_framework_is_imported():
    command = [sys.executable, "-c", TRIED]
    finished = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    assert finished.stdout.split() == ["benchmarks.k_scaling", "1", "benchmarks.overhead", "1", "benchmarks.peers", "1"]


@linux
@pytest.mark.parametrize("cores", [1, None])
def test_the_process_keeps_to_its_cores(cores, monkeypatch):
    chosen = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {7, 3, 5})
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cpus: chosen.append(cpus))
    machine.use_cores(cores)
    assert chosen == ([] if cores is None else [[3]])


@linux
@pytest.mark.parametrize("cores", [0, 4])
def test_cores_that_the_process_may_not_use_are_refused(cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {7, 3, 5})
    with pytest.raises(ValueError, match=f"--cores: expected 1 to 3, which this process may use, got {cores}"):
        machine.use_cores(cores)


def test_a_system_that_cannot_set_cores_says_so(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(ValueError, match="--cores: this system cannot set the cores of a process"):
        machine.use_cores(1)


def test_more_cores_than_there_are_are_refused():
    with pytest.raises(ValueError, match=r"--cores: expected 1 to \d+, which this process may use, got 100000"):
        machine.use_cores(100_000)
