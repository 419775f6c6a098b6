"""The README's example runs as it stands."""

import pathlib
import re

import jax.numpy as jnp

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    names = {}
    exec(code, names)
    assert bool(jnp.isfinite(names["value"]))
    assert sorted(names["gradient"]) == ["a", "m", "w"]
    assert all(bool(jnp.any(leaf != 0.0)) for leaf in names["gradient"].values())
