"""The benchmark of proposals trains each model with its own parameters, keeps the curves, and times all together."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from benchmarks import proposals
from benchmarks.shared import problems
from tests import models

pytestmark = pytest.mark.usefixtures("as_a_script")
X = jnp.asarray(models.SCALAR_X, jnp.float32)


def small_model(name, *, num_samples):
    """One Gaussian, or a mixture of them, in one dimension: it compiles in a moment."""
    M = 1 if name == "iwae" else int(name.removeprefix("mixture-"))

    def conditional(params, x):
        return params["loc"] + 0.0 * x, jnp.exp(params["log_scale"])

    proposal = (
        hj.independent(
            lambda params, x: jax.tree.map(lambda leaf: leaf[0], conditional(params, x)), num_samples=num_samples
        )
        if M == 1
        else hj.mixture(conditional, num_samples=num_samples)
    )

    def log_joint(params, x, z):
        return -0.5 * jnp.sum((jnp.abs(z) - 2.0) ** 2)  # two modes

    def evaluate(params, key, *, reverse_samples=None):
        weights = hj.make_log_weights(log_joint, proposal)
        return jnp.mean(jax.nn.logsumexp(jax.vmap(weights, (None, None, 0))(params, X, jax.random.split(key, 500)), 1))

    return problems.Problem(
        title="digits",
        alpha=None,
        num_samples=num_samples,
        init=lambda seed: {"loc": jnp.linspace(-1.0, 1.0, M)[:, None] + 0.01 * seed, "log_scale": jnp.zeros((M, 1))},
        of_proposal=None,
        log_joint=log_joint,
        proposal=proposal,
        weighting=None,
        make_bound=lambda: hj.make_bound(log_joint, proposal),
        batch=lambda key: jnp.broadcast_to(X, (4, 1)),
        compared_examples=1,
        evaluate=evaluate,
        learning_rate=3e-2,
    )


def test_a_mixture_wins_where_there_are_two_modes_and_nothing_is_trained_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(problems, "make_digits_model", small_model)
    arguments = ["--models", "iwae", "mixture-2", "--num-samples", "2", "--steps", "200", "--seeds", "2"]
    assert proposals.main([*arguments, "--output", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "proposals.json").read_text())
    one, two = content["cells"]
    assert (one["model"], one["time_ratio"], one["equal_time"]) == ("iwae", 1.0, one["equal_steps"])
    # The integral is 2 sqrt(2 pi), but for what the modes share: a mixture of both can be exact.
    log_z = np.log(2 * np.sqrt(2 * np.pi)) + np.log(0.97725)
    assert np.all(np.abs(np.subtract(two["equal_steps"], log_z)) < 0.03)
    assert np.all(np.asarray(one["equal_steps"]) < log_z - 0.05)
    assert two["curve"][-1] == pytest.approx(np.mean(two["equal_steps"]))
    assert two["curve"][0] < two["curve"][-1]
    assert "| Mixture of 2 | 2 | 200 |" in capsys.readouterr().out
    training = jax.tree.map(lambda path: path.stat().st_mtime_ns, sorted((tmp_path / "curves").iterdir()))
    assert proposals.main([*arguments, "--output", str(tmp_path)]) == 0
    assert training == [path.stat().st_mtime_ns for path in sorted((tmp_path / "curves").iterdir())]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--steps", "30"], "argument --steps: expected a multiple of 20"), (["--models", "gan"], "got 'gan'")],
)
def test_what_cannot_be_run_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        proposals.parse(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
