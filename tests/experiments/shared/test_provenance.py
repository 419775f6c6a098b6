"""A result says which commit, command, versions and machine computed it."""

import json
import subprocess

import pytest

from experiments.shared import provenance


@pytest.fixture(autouse=True)
def forgotten():
    """The commit is asked for once in a process."""
    provenance.commit.cache_clear()
    yield
    provenance.commit.cache_clear()


def answers(monkeypatch, changes):
    def run(command, **options):
        text = "abc123\n" if command[1] == "rev-parse" else changes
        return subprocess.CompletedProcess(command, 0, stdout=text)

    monkeypatch.setattr(subprocess, "run", run)


def test_everything_is_text_or_unknown(monkeypatch):
    answers(monkeypatch, "")
    monkeypatch.setattr("sys.orig_argv", ["/usr/bin/python3", "-m", "experiments.vae", "--output", "a folder"])
    found = json.loads(json.dumps(provenance.provenance()))
    assert {"hiwae_jax", "jax", "device", "processor", "date"} <= found.keys()
    assert set(provenance.OF_THE_CALL) <= found.keys()
    assert found["commit"] == "abc123"
    assert found["command"] == "python -m experiments.vae --output 'a folder'"


def test_files_that_differ_from_the_commit_are_told(monkeypatch):
    answers(monkeypatch, " M a.py\n")
    assert provenance.commit() == "abc123 with changes"


def test_outside_of_a_checkout_the_commit_is_unknown(monkeypatch):
    def run(command, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", run)
    assert provenance.commit() is None


def test_a_copy_without_a_repository_is_told_its_commit(monkeypatch):
    answers(monkeypatch, "")
    monkeypatch.setenv("HIWAE_JAX_COMMIT", "def456")
    assert provenance.commit() == "def456"
