"""A file of measurements goes on only where it was begun."""

import json

import pytest

from benchmarks.shared import measurements

ORIGIN = {"jax": "1.0", "used_cores": 2, "date": "2026-01-02"}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"cells": {"one": 1}, "provenance": {**ORIGIN, "date": "2026-01-01"}}))
    return path


def test_a_file_of_the_same_machine_goes_on_another_day(path):
    assert measurements.begun(path, ORIGIN, again=False, table=str)["cells"] == {"one": 1}


def test_a_file_of_another_machine_is_neither_lost_nor_mixed(path):
    with pytest.raises(ValueError, match=r"measured with another used_cores: --output chooses"):
        measurements.begun(path, {**ORIGIN, "used_cores": 1}, again=False, table=str)
    assert measurements.begun(path, {**ORIGIN, "used_cores": 1}, again=True, table=str) == {}


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
        measurements.begun(path, ORIGIN, again=False, table=lambda content: str(content["cells"]))


def test_the_history_says_which_call_measured_a_cell():
    content = {"cells": {}, "provenance": {**ORIGIN, "commit": "a", "command": "one"}}
    measurements.add(content, "cells", "first", {"seconds": 0.12345678901234})
    measurements.add(content, "cells", "second", {"seconds": 2.0})
    content["provenance"] = {**ORIGIN, "commit": "b", "command": "two"}
    measurements.add(content, "cells", "first", {"seconds": 3.0})
    assert content["cells"] == {"first": {"seconds": 3.0}, "second": {"seconds": 2.0}}
    assert content["history"] == [
        {"commit": "a", "command": "one", "date": "2026-01-02", "cells": ["first", "second"]},
        {"commit": "b", "command": "two", "date": "2026-01-02", "cells": ["first"]},
    ]


def test_another_commit_adds_to_a_file(path):
    """Its cells compare with the others, and the history tells them apart."""
    assert measurements.begun(path, {**ORIGIN, "commit": "b", "command": "two"}, again=False, table=str) != {}
