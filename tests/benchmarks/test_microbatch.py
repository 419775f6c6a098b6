"""Chunks by optax and by the library: equal numbers, and the table of their times."""

import json

import jax
import jax.numpy as jnp
import pytest

import hiwae_jax as hj
from benchmarks import microbatch

pytestmark = pytest.mark.usefixtures("as_a_script")


def test_all_steps_give_equal_numbers_and_others_are_refused():
    proposal = hj.independent(lambda params, x: (params * x, jnp.ones_like(x)), num_samples=2)
    bound = hj.make_bound(lambda params, x, z: -jnp.sum((x - params * z) ** 2 + z**2), proposal)
    steps = microbatch.make_steps(bound, [16, 64])
    assert list(steps) == ["optax, size 16", "optax, size 64", "ours, no draw", "ours"]
    batch = jax.random.normal(jax.random.key(0), (microbatch.BATCH_SIZE, 3))
    arguments = jnp.float32(0.3), batch, jax.random.key(1)
    results = jax.jit(lambda *arguments: {name: step(*arguments) for name, step in steps.items()})(*arguments)
    microbatch._require_agreement(results)
    value, gradient = results["ours"]
    for wrong in ((value * 1.001, gradient), (value, gradient * 1.001)):
        with pytest.raises(AssertionError, match="ours: expected the value"):
            microbatch._require_agreement({**results, "ours": wrong})


def test_the_table_has_the_fastest_size_of_optax(tmp_path, monkeypatch, capsys):
    ratios = {"optax, size 4": 0.9, "optax, size 8": 0.75, "optax, size 64": 1.0, "ours, no draw": 0.8, "ours": 0.6}
    steps = {name: {"cpu": [x, x - 0.1, x + 0.1], "temp_mib": 10 * x} for name, x in ratios.items()}
    cell = {"nets": "mlp 100/100", "whole_ms": 12.34, "steps": steps}
    monkeypatch.setattr(
        microbatch, "_cell", lambda decoder, K, alpha, options: {"num_samples": K, "alpha": alpha, **cell}
    )
    given = ["--problems", "mlp", "--num-samples", "5", "--sizes", "4", "8", "--output", str(tmp_path)]
    assert microbatch.main(given) == 0
    content = json.loads((tmp_path / "microbatch.json").read_text())
    row = "| 12.3 | 0.75 [0.65, 0.85] (8) | 0.80 [0.70, 0.90] | 0.60 [0.50, 0.70] | 10 / 7.5 / 6 |"
    for bound in ("IWLB", "H-IWLB, alpha 1"):
        assert f"| {bound}, mlp 100/100, K = 5 {row}" in microbatch.table(content)
    assert microbatch.table(content) in capsys.readouterr().out


def test_a_size_that_does_not_divide_the_batch_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        microbatch.main(["--sizes", "7", "--output", str(tmp_path)])
    assert stopped.value.code == 2
    assert "--sizes: expected divisors of the batch of 64, got [7]" in capsys.readouterr().err
