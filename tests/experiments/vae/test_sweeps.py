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
    ],
)
def test_sweeps_have_the_cells_of_the_tables(name, count):
    cells = sweeps.expand(sweeps.SWEEPS[name], {})
    assert len(cells) == count
    assert len({settings.check().name() for settings in cells}) == count


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
