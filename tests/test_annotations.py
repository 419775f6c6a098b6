"""Annotations say what is there: beartype agrees, and `Any` stands for the user's types only, by a name."""

import pathlib
import re
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "src"


def test_annotations_are_true():
    run = subprocess.run([sys.executable, "-m", "tests.annotated_program"], capture_output=True, text=True)
    assert run.stdout.split() == ["traced", "refused"], run.stderr


def test_any_has_a_name_that_says_whose_it_is():
    lines = [line for path in SOURCE.rglob("*.py") for line in path.read_text().splitlines()]
    with_any = [line for line in lines if re.search(r"\bAny\b", line) and not line.startswith("from typing import ")]
    assert [line for line in with_any if not re.fullmatch(r"[A-Z]\w+ = Any  # \w.*", line)] == []
    assert len(with_any) > 5
