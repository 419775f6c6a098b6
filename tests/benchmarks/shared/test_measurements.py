"""A file of measurements goes on only where it was begun."""

import json

import pytest

from benchmarks.shared import measurements as machine

ORIGIN = {"jax": "1.0", "used_cores": 2, "date": "2026-01-02"}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"cells": {"one": 1}, "provenance": {**ORIGIN, "date": "2026-01-01"}}))
    return path


def test_a_file_of_the_same_machine_goes_on_another_day(path):
    assert machine.begun(path, ORIGIN, again=False, table=str)["cells"] == {"one": 1}


def test_a_file_of_another_machine_is_neither_lost_nor_mixed(path):
    with pytest.raises(ValueError, match=r"measured with another used_cores: --output chooses"):
        machine.begun(path, {**ORIGIN, "used_cores": 1}, again=False, table=str)
    assert machine.begun(path, {**ORIGIN, "used_cores": 1}, again=True, table=str) == {}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "no readable JSON"),
        (lambda text: text[:-9], "no readable JSON"),
        (lambda text: "null", "expected a JSON object, got null"),
        (lambda text: text.replace("provenance", "origin"), r"KeyError\('provenance'\)"),
        (lambda text: text.replace("cells", "rooms"), r"KeyError\('cells'\)"),
    ],
    ids=["empty", "cut off", "null", "no provenance", "no cells"],
)
def test_a_damaged_file_is_refused_by_name(path, damage, message):
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=f"{path}: .*{message}.*; --again, or deleting it, measures anew"):
        machine.begun(path, ORIGIN, again=False, table=lambda content: str(content["cells"]))
