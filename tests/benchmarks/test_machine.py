"""A file of measurements goes on only where it was begun."""

import json

import pytest

from benchmarks import machine

ORIGIN = {"jax": "1.0", "used_cores": 2, "date": "2026-01-02"}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"cells": {"one": 1}, "provenance": {**ORIGIN, "date": "2026-01-01"}}))
    return path


def test_a_file_of_the_same_machine_goes_on_another_day(path):
    assert machine.begun(path, ORIGIN, again=False)["cells"] == {"one": 1}


def test_a_file_of_another_machine_is_neither_lost_nor_mixed(path):
    with pytest.raises(SystemExit, match=r"measured with another used_cores: --output chooses"):
        machine.begun(path, {**ORIGIN, "used_cores": 1}, again=False)
    assert machine.begun(path, {**ORIGIN, "used_cores": 1}, again=True) == {}


def test_more_cores_than_there_are_are_refused():
    with pytest.raises(SystemExit, match=r"--cores: expected 1 to \d+, which this process may use, got 100000"):
        machine.use_cores(100_000)
