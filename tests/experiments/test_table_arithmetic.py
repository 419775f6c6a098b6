"""The figures in the tables of the toy and of the images, against numbers computed by hand."""

import types

import numpy as np
import pytest

from experiments.toy import fits_table
from experiments.toy.problem import Settings as ToySettings
from experiments.vae import report
from experiments.vae.settings import Settings
from experiments.vae.training import CURVES


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def toy_result(**changes):
    settings = ToySettings(alpha=0.0, num_samples=3, steps=7, seeds=2)._asdict()
    correlation = [[1.0, 0.2, 0.4], [0.2, 1.0, 0.6], [0.4, 0.6, 1.0]]  # of pairs 0.4 in the mean
    figures = {
        "bound": [3.0, 3.2],
        "gap": [0.3, 0.1],
        "estimate_log_variance": [0.5, 0.7],
        "log_weight_variance": [1.0, 2.0],
        "weight_correlation": [correlation, np.eye(3).tolist()],
        "effective_sample_size": [2.0, 2.5],
    }
    return {"settings": settings, "log_z": 3.3, "train_seconds": 12.4, **figures, **changes}


def test_a_row_of_the_toy():
    # Deviations of the gap +-0.1, so sqrt((0.01 + 0.01) / 1) = 0.1414 with one degree of freedom.
    found = dict(zip(cells(fits_table.HEADER.split("\n")[0]), cells(fits_table.row(toy_result())), strict=True))
    assert found["bound"] == "3.1000"
    assert found["log Z"] == "3.30000"
    assert found["gap"] == "0.2000 +- 0.1414"
    assert (found["Var log w"], found["Var log w_j"]) == ("0.600", "1.500")
    assert found["corr"] == "0.200"  # pairs of both seeds: (0.2 + 0.4 + 0.6 + 0) / 6
    assert (found["ESS"], found["seconds"], found["K"]) == ("2.250", "12", "3")
    assert found["reverse"] == "embedded"
    of_one = dict(
        zip(cells(fits_table.HEADER.split("\n")[0]), cells(fits_table.row(toy_result(gap=[0.3]))), strict=True)
    )
    assert of_one["gap"] == "0.3000 +- -"


def test_a_row_of_the_images():
    nll = {"mean": [80.0, 83.0], "standard_error": [0.4, 0.6], "monte_carlo_error": [0.02, 0.04]}
    content = {
        "settings": Settings(num_samples=5, seeds=2)._asdict(),
        "steps": 2_000,
        "train_bound": {"mean": [-79.0, -81.0]},
        "test_bound": {"mean": [-81.0, -84.0]},
        "test_nll": nll,
        "train_seconds": 61.4,
    }
    header, _, line = report.table([content]).split("\n")
    found = dict(zip(cells(header), cells(line), strict=True))
    # Standard deviations over two seeds: half of the difference times sqrt(2).
    assert found["train bound"] == "-80.00 +- 1.41"
    assert found["test bound"] == "-82.50 +- 2.12"
    assert found["test NLL"] == "81.50 +- 2.12"
    assert (found["MC error"], found["s.e. over images"]) == ("0.030", "0.50")
    assert (found["model"], found["K"], found["steps"], found["seconds"]) == ("IWAE", "5", "2,000", "61")
    assert report.over_seeds([81.5]) == "81.50"


@pytest.mark.parametrize(("calls", "kept"), [(3, 3), (100, report.STORED_POINTS)])
def test_stored_curves_are_those_of_training(calls, kept):
    curves = np.arange(2 * 120 * len(CURVES), dtype=np.float64).reshape(2, 120, len(CURVES))
    trained = types.SimpleNamespace(state=types.SimpleNamespace(calls=np.array([calls, calls]), curves=curves))
    stored = report.finished_curves(trained)
    assert list(stored) == list(CURVES)
    assert len(stored["step"]) == kept
    for place, name in enumerate(CURVES[1:], start=1):
        for seed in range(2):
            column = stored[name][seed]
            assert (column[0], column[-1]) == (curves[seed, 0, place], curves[seed, calls - 1, place])
            assert set(column) <= set(curves[seed, :calls, place].tolist())
