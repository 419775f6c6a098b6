"""Which runs the command line asks for, and what each is called."""

import itertools

import pytest

from experiments.vae import command as vae
from experiments.vae import report, sweeps
from experiments.vae.settings import Settings


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mnist-mlp", 14),
        ("omniglot-mlp", 12),
        ("caltech-mlp", 12),
        ("gradients-mlp", 10),
        ("mnist", 14),
        ("omniglot", 14),
        ("caltech", 14),
        ("caltech-search", 560),
        ("caltech-short", 10),
        ("mnist-short", 10),
        ("omniglot-short", 10),
        ("omniglot-rebuilt-short", 10),
    ],
)
def test_sweeps_have_the_cells_of_the_tables(name, count):
    cells = sweeps.expand(sweeps.SWEEPS[name], {})
    assert len(cells) == count
    assert len({settings.check().name() for settings in cells}) == count


def test_a_short_cell_is_that_of_the_command_line_with_all_its_settings():
    words = (
        "--dataset caltech101_silhouettes --architecture conv --model hiwae-1 iwae --num-samples 2 5 --latent 32 "
        "--hidden 450 --proposal-hidden 500 --learning-rate 2e-4 --polyak 0.99 --free-bits 0.01 --warmup 1000 "
        "--steps 5000"
    )
    typed = vae.cells(vae.parse(words.split()))
    sweep = sweeps.expand(sweeps.SWEEPS["caltech-short"], {})
    assert set(typed) < set(sweep)
    # The folder of a run that was made.
    chosen = {"model": ["hiwae-1"], "num_samples": [2], "encoder_updates": [1]}
    (cell,) = sweeps.expand(sweeps.SWEEPS["caltech-short"], chosen)
    assert cell.name() == "caltech101_silhouettes-conv-hiwae-1-K2-6f2e6b67"
    assert {(cell.model, cell.encoder_updates, cell.twice) for cell in sweep} == {
        ("iwae", 1, "proposal"),
        ("iwae-h", 1, "proposal"),
        ("hiwae-1", 1, "proposal"),
        ("hiwae-1", 2, "encoder"),
    }


def test_the_number_of_encoder_updates_chooses_among_the_cells_of_a_sweep():
    for name in ("caltech-short", "caltech", "caltech-mlp"):
        cells = sweeps.expand(sweeps.SWEEPS[name], {"encoder_updates": [2]})
        assert [(cell.model, cell.num_samples) for cell in cells] == [("hiwae-1", 2), ("hiwae-1", 5)]
        assert {cell.twice for cell in cells} == {"proposal" if name == "caltech-mlp" else "encoder"}


def test_the_sweep_of_table_3_is_a_point_of_the_papers_search():
    cells, search = (sweeps.expand(sweeps.SWEEPS[name], {}) for name in ("caltech", "caltech-search"))
    assert set(cells) < set(search)
    assert {cell.learning_rate for cell in search} == {3e-4, 1e-4, 5e-5, 3e-5, 1e-5}
    assert {cell.polyak for cell in search} == {0.95, 0.99}
    assert {cell.proposal_hidden for cell in search} == {500, 1024}
    assert {cell.free_bits for cell in search} == {0.0, 0.01}
    assert {(cell.warmup, cell.patience, cell.seeds) for cell in search} == {(0, 25, 3)}
    twice = [cell for cell in cells if cell.encoder_updates == 2]
    assert {(cell.model, cell.twice) for cell in twice} == {("hiwae-1", "encoder")}


def test_options_choose_among_the_cells_of_a_sweep_and_replace_the_rest():
    cells = vae.cells(vae.parse(["--sweep", "caltech-mlp", "--model", "hiwae-1", "--num-samples", "5", "--steps", "7"]))
    assert [(cell.model, cell.num_samples, cell.encoder_updates, cell.steps) for cell in cells] == [
        ("hiwae-1", 5, 1, 7),
        ("hiwae-1", 5, 2, 7),
    ]
    with pytest.raises(ValueError, match=r"nothing in this sweep has .*'num_samples': \[3\]"):
        vae.cells(vae.parse(["--sweep", "caltech-mlp", "--num-samples", "3"]))
    grid = vae.cells(vae.parse(["--model", "iwae", "hiwae-2", "--num-samples", "2", "3", "--hidden", "20,10"]))
    assert [(cell.model, cell.num_samples) for cell in grid] == list(itertools.product(("iwae", "hiwae-2"), (2, 3)))
    assert {cell.hidden for cell in grid} == {(20, 10)}
    assert len(vae.cells(vae.parse(["--model", "vae", "--num-samples", "1", "5"]))) == 1


def test_runs_are_told_apart_by_what_differs():
    settings = Settings(num_samples=2)
    every = [settings, settings._replace(num_samples=3), settings._replace(gradient="refilled", model="hiwae-1")]
    assert report.labels(every[:2]) == ["IWAE", "IWAE"]
    assert report.labels(every) == [
        "IWAE, gradient doubly_reparameterized",
        "IWAE, gradient doubly_reparameterized",
        "H-IWAE alpha 1, gradient refilled",
    ]
