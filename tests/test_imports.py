"""Importing the library is light: no Flax, no data sets, no array, no device."""

import subprocess
import sys

import hiwae_jax as hj


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


def test_every_public_name_is_documented():
    for name in hj.__all__:
        item = getattr(hj, name)
        assert name == "diagonal_gaussian" or item.__doc__, name
