"""JSON for the repository: few digits, short lines, and what a run is begun with to the last digit."""

import json

from experiments.shared import compact_json


def test_numbers_are_rounded_and_settings_are_not():
    content = {"settings": {"rate": 0.12345678901234}, "cells": [{"x": 0.12345678901234, "n": 12345678901}]}
    found = json.loads(compact_json.text(content))
    assert found == {"settings": {"rate": 0.12345678901234}, "cells": [{"x": 0.123456789, "n": 12345678901}]}


def test_a_long_value_is_broken_into_lines_and_a_short_one_is_not():
    content = {"short": [1.0, 2.0], "long": [{"curve": list(range(100)), "number": n} for n in range(4)]}
    lines = compact_json.text(content).splitlines()
    assert '"short":[1.0,2.0],' in lines
    assert len(lines) == 2 + 1 + 1 + 4 + 1  # the braces, the short value, and the long one with its brackets
    assert json.loads("\n".join(lines)) == content


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    compact_json.write(path, {"a": 1})
    compact_json.write(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
