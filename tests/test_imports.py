"""Importing the library is light: no Flax, no data sets, no array, no device."""

import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

import hiwae_jax as hj
import hiwae_jax.data
import hiwae_jax.nn


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_pulls_in_neither_flax_nor_data_sets():
    code = (
        "import sys, hiwae_jax; names = ('flax', 'tensorflow_datasets', 'tensorflow', 'optax', 'orbax', 'sklearn', "
        "'matplotlib', 'chex'); print([n for n in names if n in sys.modules])"
    )
    assert run(code) == "[]"


def test_import_creates_no_array_and_starts_no_device():
    code = "import hiwae_jax; from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    assert run(code) == "False"


def test_the_list_of_public_names_is_complete_and_nothing_else():
    page = (pathlib.Path(__file__).parents[1] / "docs" / "api.md").read_text()
    rows = [row.split("|")[1] for row in page.replace(r"\|", "").splitlines() if row.startswith("| `")]
    listed = [re.match(r"\w+", code).group() for row in rows for code in re.findall("`([^`]+)`", row)]
    assert sorted(listed) == sorted([*hj.__all__, *hj.nn.__all__, *hj.data.__all__])


def written_docstring(item):
    """The docstring that somebody wrote: Python makes one for every named tuple and dataclass that has none."""
    text = getattr(item, "__doc__", None) or ""
    return "" if isinstance(item, type) and text.startswith(f"{item.__name__}(") else text


@pytest.mark.parametrize("module", [hj, hj.nn, hj.data], ids=lambda module: module.__name__)
def test_every_public_name_is_documented(module):
    for name in module.__all__:
        item = getattr(module, name)
        # An instance has the docstring of its class, and is described in its module.
        assert name == "diagonal_gaussian" or len(written_docstring(item)) > 20, name


def test_a_docstring_that_python_makes_is_none():
    class Undocumented(NamedTuple):
        field: int

    assert Undocumented.__doc__
    assert written_docstring(Undocumented) == ""
    assert written_docstring(hj.Proposal).startswith("A joint distribution")
