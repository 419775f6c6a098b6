"""The code blocks of docs/data.md run on the real files."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

from hiwae_jax import data

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "data.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
RAW = "/path/to/raw/files"


def names_of(block):
    """The public names that a block imports from the library."""
    imports = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in imports if node.module == "hiwae_jax.data" for alias in node.names}


def test_the_page_has_two_blocks_whose_names_are_public():
    first, second = BLOCKS
    assert names_of(first) <= set(data.__all__)
    assert RAW in first
    assert "hiwae_jax.data.binarized_mnist.builder" in second


def test_the_blocks_of_the_page_run(raw_data_dir, tmp_path):
    """In a process of their own, as TensorFlow Datasets reads the name of its folder when it is imported."""
    pytest.importorskip("tensorflow_datasets", reason="the raw files are prepared with it")
    first, second = (block.replace(RAW, str(raw_data_dir)) for block in BLOCKS)
    comment = r"^fixed.train.shape, fixed.shape, fixed.checksum  # (.*), '(\w+)\.\.\.'$"
    shapes, checksum = re.search(comment, first, re.MULTILINE).groups()
    checks = f"""
assert (fixed.train.shape, fixed.shape) == ({shapes})
assert fixed.checksum.startswith({checksum!r})
assert batch.shape == (100, 784) and set(batch.ravel().tolist()) == {{0.0, 1.0}}
assert grey.shape == fixed.shape
"""
    script = "\n".join([first, checks, second, "assert len(source) == len(fixed.train)"])
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True)
    written = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(written) < 2 * 100e6  # two sets
