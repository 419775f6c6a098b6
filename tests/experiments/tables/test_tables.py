"""Tables of result files: what is read and refused, what is shown of it, and figures against numbers by hand."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tables import cells as table_cells
from experiments.tables import collected, published
from experiments.tables import command as tables
from experiments.tables.figure import draw_figure
from experiments.vae import command as vae
from experiments.vae import images, sweeps, training
from experiments.vae.evaluation import FIGURES
from experiments.vae.settings import Settings
from tests.experiments.tables.made_results import MLP, content_of, write


@pytest.fixture
def made_by_vae(tmp_path, monkeypatch):
    """The folder and content of a result that `vae.run` wrote, of models that were not trained."""
    settings = Settings(model="vae", latent=2, hidden=(4,), nll_samples=2, nll_images=20, seeds=2)

    def untrained(model, settings, data, folder, **_):
        plan = training.make_plan(settings, len(data.train))
        state = training.init_states(model, plan, jnp.arange(settings.seeds))
        return training.Trained(state._replace(calls=state.calls + plan.calls), 1.5, True)

    monkeypatch.setattr(training, "train", untrained)
    monkeypatch.setattr(vae.pictures, "write_pictures", lambda *_: None)
    folder = tmp_path / "runs"
    with jax.numpy_dtype_promotion("standard"):
        vae.run(settings, images.load("digits", None), folder)
    return folder, json.loads((folder / settings.name() / "result.json").read_text())


@pytest.fixture
def make(tmp_path):
    """`(settings, **nll)` writes a result file; `results()` of the function reads them all."""

    def of_one(settings, **nll):
        write(tmp_path / "made" / settings.name(), content_of(settings, **nll))

    of_one.results = lambda: collected.read([tmp_path / "made"])
    return of_one


def row(text, start, number=0):
    """The cells of a table's row, the `number`-th that begins so."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in lines[number].strip("|").split("|")]


def test_a_result_of_vae_is_collected_and_rendered(made_by_vae, tmp_path, capsys):
    folder, content = made_by_vae
    kept, output = tmp_path / "results", tmp_path / "docs" / "tables.md"
    tables.main(["--collect", str(folder), "--results", str(kept), "--output", str(output)])
    (path,) = kept.glob("*.json")
    assert path.name == "digits-mlp.json"
    assert path.stat().st_size < 20_000
    written = json.loads(path.read_text())
    assert {"commit", "command", "device", "jax"} <= written["provenance"][0].keys()
    assert written["cells"][0]["provenance"] == 0
    (found,) = (result.content for result in collected.read([kept]))
    assert found.keys() == content.keys()
    assert found["settings"] == content["settings"]
    assert found["provenance"] == content["provenance"]
    for name in FIGURES:
        np.testing.assert_allclose(found[name]["mean"], content[name]["mean"], rtol=1e-6)
    first, second = content["test_nll"]["mean"]
    expected = f"{(first + second) / 2:.2f} +- {abs(first - second) / math.sqrt(2):.2f}"
    text = output.read_text()
    assert row(text, "VAE") == ["VAE", expected]
    assert output.with_suffix(".png").stat().st_size < 200_000
    # Again: nothing new, the same file; and both folders together are one result.
    before = path.stat().st_mtime_ns
    tables.main(["--collect", str(folder), "--results", str(kept), "--output", str(output)])
    assert path.stat().st_mtime_ns == before
    assert capsys.readouterr().out.count("collected ") == 1
    assert len(collected.read([folder, kept])) == 1


def test_what_is_no_result_is_passed_over_and_named_if_it_nearly_is_one(tmp_path, capsys):
    write(tmp_path, [1, 2], "list.json")
    write(tmp_path, {"cells": []}, "cells.json")
    write(tmp_path / "below" / "checkpoints", {**content_of(MLP, test_nll=[1.0] * 3), "steps": None}, "inner.json")
    older = content_of(MLP, test_nll=[1.0] * 3)
    del older["validation_bound"], older["validation_nll"]
    write(tmp_path, older, "older.json")
    assert collected.read([tmp_path]) == []
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "older.json: passed over, it has settings and no validation_bound, validation_nll" in out
    with pytest.raises(SystemExit) as refused:
        tables.main(["--results", str(tmp_path), "--output", str(tmp_path / "tables.md")])
    assert refused.value.code == 2
    assert "no results of experiments.vae in " in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r"does not exist: .*nowhere"):
        collected.read([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda c: c.pop("curves"), "the result: expected also curves"),
        (lambda c: c["settings"].pop("clip"), "settings: expected also clip"),
        (lambda c: c["settings"].update(seed=0), "settings: seed are no fields"),
        (lambda c: c["settings"].update(model="gan"), "model: expected vae, iwae"),
        (lambda c: c["settings"].update(seeds=4), r"train_bound.mean: expected 4 finite numbers, got \[-"),
        (lambda c: c["test_nll"].pop("standard_error"), "test_nll: expected also standard_error"),
        (lambda c: c["test_nll"].update(mean=[1.0, math.nan, 1.0]), "test_nll.mean: expected 3 finite numbers"),
        (lambda c: c["nll_images"].pop(), "nll_images: expected 2 finite numbers"),
        (lambda c: c["curves"].update(objective=[[1.0]]), "curves.objective: expected a curve of each of 3 seeds"),
        (lambda c: c["curves"].update(objective=[[1.0]] * 3), "curves.objective: expected 2 finite numbers"),
        (lambda c: c["curves"].update(step=7), "curves.step: expected 1 finite numbers, got 7"),
        (lambda c: c.update(steps="60"), "steps: expected 1 finite numbers"),
        (lambda c: c.update(train_seconds=None), "train_seconds: expected 1 finite numbers"),
        (lambda c: c.update(format=999), "format: expected 1, got 999; another version wrote it"),
        (lambda c: c["settings"].update(latent="7"), "latent: expected a whole number, got '7'"),
        (lambda c: c["settings"].update(hidden=7), "hidden: expected a tuple of whole numbers, got 7"),
        (lambda c: c["settings"].update(clip=True), "clip: expected a number, got True"),
        (lambda c: c.update(settings=None), "settings: expected also dataset"),
        (lambda c: c.update(test_nll=[1.0]), "test_nll: expected also mean"),
        (lambda c: c["data"].update(checksum=7), "data: expected texts"),
        (lambda c: c.clear(), "the result: expected also settings"),
        (lambda c: c["data"].update(name="mnist"), "data: expected the name binarized_mnist, .* got mnist"),
        (lambda c: c["provenance"].pop("device"), "provenance: expected also device"),
    ],
)
def test_a_malformed_result_is_named_with_what_is_wrong(break_it, message, tmp_path):
    content = content_of(MLP, test_nll=[1.0] * 3)
    break_it(content)
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        collected.read([tmp_path])
    assert str(caught.value).startswith(f"{path}: ")


def test_a_cut_file_is_named(tmp_path):
    path = write(tmp_path, content_of(MLP, test_nll=[1.0] * 3))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"result.json: no readable JSON"):
        collected.read([tmp_path])


def test_the_same_settings_with_other_numbers_are_an_error_that_names_both_files(tmp_path):
    write(tmp_path / "a", content_of(MLP, test_nll=[90.0, 91.0, 92.0]))
    other = content_of(MLP, test_nll=[90.0, 91.0, 92.001])
    other["provenance"]["device"] = "gpu big"
    write(tmp_path / "b", other)
    with pytest.raises(ValueError, match=r"a/result.json and .*b/result.json have the same.*cpu cpu.*gpu big"):
        collected.read([tmp_path])
    with pytest.raises(ValueError, match="have the same settings"):
        collected.collect([tmp_path / "b"], tmp_path / "a")
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_a_cell_is_the_mean_its_spread_the_published_value_and_the_distance_in_standard_errors(make):
    make(MLP, test_nll=[82.0, 83.0, 84.0], validation_nll=[81.0, 82.0, 83.0], train_nll=[79.0, 79.5, 80.0])
    text = tables.document(make.results(), "figure.png")
    # (83 - 81.60) / (1 / sqrt(3)) = 2.42
    cell = "83.00 +- 1.00 (81.60; +2.4 s.e.)"
    assert row(text, "H-IWAE alpha 1")[1:] == ["not run (81.89)", cell, "not run (81.16)", "not run (81.04)"]
    # Bounds are printed negative: 1 and 2 nats above the numbers given.
    details = text.split("## Table 5: ")[1].split("## Table 6")[0]
    expected = ["80.50 +- 0.50", "84.00 +- 1.00", "85.00 +- 1.00", "82.00 +- 1.00", cell]
    assert row(details, "H-IWAE alpha 1")[1:] == expected
    assert row(details, "IWAE")[1:] == ["not run"] * 4 + ["not run (81.77)"]
    assert "Of the published table only the test NLL was at hand" in details
    assert "**MNIST, residual networks as in the paper (conv)**: not run; the command is `python -m exp" in text
    note = next(line for line in text.splitlines() if line.startswith("- 1 cell of 3 seeds: mlp"))
    for part in (
        "500 validation and 500 test images",
        "2,000 samples",
        "up to 0.250",
        "abacus",
        "took 61 s",
        "01234567",
    ):
        assert part in note


def test_one_seed_has_no_spread_and_no_distance(make):
    make(MLP._replace(seeds=1), test_nll=[83.0])
    assert row(tables.document(make.results(), ""), "H-IWAE alpha 1")[2] == "83.00 (81.60)"
    assert table_cells.standard_errors(np.array([83.0, 83.0]), 81.0) is None


def test_architectures_are_kept_apart(make):
    make(MLP, test_nll=[90.0] * 3)
    make(MLP._replace(architecture="conv"), test_nll=[80.0] * 3)
    text = tables.document(make.results(), "").split("## Table 2")[0]
    conv, mlp = text.split("**MNIST, small MLPs (mlp)**")
    assert row(conv, "H-IWAE alpha 1")[2] == "80.00 +- 0.00 (81.60)"
    assert row(mlp, "H-IWAE alpha 1")[2] == "90.00 +- 0.00 (81.60)"
    assert "80.00" not in mlp


def test_a_rebuilt_omniglot_has_its_own_heading_and_no_distance(make):
    make(MLP._replace(dataset="omniglot_rebuilt"), test_nll=[110.0, 111.0, 112.0])
    text = tables.document(make.results(), "").split("## Table 2")[1].split("## Table 3")[0]
    assert "**OMNIGLOT 28x28, rebuilt, small MLPs (mlp)**\n\nThese images were made from" in text
    assert "must not be equated" in text
    assert row(text, "H-IWAE alpha 1")[2] == "111.00 +- 1.00 (100.00)"


def test_a_search_shows_the_best_validation_nll_and_names_its_choice(make):
    (cell, *_) = sweeps.expand(sweeps.SWEEPS["caltech-search"], {"model": ["hiwae-3"], "num_samples": [5]})
    # The lowest test NLL is not the one to show; nor is a validation NLL from fewer images or samples.
    make(cell._replace(learning_rate=1e-4), test_nll=[105.0, 105.5, 106.0], validation_nll=[104.0] * 3)
    make(cell._replace(learning_rate=3e-4), test_nll=[103.0, 103.5, 104.0], validation_nll=[105.0] * 3)
    make(cell._replace(learning_rate=3e-5, nll_images=50), test_nll=[99.0] * 3, validation_nll=[99.0] * 3)
    make(cell._replace(learning_rate=1e-5, nll_samples=20), test_nll=[98.0] * 3, validation_nll=[98.0] * 3)
    text = tables.document(make.results(), "")
    assert row(text, "H-IWAE alpha 3")[1:] == ["-", "not run (107.90)", "105.50 +- 0.50 (107.13; -5.6 s.e.)"]
    assert "- H-IWAE alpha 3, K = 5: of 4 results the one with learning_rate 0.0001, nll_samples 2000, nll_i" in text
    assert "- Table 3, search: 2 of 560 cells were run" in text
    assert row(text, "Table 3, H-IWAE alpha 3, K = 5")[1:] == ["105.50 +- 0.50", "107.13", "yes"]


def test_the_published_mean_is_compared_only_for_the_very_settings_of_the_paper(make):
    (cell,) = sweeps.expand(sweeps.SWEEPS["mnist"], {"model": ["iwae"], "num_samples": [5]})
    make(cell._replace(steps=cell.steps - 1), test_nll=[70.0] * 5)
    make(MLP, test_nll=[70.0] * 3)
    assert "No such cell was run." in tables.document(make.results(), "")
    make(cell, test_nll=[81.3, 81.4, 81.5, 81.4, 81.4])
    text = tables.document(make.results(), "")
    assert "No such cell was run." not in text
    assert row(text, "Table 1, IWAE, K = 5")[1:] == ["81.40 +- 0.07", "81.37", "no"]
    # Only half of the block is left to run.
    missing = text.split("## Not run")[1]
    assert "- Table 1, MNIST, conv: IWAE K = 1, 2, 10; H-IWAE alpha 0 K = 1, 2, 5, 10; " in missing
    assert "- Table 3, Caltech101 Silhouettes, mlp: IWAE K = 1; IWAE(h) K = 1; no sweep has them." in missing


def test_cells_of_different_origin_are_marked(make):
    make(MLP, test_nll=[90.0] * 3)
    make(MLP._replace(num_samples=5), test_nll=[91.0] * 3)
    make(MLP._replace(num_samples=10, steps=70), test_nll=[92.0] * 3)
    text = tables.document(make.results(), "").split("## Table 2")[0]
    cells = ["not run (81.89)", "90.00 +- 0.00 [a] (81.60)", "91.00 +- 0.00 [a] (81.16)", "92.00 +- 0.00 [b] (81.04)"]
    assert row(text, "H-IWAE alpha 1")[1:] == cells
    assert "- [a] 2 cells of 3 seeds: mlp" in text
    assert "- [b] 1 cell of 3 seeds: mlp" in text


def test_gradients_are_paired_by_seed_and_kept_out_of_the_tables(make):
    make(MLP, test_nll=[90.0, 92.0, 94.0])
    make(MLP._replace(gradient="authors"), test_nll=[91.0, 92.5, 96.0])
    make(MLP._replace(gradient="authors", steps=70), test_nll=[80.0] * 3)
    make(MLP._replace(gradient="refilled", steps=70), test_nll=[81.0] * 3)
    text = tables.document(make.results(), "")
    assert row(text, "H-IWAE alpha 1")[2] == "92.00 +- 2.00 (81.60; +9.0 s.e.)"
    section = text.split("## Which gradient")[1]
    # Differences 1, 0.5, 2: mean 7/6, standard deviation sqrt(7/12), standard error sqrt(7)/6 = 0.441.
    difference = "+1.167 (0.441)"
    for name in ("authors", "refilled"):  # of 70 steps, where the default one is missing
        assert row(section, name)[6:] == ["-", "-", "1.75 +- 0.00", "61"]
    assert row(section, "authors", 1)[5:] == ["93.17 +- 2.57", difference, difference, "1.75 +- 0.00", "61"]
    assert row(section, "doubly_reparameterized")[6:8] == ["-", "-"]


def test_the_published_tables_have_the_cells_of_the_paper():
    for table, sweep in ((published.MNIST, "mnist"), (published.OMNIGLOT, "omniglot")):
        cells = {(table_cells.row_of(s), s.num_samples) for s in sweeps.expand(sweeps.SWEEPS[sweep], {})}
        assert {(row, K) for row, columns in table.nll.items() for K in columns} == cells
    caltech = {(row, K): nll for row, columns in published.CALTECH.nll.items() for K, nll in columns.items()}
    assert len(caltech) == 14
    assert min(caltech, key=caltech.get) == (("hiwae-1", 2), 5)
    # More samples never hurt in what was published of Caltech, nor IWAE anywhere.
    for columns in [*published.CALTECH.nll.values(), published.MNIST.nll["iwae", 1], published.OMNIGLOT.nll["iwae", 1]]:
        assert np.all(np.diff([columns[K] for K in sorted(columns)]) < 0.0)


def test_the_figure_has_ours_and_hollow_the_published_values(make, tmp_path, monkeypatch):
    make(MLP, test_nll=[90.0, 92.0, 94.0])
    make(MLP._replace(dataset="omniglot_rebuilt"), test_nll=[110.0, 111.0, 112.0])
    drawn = []
    monkeypatch.setattr("experiments.shared.figures.plt.close", drawn.append)
    draw_figure(make.results(), tmp_path / "figure.png")
    monkeypatch.undo()
    (figure,) = drawn
    panels = {axis.get_title(): axis for axis in figure.axes}
    assert list(panels) == [
        "MNIST",
        "OMNIGLOT (ours: not run)",
        "OMNIGLOT 28x28, rebuilt",
        "Caltech101 Silhouettes (ours: not run)",
    ]

    def values(title, face):
        lines = [line for line in panels[title].lines if (line.get_markerfacecolor() == "none") == face]
        return sorted(float(line.get_ydata()[0]) for line in lines if line.get_marker() in ("o", "s"))

    def published_values(table):
        return sorted(nll for columns in table.nll.values() for nll in columns.values())

    assert values("MNIST", True) == published_values(published.MNIST)
    assert values("OMNIGLOT (ours: not run)", True) == published_values(published.OMNIGLOT)
    assert values("OMNIGLOT 28x28, rebuilt", True) == []
    assert values("MNIST", False) == [92.0]
    assert values("OMNIGLOT 28x28, rebuilt", False) == [111.0]
    (bar,) = panels["MNIST"].containers
    np.testing.assert_allclose(bar[2][0].get_segments()[0][:, 1], [90.0, 94.0])
