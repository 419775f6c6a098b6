"""A command that refuses its command line: one line on the standard error, and status 2, before any work."""

import types
from collections.abc import Sequence

import pytest


def refusal_of(command: types.ModuleType, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says on the standard error, checked for its form; `command` has `NAME` and `main`."""
    with pytest.raises(SystemExit) as refused:
        command.main(list(arguments))
    assert refused.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"python -m {command.NAME}: error: ")
    assert err.count("\n") == 1
    return err
