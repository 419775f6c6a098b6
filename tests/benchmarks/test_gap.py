"""The gap of a bound and the variance of its estimate, where both are known in closed form."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from benchmarks import gap

pytestmark = pytest.mark.usefixtures("as_a_script")
SCALE = 1.2  # of q, where the posterior is standard normal in two dimensions


def problem():
    """Constant parameters: log p(x) = 3, and v = p(z | x) / q(z) with K = 1."""
    normal = hj.diagonal_gaussian.log_prob

    def log_joint(params, x, z):
        return normal((jnp.zeros(2), jnp.ones(2)), z) + 3.0 + 0.0 * params

    return types.SimpleNamespace(
        title="digits",
        num_samples=1,
        log_joint=log_joint,
        proposal=hj.independent(lambda params, x: (0.0 * x, SCALE + 0.0 * x), num_samples=1),
        weighting=None,
        batch=lambda key: jnp.ones((64, 2)),
    )


@pytest.mark.parametrize("exact", [None, 3.0])
def test_the_figures_are_those_of_the_closed_form(exact):
    found = jax.jit(lambda params: gap.measure(problem(), params, exact))(jnp.float32(0.0))
    assert {len(values) for values in found.values()} == {64 if exact is None else 1}
    # KL(q | p), and E[v^2] = s^2 / sqrt(2 s^2 - 1) in each dimension.
    kl = 2 * (0.5 * (SCALE**2 - 1.0) - np.log(SCALE))
    second_moment = (SCALE**2 / np.sqrt(2.0 * SCALE**2 - 1.0)) ** 2
    means = {name: float(np.mean(values)) for name, values in found.items()}
    spread = 0.03 if exact is None else 0.1
    assert means["gap"] == pytest.approx(kl, rel=spread)
    assert means["half_variance"] == pytest.approx((second_moment - 1.0) / 2, rel=spread)
    # log v = -z^2 (1 - 1 / s^2) / 2 + const, with z = s times standard normal noise.
    assert means["half_log_variance"] == pytest.approx(2 * (1.0 - SCALE**2) ** 2 * 0.5 / 2, rel=spread)
    assert means["ess"] == pytest.approx(1.0)


def test_a_finished_model_is_not_run_again(tmp_path, monkeypatch, capsys):
    rows = {name: [0.5, 0.25] for name in gap.FIGURES}
    monkeypatch.setattr(gap, "make_problem", lambda dataset, name, data_dir: name)
    monkeypatch.setattr(gap, "run_cell", lambda name, steps, seeds: {"num_samples": 3, "steps": [0, steps], **rows})
    arguments = ["--datasets", "toy", "--steps", "40", "--output", str(tmp_path)]
    assert gap.main(arguments) == 0
    monkeypatch.setattr(gap, "run_cell", None)
    assert gap.main(arguments) == 0
    assert "| toy | hiwae-0 | 40 | 0.250 | 0.250 | 0.250 | 0.250 |" in capsys.readouterr().out
    assert [cell["model"] for cell in json.loads((tmp_path / "gap.json").read_text())["cells"]] == [
        "hiwae-0",
        "hiwae-1",
    ]
    assert (tmp_path / "gap.png").stat().st_size > 1_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "30"], "argument --steps: expected a multiple of 20, got 30"),
        (["--datasets", "toy", "no_such_set"], "no_such_set"),
        (["--datasets", "binarized_mnist", "--data-dir", "EMPTY"], "binarized_mnist"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    arguments = [str(tmp_path / "empty") if argument == "EMPTY" else argument for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        gap.main([*arguments, "--output", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in told
    assert "Traceback" not in told
