"""JSON files for the repository: few digits, and lines that are short enough to compare two versions."""

import json
import pathlib
from typing import Any

DIGITS = 9  # significant digits of a number
LINE = 1_000  # characters of a value that stands on one line
EXACT = ("settings", "options")  # the values of these keys are inputs of a run, and keep all digits


def write(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a file that is either whole or not there."""
    partial = path.with_suffix(".partial")
    partial.write_text(text(content))
    partial.replace(path)


def text(content: dict[str, Any]) -> str:
    """The content as JSON.

    >>> print(text({"a": [1.23456789012, 2], "settings": {"rate": 0.1234567890123}}), end="")
    {"a":[1.23456789,2],"settings":{"rate":0.1234567890123}}
    """
    return _lines(rounded(content)) + "\n"


def rounded(value: Any) -> Any:
    """The value with numbers of `DIGITS` digits, except under the names of `EXACT`."""
    if isinstance(value, dict):
        return {key: part if key in EXACT else rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _lines(value: Any) -> str:
    line = json.dumps(value, separators=(",", ":"))
    if len(line) <= LINE or not isinstance(value, dict | list):
        return line
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{json.dumps(key)}:{_lines(part)}" for key, part in value.items()) + "\n}"
    return "[\n" + ",\n".join(map(_lines, value)) + "\n]"
