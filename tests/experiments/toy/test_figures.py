"""The figures of the toy target: what is compared, what is drawn from which fit, and that one call follows another."""

import json

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from experiments.toy import (
    command as toy,
)
from experiments.toy import (
    comparison as toy_comparison,
)
from experiments.toy import (
    figures as toy_figures,
)
from experiments.toy import (
    problem as toy_problem,
)
from experiments.toy import (
    training as toy_training,
)

LOG_Z = 3.30983


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few samples; and the standard promotion that matplotlib's data and optax need."""
    monkeypatch.setattr(toy_figures, "MAP_DRAWS", 200)
    monkeypatch.setattr(toy_figures, "SCATTERED", 100)
    monkeypatch.setattr(toy_figures, "log_normaliser", lambda: LOG_Z)
    monkeypatch.setattr(toy_figures, "_grid", lambda grid=toy_figures._grid: grid(cells=9))
    with jax.numpy_dtype_promotion("standard"):
        yield


def result(settings, *, factor=1.0):
    """A result of three seeds whose gaps are `factor` times 0.2, 0.3 and 0.5, with random correlations."""
    gap = factor * np.array([0.2, 0.3, 0.5])
    random = np.random.default_rng(len(settings.z0))
    correlation = [np.corrcoef(random.normal(size=(3, 9))).tolist() for _ in gap]
    names = ("estimate_log_variance", "estimate_variance", "estimate_deviation")
    return {
        "settings": settings._asdict(),
        "log_z": LOG_Z,
        "gap": gap.tolist(),
        "bound": (LOG_Z - gap).tolist(),
        **{name: (gap * (number + 2)).tolist() for number, name in enumerate(names)},
        "weight_correlation": correlation,
    }


@pytest.fixture
def untrained(monkeypatch):
    """Fits of random parameters in place of trained ones; the settings that were asked for."""
    asked = []

    def fit(settings, folder, *, log_z):
        assert log_z == LOG_Z
        asked.append(settings)
        problem = toy_problem.make_problem(settings)
        shapes, random = jax.eval_shape(problem.init, jax.random.key(0)), np.random.default_rng(0)
        params = jax.tree.map(lambda leaf: jnp.float32(0.1 * random.normal(size=(1, *leaf.shape))), shapes)
        return toy_training.Fit(result(settings, factor=0.5 if settings.z0 == "shared" else 1.0), params)

    monkeypatch.setattr(toy_figures, "fit", fit)
    return asked


def test_comparisons_are_paired_by_seed():
    separate = result(toy_problem.Settings(z0="separate", seeds=3))
    shared = result(toy_problem.Settings(z0="shared", seeds=3))
    shared["gap"] = [0.1, 0.3, 0.2]
    first, *_, last = toy_comparison.compare([separate, shared])
    # Differences -0.1, 0, -0.3: mean -0.4 / 3, sample variance 7/300; t of two degrees of freedom at 97.5 % is 4.3027.
    half = 4.30265 * np.sqrt(7 / 300 / 3)
    assert first["figure"] == "gap"
    assert first["difference"] == pytest.approx(-0.4 / 3)
    np.testing.assert_allclose(first["interval"], [-0.4 / 3 - half, -0.4 / 3 + half], rtol=1e-5)
    # The distribution function of t with two degrees of freedom is 1/2 + t / (2 sqrt(2 + t^2)).
    t = 0.4 / 3 / np.sqrt(7 / 300 / 3)
    assert first["p_value"] == pytest.approx(1.0 - t / np.sqrt(2 + t**2))
    assert (first["separate"], first["shared"]) == (pytest.approx(1.0 / 3), pytest.approx(0.2))
    assert (first["shared_is_lower"], first["seeds"]) == (2, 3)
    assert last["figure"] == "weight_correlation"
    off = [[matrix[0][1], matrix[0][2], matrix[1][2]] for matrix in shared["weight_correlation"]]
    assert last["shared"] == pytest.approx(np.mean(off))


def test_figures_of_dispersion_and_correlation_share_their_fits(untrained, tmp_path, capsys):
    toy.main(["--figure", "3", "--seeds", "3", "--output", str(tmp_path)])
    of_three = list(untrained)
    toy.main(["--figure", "4", "--seeds", "3", "--output", str(tmp_path)])
    assert untrained == 2 * of_three
    assert {settings.seeds for settings in of_three} == {3}
    assert [settings.z0 for settings in of_three] == 4 * ["separate", "shared"]
    content = json.loads((tmp_path / "figures.json").read_text())
    assert content.keys() == {"figure 3", "figure 4", "provenance"}
    comparisons = content["figure 3"]["comparisons"]
    gaps = [one["difference"] for one in comparisons if one["figure"] == "gap"]
    assert gaps == pytest.approx(4 * [-0.5 / 3])
    table = (tmp_path / "figure3.md").read_text()
    assert table.strip() in capsys.readouterr().out
    assert len(table.splitlines()) == 2 + len(comparisons)
    drawn = content["figure 4"]["correlations"]
    shown = [(one["settings"]["z0"], one["settings"]["alpha"]) for one in drawn]
    assert shown == 2 * [("separate", 0.0), ("shared", 0.0), ("shared", 1.0)]
    matrices = np.array(result(of_three[0])["weight_correlation"])
    np.testing.assert_allclose(drawn[0]["mean"], matrices.mean(0), atol=1e-12)
    np.testing.assert_allclose(drawn[0]["standard_deviation"], matrices.std(0, ddof=1), atol=1e-12)


def test_figures_of_samples_show_every_member(untrained, tmp_path, monkeypatch):
    drawn = {}

    def save(figure, path):
        drawn[path.name] = figure

    monkeypatch.setattr(toy_figures, "save", save)
    # One row of four, the others would compile as much again.
    chain, *_ = toy_figures.proposals_settings(3, "small")
    early, late = toy_figures.weighting_settings(3, "small")
    assert early._replace(steps=5_000) == late
    rows = {2: [chain], 7: [late]}
    for figure, settings in rows.items():
        monkeypatch.setitem(
            toy_figures.FIGURES, figure, (lambda seeds, networks, s=settings: s, toy_figures.FIGURES[figure][1])
        )
    toy_figures.write([2, 7], tmp_path, seeds=3, networks="small", fits=tmp_path)
    assert untrained == [chain, late]
    axes = drawn["figure2.png"].axes
    chain = [axis.collections[0] for axis in axes[2:5]]
    # Of a chain the first sample gives the colours: they are its own distance from the origin, and nobody else's.
    for member, points in enumerate(chain):
        own = np.linalg.norm(points.get_offsets(), axis=1)
        assert np.allclose(points.get_array(), own) == (member == 0)
    resampled = axes[1].collections[0].get_array()
    assert np.sum(resampled) == pytest.approx(200, abs=20)  # one of each draw, few of them outside
    maps = [axis.collections[0].get_array() for axis in drawn["figure7.png"].axes[3:6]]
    np.testing.assert_allclose(np.sum(maps, axis=0), np.ones((9, 9)), rtol=1e-5)
    matplotlib.pyplot.close("all")


def test_samples_are_those_that_the_weights_belong_to():
    settings = toy_problem.Settings(z0="separate", alpha=0.0)
    problem = toy_problem.make_problem(settings)
    params = jax.jit(problem.init)(jax.random.key(0))
    fitted = toy_training.Fit({"settings": settings._asdict()}, jax.tree.map(lambda leaf: leaf[None], params))
    z, log_w, origin = toy_figures._first(fitted, draws=3)
    z, log_w, origin = np.asarray(z), np.asarray(log_w), np.asarray(origin)
    known = np.concatenate([z[:, 0], np.tile(np.float32([1, 0, 0]), (3, 1))], axis=1)
    (loc, raw), (r_loc, r_log_variance) = (
        np.asarray(
            jax.vmap(lambda row, name=name: jnp.stack(toy_problem._network(params[name], row)))(inputs)
        ).swapaxes(0, 1)
        for name, inputs in (("conditionals", origin), ("reverse", known))
    )

    def log_normal(x, loc, scale):
        return np.sum(-0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi), axis=-1)

    expected = np.asarray(jax.vmap(toy_problem.log_target)(z[:, 0])) - np.log(3)
    expected += log_normal(origin, r_loc, np.exp(0.5 * r_log_variance)) - log_normal(origin, 0.0, 1.0)
    expected -= log_normal(z[:, 0], loc[:, :2], np.logaddexp(0.0, raw[:, :2]))
    np.testing.assert_allclose(log_w[:, 0], expected, rtol=1e-3, atol=1e-3)


def test_options_of_the_table_are_refused_beside_a_figure(capsys):
    with pytest.raises(SystemExit):
        toy.parse(["--figure", "2", "--steps", "10", "--decay"])
    assert "leave out --steps, --decay" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        toy.parse(["--figure", "5"])


def test_a_mistake_is_an_error_before_the_first_fit(untrained, tmp_path):
    with pytest.raises(SystemExit):
        toy.main(["--figure", "2", "3", "--seeds", "0", "--output", str(tmp_path)])
    assert not untrained
