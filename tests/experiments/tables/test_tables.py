"""Tables of result files: what is read and refused, what is shown of it, and figures against numbers by hand."""

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tables import cells as table_cells
from experiments.tables import collected, published
from experiments.tables import command as tables
from experiments.tables.curves import draw_curves
from experiments.tables.document import appendix, document
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
    assert row(output.with_name("tables_mlp.md").read_text(), "VAE")[-1] == expected
    assert "from 0 results" in text
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


def lines_of(text, start, count):
    """The cells of the row that begins so, and of the rows below it."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"| {start} |"))
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[first : first + count]]


def section(text, start):
    """The part of a page below the heading that begins so."""
    return re.split(r"\n#+ ", text.split(start, 1)[1], maxsplit=1)[0]


def page(results):
    return document(results, "figure.png", "mlp.md")


CONV = MLP._replace(architecture="conv", nll_images=0)


def test_ours_stand_above_the_published_numbers_and_their_difference(make):
    make(CONV, test_nll=[82.0, 83.0, 84.0], validation_nll=[81.0, 82.0, 83.0], train_nll=[79.0, 79.5, 80.0])
    text = section(page(make.results()), "### Table 5: ")
    ours, theirs, difference = lines_of(text, "H-IWAE alpha 1", 3)
    # Bounds are printed negated: 1 and 2 nats above the numbers given.
    assert ours[2:] == ["80.50 +- 0.50", "84.00 +- 1.00", "85.00 +- 1.00", "82.00 +- 1.00", "83.00 +- 1.00"]
    assert theirs[2:] == ["82.15 +- 0.60", "85.03 +- 0.65", "84.76 +- 0.64", "81.88 +- 0.35", "81.60 +- 0.35"]
    # (83 - 81.60) / sqrt(1 / 3 + 0.35^2 / 5) = 2.340, where ours alone would give 2.42.
    assert difference[-1] == "+1.40 (+2.3 s.e.)"
    # (80.5 - 82.15) / sqrt(0.25 / 3 + 0.36 / 5) = -4.187.
    assert difference[2] == "-1.65 (-4.2 s.e.)"
    assert [line[:2] for line in (ours, theirs, difference)] == [
        ["H-IWAE alpha 1", "ours"],
        ["", "published"],
        ["", "difference"],
    ]
    assert row(text, "IWAE")[1:] == ["published", *IWAE_OF_TABLE_5]
    note = next(line for line in text.splitlines() if line.startswith("- 1 cell of 3 seeds: conv"))
    for part in ("all 10,000 validation", "2,000 samples", "up to 0.250", "abacus", "took 61 s", "01234567"):
        assert part in note
    assert "of 3 seeds" not in section(page(make.results()), "### Table 6: ")


IWAE_OF_TABLE_5 = ["82.36 +- 0.20", "85.40 +- 0.05", "85.16 +- 0.03", "82.03 +- 0.04", "81.77 +- 0.04"]


def test_one_seed_has_no_spread_and_no_standard_errors(make):
    make(CONV._replace(seeds=1), test_nll=[83.0])
    ours, _, difference = lines_of(page(make.results()), "H-IWAE alpha 1", 3)
    assert (ours[-1], difference[-1]) == ("83.00", "+1.40")


def test_one_run_serves_all_alphas_at_one_sample(make):
    for model, nll in (("hiwae-0", 82.0), ("hiwae-1", 82.000001), ("hiwae-3", 82.0)):
        make(CONV._replace(model=model, num_samples=1, seeds=1), test_nll=[nll])
    text = section(page(make.results()), "### Table 4: ")
    lines = lines_of(text, "H-IWAE, any alpha", 7)
    assert [line[1] for line in lines] == [
        "ours",
        *("published, alpha 0", "difference", "published, alpha 1", "difference", "published, alpha 3", "difference"),
    ]
    assert [line[-1] for line in lines[::2]] == ["82.00", "+0.04", "+0.11", "+0.07"]
    assert "results the one with" not in text  # they are one model, and nothing was chosen
    assert "- MNIST: IWAE K = 1, 2, 5, 10; H-IWAE alpha 0 K = 2, 5, 10;" in page(make.results())


def test_networks_are_kept_apart_and_nothing_published_stands_beside_others(make):
    make(MLP, test_nll=[90.0] * 3)
    make(CONV, test_nll=[80.0] * 3)
    conv, mlp = page(make.results()), appendix(make.results(), "tables.md", "tables_mlp.png")
    assert row(conv, "H-IWAE alpha 1")[-1] == "80.00 +- 0.00"
    assert row(mlp, "H-IWAE alpha 1")[-1] == "90.00 +- 0.00"
    assert "80.00" not in mlp
    assert "90.00" not in conv
    assert not set(re.findall(r"s\.e\.|\| published|81\.60", mlp))


def test_a_rebuilt_omniglot_has_its_own_heading_and_nothing_published(make):
    rebuilt = CONV._replace(dataset="omniglot_rebuilt")
    make(rebuilt, test_nll=[110.0, 111.0, 112.0])
    of_others = page(make.results()).split("**OMNIGLOT 28x28, rebuilt**\n\nThese images were made from")[1]
    assert "must not be equated" in of_others
    found = row(of_others, "H-IWAE alpha 1")
    assert (len(found), found[-1]) == (6, "111.00 +- 1.00")


def test_a_search_shows_the_best_validation_nll_and_names_its_choice(make):
    search = sweeps.expand(sweeps.SWEEPS["caltech-search"], {"model": ["hiwae-3"], "num_samples": [5]})
    first, second, third, fourth = search[:4]
    # The lowest test NLL is not the one to show; nor is a validation NLL from fewer images or samples.
    make(first, test_nll=[105.0, 105.5, 106.0], validation_nll=[104.0] * 3)
    make(second, test_nll=[103.0, 103.5, 104.0], validation_nll=[105.0] * 3)
    make(third._replace(nll_images=50), test_nll=[99.0] * 3, validation_nll=[99.0] * 3)
    make(fourth._replace(nll_samples=20), test_nll=[98.0] * 3, validation_nll=[98.0] * 3)
    text = page(make.results())
    ours, _, difference = lines_of(section(text, "### Table 3: K = 5"), "H-IWAE alpha 3", 3)
    # (105.5 - 107.13) / sqrt(0.25 / 3 + 0.41^2 / 3) = -4.37
    assert (ours[-1], difference[-1]) == ("105.50 +- 0.50", "-1.63 (-4.4 s.e.)")
    assert re.search(r"- H-IWAE alpha 3, K = 5: of 4 results the one with .*nll_samples 2000, nll_images 0", text)
    assert "- The search of Table 3: 2 of 560 cells were run" in text
    assert row(text, "Table 3, H-IWAE alpha 3, K = 5")[1:] == ["105.50 +- 0.50", "107.13", "yes"]


def test_more_seeds_of_the_same_settings_are_shown_whatever_their_nll(make):
    make(CONV._replace(seeds=1), test_nll=[80.0])
    make(CONV._replace(seeds=3), test_nll=[80.0, 84.0, 85.0])
    make(CONV._replace(seeds=1, steps=9), test_nll=[82.0])
    text = page(make.results())
    ours = lines_of(section(text, "### Table 5: K = 2"), "H-IWAE alpha 1", 1)[0]
    assert ours[-1] == "82.00"  # of other settings; the mean of three is 83
    make(CONV._replace(seeds=4, steps=9), test_nll=[82.0, 84.0, 86.0, 88.0])
    ours = lines_of(section(page(make.results()), "### Table 5: K = 2"), "H-IWAE alpha 1", 1)[0]
    assert ours[-1] == "83.00 +- 2.65"


def test_the_published_mean_is_compared_only_for_the_very_settings_of_the_paper(make):
    (cell,) = sweeps.expand(sweeps.SWEEPS["mnist"], {"model": ["iwae"], "num_samples": [5]})
    make(cell._replace(steps=cell.steps - 1), test_nll=[70.0] * 5)
    make(MLP, test_nll=[70.0] * 3)
    assert "No such cell was run." in page(make.results())
    make(cell, test_nll=[81.3, 81.4, 81.5, 81.4, 81.4])
    text = page(make.results())
    assert "No such cell was run." not in text
    assert row(text, "Table 6, IWAE, K = 5")[1:] == ["81.40 +- 0.07", "81.37", "no"]
    # Only half of the block is left to run.
    missing = text.split("## Not run")[1]
    assert "- MNIST: IWAE K = 1, 2, 10; H-IWAE, any alpha K = 1; H-IWAE alpha 0 K = 2, 5, 10; " in missing


def test_cells_of_different_origin_are_marked(make):
    make(CONV, test_nll=[90.0] * 3)
    make(CONV._replace(model="iwae"), test_nll=[91.0] * 3)
    make(CONV._replace(model="hiwae-3", steps=70), test_nll=[92.0] * 3)
    make(MLP, test_nll=[90.0] * 3)
    make(MLP._replace(model="iwae", steps=70), test_nll=[91.0] * 3)
    text = section(page(make.results()), "### Table 5: ")
    assert [row(text, name)[1] for name in ("IWAE", "H-IWAE alpha 1", "H-IWAE alpha 3")] == [
        *("ours [a]", "ours [a]", "ours [b]")
    ]
    assert "- [a] 2 cells of 3 seeds: conv" in text
    assert "- [b] 1 cell of 3 seeds: conv" in text
    assert row(appendix(make.results(), "", ""), "H-IWAE alpha 1 [b]")[-1] == "90.00 +- 0.00"


def test_gradients_are_paired_by_seed_and_kept_out_of_the_tables(make):
    make(MLP, test_nll=[90.0, 92.0, 94.0])
    make(MLP._replace(gradient="authors"), test_nll=[91.0, 92.5, 96.0])
    make(MLP._replace(gradient="authors", steps=70), test_nll=[80.0] * 3)
    make(MLP._replace(gradient="refilled", steps=70), test_nll=[81.0] * 3)
    text = appendix(make.results(), "tables.md", "tables_mlp.png")
    assert row(text, "H-IWAE alpha 1")[-1] == "92.00 +- 2.00"
    section = text.split("## Which gradient")[1]
    # Differences 1, 0.5, 2: mean 7/6, standard deviation sqrt(7/12), standard error sqrt(7)/6 = 0.441.
    difference = "+1.167 (0.441)"
    for name in ("authors", "refilled"):  # of 70 steps, where the default one is missing
        assert row(section, name)[2::2] == ["-", "-"]
        assert row(section, name, 1)[4:] == ["1.75 +- 0.00", "61"]
    assert row(section, "authors", 2)[2:] == [difference, "93.17 +- 2.57", difference]
    assert row(section, "authors", 3)[4:] == ["1.75 +- 0.00", "61"]
    assert row(section, "doubly_reparameterized")[2::2] == ["-", "-"]


def test_the_published_tables_have_the_cells_of_the_paper():
    for table, sweep in ((published.MNIST, "mnist"), (published.OMNIGLOT, "omniglot"), (published.CALTECH, "caltech")):
        cells = {(table_cells.row_of(s), s.num_samples) for s in sweeps.expand(sweeps.SWEEPS[sweep], {})}
        assert {(table_cells.shown_row(row, K), K) for row, K in table.cells} == cells
    assert [len(table.cells) for table in published.TABLES] == [16, 16, 14]
    assert [table.seeds for table in published.TABLES] == [5, 5, 3]
    nll = {cell: figures["test_nll"].mean for cell, figures in published.CALTECH.cells.items()}
    assert min(nll, key=nll.get) == (("hiwae-1", 2), 5)
    deviations = [figures["test_nll"].deviation for figures in published.MNIST.cells.values()]
    assert (min(deviations), max(deviations)) == (0.02, 0.61)


def test_the_published_numbers_are_in_the_order_that_figures_must_have():
    for table in published.TABLES:
        for figures in table.cells.values():
            means = {name: number.mean for name, number in figures.items()}
            # The bound is a bound, training images are fitted best, and validation images are the easier ones to test.
            assert means["validation_nll"] < means["validation_bound"]
            assert means["test_nll"] < means["test_bound"]
            assert means["train_bound"] < min(means["validation_bound"], means["test_bound"])
            assert abs(means["validation_nll"] - means["test_nll"]) < 1.0
        # More samples never hurt IWAE.
        of_iwae = [table.cells[("iwae", 1), K]["test_nll"].mean for K in table.num_samples]
        assert np.all(np.diff(of_iwae) < 0.0)


def test_the_figure_has_the_published_values_as_lines_and_ours_as_diamonds(make, tmp_path, monkeypatch):
    make(CONV, test_nll=[90.0, 92.0, 94.0])
    make(MLP, test_nll=[70.0] * 3)
    make(CONV._replace(num_samples=1), test_nll=[95.0] * 3)
    make(CONV._replace(dataset="omniglot_rebuilt"), test_nll=[110.0, 111.0, 112.0])
    drawn = []
    monkeypatch.setattr("experiments.shared.figures.plt.close", drawn.append)
    draw_figure(make.results(), tmp_path / "figure.png")
    monkeypatch.undo()
    (figure,) = drawn
    panels = {axis.get_title(loc="left").replace(": test NLL in nats", ""): axis for axis in figure.axes}
    assert list(panels) == [
        "MNIST, published (diamonds: ours)",
        "OMNIGLOT, published (ours: not run)",
        "OMNIGLOT 28x28, rebuilt",
        "Caltech101 Silhouettes, published (ours: not run)",
    ]
    mnist, omniglot, rebuilt, caltech = panels.values()

    def values(axis, marker):
        return sorted(float(y) for line in axis.lines if line.get_marker() in marker for y in line.get_ydata())

    def published_values(table):
        return sorted(figures["test_nll"].mean for figures in table.cells.values())

    for axis, table in zip((mnist, omniglot, caltech), published.TABLES, strict=True):
        assert values(axis, "os") == published_values(table)
        names = {text.get_text() for text in axis.texts}
        assert {"IWAE", "H-IWAE alpha 0", "H-IWAE alpha 1", "H-IWAE alpha 3", "1 nat"} <= names
    assert {text.get_text() for text in caltech.texts} >= {"IWAE(h)", "alpha 1, two updates"}
    assert [values(axis, "D") for axis in (mnist, omniglot, caltech)] == [
        [92.0, *3 * [95.0]],
        [],
        [],
    ]  # at K = 1 for every alpha
    assert values(rebuilt, "o") == [111.0]
    ends = {tuple(segment[:, 1]) for bar in mnist.containers for segment in bar[2][0].get_segments()}
    assert any(np.allclose(pair, (81.60 - 0.35, 81.60 + 0.35)) for pair in ends)
    (bar,) = rebuilt.containers
    assert tuple(bar[2][0].get_segments()[0][:, 1]) == (110.0, 112.0)


def test_the_curves_are_negated_means_over_seeds_with_the_published_bound(make, tmp_path, monkeypatch):
    make(CONV, test_nll=[90.0, 92.0, 94.0])
    make(CONV._replace(dataset="omniglot_rebuilt", encoder_updates=2), test_nll=[110.0] * 3)
    results = make.results()
    for result in results:
        result.content["curves"] |= {
            "step": [1_000.0, 2_000.0],
            "train_bound": [[-90.0, -80.0], [-92.0, -82.0]],
            "validation_bound": [[-93.0, -86.0], [-95.0, -88.0]],
        }
    drawn = []
    monkeypatch.setattr("experiments.shared.figures.plt.close", drawn.append)
    draw_curves(results, tmp_path / "curves.png")
    monkeypatch.undo()
    (figure,) = drawn
    panels = {axis.get_title(loc="left"): axis for axis in figure.axes if axis.get_title(loc="left")}
    assert list(panels) == ["MNIST, K = 2", "OMNIGLOT 28x28, rebuilt, K = 2"]
    validation, training, square = panels["MNIST, K = 2"].lines
    assert [list(line.get_ydata()) for line in (validation, training)] == [[94.0, 87.0], [91.0, 81.0]]
    assert list(validation.get_xdata()) == [1.0, 2.0]
    assert list(square.get_ydata()) == [85.03]  # Table 5
    assert [line.get_linestyle() for line in panels["OMNIGLOT 28x28, rebuilt, K = 2"].lines] == ["--", "--"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["H-IWAE alpha 1", "H-IWAE alpha 1, encoder twice"]
