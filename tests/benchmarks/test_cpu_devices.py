"""The CPU as one device and as several: the medians, the table, and that a measurement runs what it says."""

import json
import types

import jax
import pytest

from benchmarks import cpu_devices
from experiments.vae import evaluation, sweeps, training

pytestmark = pytest.mark.usefixtures("as_a_script")


def test_ratios_are_taken_within_a_round(tmp_path, monkeypatch, capsys):
    """One device takes 2, 8 and 4 ms, two take 1, 16 and 3: ratios 0.5, 2 and 0.75, and not that of the medians."""
    times = {1: iter([2e-3, 8e-3, 4e-3]), 2: iter([1e-3, 16e-3, 3e-3])}

    def measured(cell, devices, options):
        return dict.fromkeys(cpu_devices.WORK, next(times[devices]))

    monkeypatch.setattr(cpu_devices, "CELLS", {"conv": ("mnist-short", "iwae", 1)})
    monkeypatch.setattr(cpu_devices, "_in_own_process", measured)
    assert cpu_devices.main(["--devices", "2", "--output", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "cpu_devices.json").read_text())
    expected = pytest.approx({"one": 4.0, "several": 3.0, "ratio": 0.75})
    assert content["cells"] == [{"cell": "conv", "training": expected, "evaluation": expected}]
    assert "| conv | 4.0 / 3.0 | 0.75 | 4.0 / 3.0 | 0.75 |" in capsys.readouterr().out
    assert (
        "| one device / 2 devices | training, ms a step | 2 devices / one |"
        in (tmp_path / "cpu_devices.md").read_text()
    )


def test_one_device_is_compared_with_several(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cpu_devices.main(["--devices", "1", "--output", str(tmp_path)])
    assert "--devices: expected at least 2" in capsys.readouterr().err


def test_a_measurement_is_of_the_training_step_and_of_one_image(monkeypatch):
    tiny = {"latent": [2], "hidden": [(4,)], "proposal_hidden": [3]}
    grid = {**sweeps.SWEEPS["mnist-mlp"][1], **tiny}
    monkeypatch.setitem(sweeps.SWEEPS, "mnist-mlp", [grid])
    monkeypatch.setattr(cpu_devices, "NLL_SAMPLES", 10)
    monkeypatch.setattr(cpu_devices, "IMAGES", 128)
    monkeypatch.setattr(evaluation, "ROWS_ON_CPU", {"mlp": 35})
    calls, blocks = [], []
    of_call, of_block = training.make_programs, evaluation.make_programs

    def counted_call(*arguments, **options):
        programs = of_call(*arguments, **options)
        return programs._replace(call=lambda *given: calls.append(len(given[2])) or programs.call(*given))

    def counted_block(*arguments, **options):
        programs = of_block(*arguments, **options)
        return programs._replace(nll=lambda *given: blocks.append(len(given[1])) or programs.nll(*given))

    monkeypatch.setattr(training, "make_programs", counted_call)
    monkeypatch.setattr(evaluation, "make_programs", counted_block)
    # A call of two steps takes 3 s, and a block of 7 images 7 s. The clock is read before, and twice after.
    clock = iter([0.0, 3.0, 3.0, 10.0, 17.0, 17.0])
    monkeypatch.setattr(cpu_devices, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    found = cpu_devices.measure("mlp, H-IWAE alpha 1, K = 5", 1, 1.0)
    assert found == {"training": 1.5, "evaluation": 1.0}
    assert calls == [128, 128]
    assert blocks == [7, 7]
    assert len(jax.devices()) == 1
