"""A fit of the toy that is on disk is used if it is whole and of the same settings, and made anew if not."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.toy import problem as toy_problem
from experiments.toy import training as toy_training


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture
def toy_fit(tmp_path, monkeypatch):
    """`fit()` of the toy without training; `fit.times` says how often it was done."""
    settings, times = toy_problem.Settings(alpha=1.0, num_samples=2, seeds=2, hidden=3), []

    def train(settings, problem):
        times.append(1)
        return jax.tree.map(
            lambda leaf: jnp.full(leaf.shape, 0.5, leaf.dtype),
            jax.eval_shape(lambda: toy_training._initial_params(settings, problem)),
        )

    figures = {name: [1.0, 2.0] for name in toy_training.MEASURES}
    figures["weight_correlation"] = [[[1.0, 0.5], [0.5, 1.0]]] * 2
    monkeypatch.setattr(toy_training, "train", train)
    monkeypatch.setattr(toy_training, "evaluate", lambda *arguments, **options: figures)

    def fit():
        return toy_training.fit(settings, tmp_path, log_z=3.3)

    fit.times = times
    return fit


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("json", lambda content: b""),
        ("json", lambda content: b"null"),
        ("json", lambda content: content[:-40]),
        ("json", lambda content: content.replace(b'"alpha": 1.0', b'"alpha": 1.0000001')),
        ("json", lambda content: content.replace(b'"log_z": 3.3', b'"log_z": 3.4')),
        ("json", lambda content: content.replace(b'"format": 1', b'"format": 0')),
        ("json", lambda content: content.replace(b'"bound": [\n  1.0', b'"bound": [\n  null')),
        ("json", lambda content: content.replace(b'"bound"', b'"found"')),
        ("json", lambda content: content.replace(b"0.5\n", b'"0.5"\n').replace(b"0.5,", b"[],")),
        ("npz", lambda content: b""),
        ("npz", lambda content: content[:-1]),
        ("npz", lambda content: npz(**{"0": np.zeros(3)})),
        ("npz", lambda content: npz(**{name: 2.0 * array for name, array in np.load(io.BytesIO(content)).items()})),
    ],
)
def test_a_toy_fit_that_is_damaged_or_foreign_is_made_anew(kind, change, toy_fit, tmp_path, capsys):
    first = toy_fit()
    again = toy_fit()
    assert len(toy_fit.times) == 1
    assert again.result == first.result
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
    (path,) = tmp_path.glob(f"*.{kind}")
    before = path.read_bytes()
    assert change(before) != before
    path.write_bytes(change(before))
    assert capsys.readouterr().out == ""
    assert toy_fit().result["settings"] == first.result["settings"]
    assert len(toy_fit.times) == 2
    assert capsys.readouterr().out.startswith(f"{path.with_suffix('')}.")
    assert toy_fit() is not None
    assert len(toy_fit.times) == 2
