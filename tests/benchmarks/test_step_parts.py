"""The parts of a step: their shapes and how often each runs, and the table of their shares."""

import json

import pytest

from benchmarks import step_parts
from benchmarks.peers.contestants import make
from benchmarks.peers.problem import Sizes, make_problem
from benchmarks.shared.roofline import decoder_products

pytestmark = pytest.mark.usefixtures("as_a_script")


def test_every_part_runs_as_often_as_a_step_needs_it(monkeypatch):
    monkeypatch.setattr(step_parts, "PIECE", 8)
    programs, repeats = step_parts.parts(make_problem(Sizes(batch=4, pixels=12, hidden=8, latent=3), 5))
    assert repeats == {
        "decoder products": 2.5,  # 20 samples in pieces of 8
        "encoder products": 1,
        "pixels": 2.5,
        "tanh": 3.0,  # also of 4 examples in the encoder
        "noise": 2.5,
        "Adam": 1 / step_parts.UPDATES,
    }
    for program in programs.values():
        program.advance(2)


def test_the_products_of_an_encoder_have_no_gradient_of_the_images():
    widths = (40, 8, 4)
    whole, without = (decoder_products(widths, 16, "float32", of_input=given) for given in (True, False))
    for timed in (whole, without):
        assert timed.program.cost_analysis()["flops"] == pytest.approx(timed.flops, rel=0.05)
    assert whole.flops - without.flops == 2 * 16 * 40 * 8


def test_the_table_has_the_shares(tmp_path, monkeypatch, capsys):
    cell = {"milliseconds": 7.9, "shares": {"pixels": 0.084, "rest": -0.01}, step_parts.TIMES_OF_PLAIN: 0.904}
    cell["bfloat16"] = {"products in bfloat16": {"of_plain": 0.591, "nats": 0.00305, "gradient": 0.0052}}
    monkeypatch.setattr(step_parts, "_cell", lambda K, options: {"num_samples": K, **cell})
    assert step_parts.main(["--num-samples", "5", "50", "--output", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "step_parts.json").read_text())
    assert [cell["num_samples"] for cell in content["cells"]] == [5, 50]
    lines = ("in bfloat16 / plain JAX | 0.59", "apart, nats | 0.003 | 0.003 |", "gradient apart | 0.5 % | 0.5 % |")
    for line in lines:
        assert line in step_parts.table(content)
    for line in ("| one step | K = 5 | K = 50 |", "| share: pixels | 8 % | 8 % |", "plain JAX | 0.90 | 0.90 |"):
        assert line in capsys.readouterr().out or line in step_parts.table(content)


def test_steps_in_bfloat16_are_close_to_those_of_float32_and_not_equal():
    problem = make_problem(Sizes(batch=4, pixels=12, hidden=8, latent=3), 5)
    exact = make("hiwae-dreg-scanned", problem)
    assert step_parts.distances(exact, exact) == {"nats": 0.0, "gradient": 0.0}
    found = {name: step_parts.distances(step, exact) for name, step in step_parts.in_short_floats(problem).items()}
    assert list(found) == ["products in bfloat16", "networks in bfloat16"]
    for apart in found.values():
        assert 1e-4 < apart["gradient"] < 0.03  # a factor is off by 0.4 % at most
        assert 1e-6 < apart["nats"] < 0.1
    assert found["products in bfloat16"]["gradient"] < found["networks in bfloat16"]["gradient"]
