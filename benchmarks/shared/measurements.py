"""The file of a benchmark's measurements, to which a later call adds what is missing."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from experiments.shared import compact_json, stored
from experiments.shared.provenance import OF_THE_CALL

Content = dict[str, Any]  # what a file of measurements holds


def begun(path: pathlib.Path, origin: Mapping[str, Any], *, again: bool, table: Callable[[Content], str]) -> Content:
    """The content of a file that is to be continued; empty if there is no file or all is measured `again`.

    Raises:
      ValueError: the file has another provenance than `origin`, apart from commit, command and date, so that its
        figures do not compare with new ones; or it is damaged, so that its `table` cannot be made.
    """
    if again or not path.exists():
        return {}
    content = measured(path, table)
    other = [key for key in origin if key not in OF_THE_CALL and content["provenance"].get(key) != origin[key]]
    if other:
        raise ValueError(
            f"{path} was measured with another {', '.join(other)}: --output chooses a folder of its own for this run, "
            "--again replaces the file"
        )
    return content


def measured(path: pathlib.Path, table: Callable[[Content], str]) -> Content:
    """The content that an earlier call wrote.

    Raises:
      ValueError: the file is damaged: it is no JSON, or lacks what its `table` shows.
    """
    remedy = "--again, or deleting it, measures anew"
    content = stored.read_json(path, remedy=remedy)
    try:
        if not isinstance(content["provenance"], dict):
            raise TypeError("provenance is no object")
        table(content)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: lacks what its table shows ({error!r}); {remedy}") from error
    return content


def add(content: Content, kind: str, name: str, figures: Mapping[str, Any]) -> None:
    """Put the figures of a cell into the content, and into its history which commit and command measured them.

    Args:
      content: of the file, with its `provenance`.
      kind: the name of a group of cells, as "cells".
      name: the name of the cell in its group.
      figures: what was measured; kept with as many digits as the file has.
    """
    content[kind][name] = compact_json.rounded(dict(figures))
    call = {key: content["provenance"].get(key) for key in OF_THE_CALL}
    history = content.setdefault("history", [])
    if not history or {key: history[-1].get(key) for key in OF_THE_CALL} != call:
        history.append({**call, "cells": []})
    history[-1].setdefault("cells", []).append(name)
