"""The README's examples run as they stand, and print what it says."""

import pathlib
import re

import numpy as np

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


def test_the_examples_run_and_print_what_the_text_says(capsys):
    text = README.read_text()
    first, second = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}
    exec(first, names)
    assert capsys.readouterr().out == "the bound is -2.9 nats\n"
    assert "# -2.9, and log p(x) is -2.2" in first
    assert sorted(names["gradients"]) == ["a", "w"]

    # log p(x) by quadrature.
    z = np.linspace(-12.0, 12.0, 100_001)
    log_joint = -0.5 * z**2 - 0.5 * ((2.0 - z**2) / 0.5) ** 2 - np.log(2 * np.pi * 0.5)
    assert round(float(np.log(np.trapezoid(np.exp(log_joint), z))), 1) == -2.2

    # The H-IWAE: the second block, and the lines after `proposal, weighting = ...` once more.
    exec(second, names)
    _, _, after = first.partition("proposal, weighting = hj.independent(q, num_samples=5), None\n")
    exec(after, names)
    assert capsys.readouterr().out == "the bound is -2.5 nats\n"
    assert "is then -2.5 nats, with three samples" in text


def test_it_is_short():
    assert len(README.read_text().splitlines()) < 150
