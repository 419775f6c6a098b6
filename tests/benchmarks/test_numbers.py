"""Numbers in the text of pages: computed ones take the place of written ones, and what is wrong is named."""

import pytest

from benchmarks import measured, numbers
from hiwae_jax._gradients.registry import RULES

PAGE = """# Costs

It takes 9.99 here.

## Costs of a step

- It takes **0.1** to 7
  times as long, 5,000 times.
  <!-- numbers
  **0.1** to 7 times: *span(double(x)
    for x in (1, 2.26))
  5,000 times: 1_234_567.0
  -->

It takes -1.00 or +0.50.
<!-- numbers
takes -1.00 or +0.50: -0.001, 0.25
-->
"""
FUNCTIONS = {"double": lambda x: 2.0 * x, "span": measured.span}


def one(words, expressions, text="It takes 1.5 s.", name="page.md"):
    return numbers.fill(f"{text}\n<!-- numbers\n{words}: {expressions}\n-->\n", FUNCTIONS, name=name)


def test_computed_numbers_take_the_place_of_written_ones():
    filled = numbers.fill(PAGE, FUNCTIONS, name="page.md")
    expected = PAGE.replace("**0.1** to 7", "**2.0** to 5").replace("5,000", "1,234,567")
    assert filled == expected.replace("-1.00 or +0.50", "0.00 or +0.25")
    assert numbers.fill(filled, FUNCTIONS, name="page.md") == filled


def test_text_without_a_comment_stays():
    text = "It takes 1.5 s.\n<!-- a remark: 2 -->\n"
    assert numbers.fill(text, FUNCTIONS, name="page.md") == text


@pytest.mark.parametrize(
    ("words", "expressions", "message"),
    [
        ("takes 1.6", "1", "expected these words once .* found them 0 times"),
        ("5 s", "1", "found them 0 times"),  # a part of a number is no number
        ("It takes", "1", "the words have 0 numbers, and the expressions give 1"),
        ("takes 1.5", "1, 2", "the words have 1 numbers, and the expressions give 2"),
        ("takes 1.5", "double(", "SyntaxError"),
        ("takes 1.5", "treble(1)", "NameError: name 'treble' is not defined"),
        ("takes 1.5", "double(1) / 0", "ZeroDivisionError"),
        ("takes 1.5", "float('nan')", "expected finite numbers, got nan"),
        ("takes 1.5", "'1.5'", "expected finite numbers, got '1.5'"),
    ],
)
def test_what_is_wrong_is_named(words, expressions, message):
    with pytest.raises(ValueError, match=rf"page\.md, numbers of '{words}': .*{message}"):
        one(words, expressions)


def test_words_that_occur_twice_and_lines_without_an_expression_are_wrong():
    with pytest.raises(ValueError, match="found them 2 times"):
        one("takes 1.5", "1", text="It takes 1.5 s, and takes 1.5 s again.")
    with pytest.raises(ValueError, match=r"a line of <!-- numbers --> is .* got 'takes 1\.5'"):
        numbers.fill("It takes 1.5 s.\n<!-- numbers\ntakes 1.5\n-->\n", FUNCTIONS, name="page.md")


def test_an_entry_of_a_result_file_and_what_is_missing():
    ratio = measured.value("peers.json", "cells", {"num_samples": 50}, "contestants", "numpyro", "cpu_ratio", 1)
    assert ratio == measured.peers("numpyro", 50)
    with pytest.raises(ValueError, match=r"results/piers\.json does not exist"):
        measured.value("piers.json")
    with pytest.raises(ValueError, match=r"results/peers\.json: expected one cell with \{'num_samples': 51\}, got 0"):
        measured.peers("numpyro", 51)
    with pytest.raises(ValueError, match=r"results/peers\.json: there is no 'numpro' in \['jax', "):
        measured.peers("numpro", 50)
    with pytest.raises(ValueError, match="there is no 9 in a list of 3"):
        measured.value("peers.json", "cells", {"num_samples": 50}, "contestants", "jax", "cpu_ratio", 9)


def test_the_result_of_the_papers_networks_is_the_one_of_the_tables(monkeypatch):
    """Of several trainings the one with the best validation NLL, wherever it stands among the results."""
    known = measured._trained()
    for results in (known, known[::-1]):
        monkeypatch.setattr(measured, "_trained", lambda results=results: results)
        steps = measured.paper_networks("MNIST", "iwae", 5, "steps")
        shorter = {"steps": 20_000}
        assert steps > measured.paper_networks("MNIST", "iwae", 5, "steps", **shorter)
        nll = measured.paper_networks("MNIST", "iwae", 5, "validation_nll")
        assert nll < measured.paper_networks("MNIST", "iwae", 5, "validation_nll", **shorter)
    with pytest.raises(ValueError, match=r"no result with the paper's networks with .*'steps': 7"):
        measured.paper_networks("MNIST", "iwae", 5, steps=7)


def test_the_costs_and_noises_that_rules_name_are_those_of_the_result_files():
    def flops(gradient):
        def of(name, K):
            found = measured.value("overhead.json", "cells", f"mlp 100/100, K = {K}", "steps", f"H-IWLB 1 {name}")
            iwlb = "reparameterized" if name == "reparameterized" else "doubly_reparameterized"
            whole = measured.value("overhead.json", "cells", f"mlp 100/100, K = {K}", "steps", f"IWLB {iwlb}", "flops")
            assert found["flops"] == pytest.approx(found["flops_ratio"] * whole, rel=1e-6)
            return found["flops"]

        return [of(gradient, K) / of("reparameterized", K) for K in (1, 2, 5)]

    least, most = measured.span(flops("refilled"))
    assert f"FLOPs {least:.2f} to {most:.2f} there" in RULES["refilled"].cost
    least, most = measured.span(flops("doubly_reparameterized"))
    assert f"{least:.2f}" == f"{most:.2f}" == "1.00"
    assert RULES["doubly_reparameterized"].cost == "FLOPs 1.00 with an MLP decoder on 784 pixels, K <= 5"
    least, most = measured.span(measured.variances("refilled", "doubly_reparameterized", 1.0, 3.0))
    assert f"{100 * (1 - least):.0f} % below it to {100 * (most - 1):.0f} % above it" in RULES["refilled"].noise
