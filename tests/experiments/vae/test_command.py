"""The training script: models end to end on the digits, the same twice, and stopped by a time limit."""

import json

import numpy as np

from experiments.tables import collected
from experiments.vae import command as vae
from experiments.vae import evaluation, training
from experiments.vae.settings import from_json

OPTIONS = ["--steps", "60", "--warmup", "20", "--latent", "4", "--hidden", "16"]
OPTIONS += ["--proposal-hidden", "8", "--num-samples", "2", "--nll-samples", "20"]


def results(folder):
    return {path.parent.name.split("-K")[0]: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


def test_models_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "STEPS_A_CALL", 100)
    monkeypatch.setattr(
        evaluation, "ROWS_ON_CPU", {"mlp": 200}
    )  # blocks of one size, so that each figure compiles once
    arguments = [*OPTIONS, "--model", "vae", "hiwae-0.5", "--seeds", "2", "--tensorboard", "--output", str(tmp_path)]
    arguments += ["--steps", "500"]
    assert vae.main(arguments) == 0
    table = capsys.readouterr().out
    found = results(tmp_path)
    assert sorted(found) == ["digits-mlp-hiwae-0.5", "digits-mlp-vae"]
    for result in found.values():
        nll, bound = (np.array(result[name]["mean"]) for name in ("test_nll", "test_bound"))
        assert nll.shape == (2,)
        assert nll[0] != nll[1]
        # An untrained decoder with the pixel means as its bias is at about 30 nats; nothing can be below zero.
        assert np.all((nll > 0.0) & (nll < 35.0))
        assert np.all(-nll >= bound - 0.5)
        assert result["steps"] == 500
        learned = np.array(result["curves"]["validation_bound"])
        assert np.all(learned[:, -1] > learned[:, 0] + 0.3)
        assert (result["nll_samples"], result["nll_images"]) == (20, [200, 300])
        assert min(result["test_nll"]["monte_carlo_error"]) > 0.0
        assert len(result["data"]["checksum"]) == 64
        assert {"jax", "jaxlib", "flax", "optax", "device", "processor", "date"} <= set(result["provenance"])
        assert learned.shape == (2, len(result["curves"]["step"])) == (2, 5)
        assert vae.cells(vae.parse(arguments)).count(from_json(result["settings"])) == 1
    assert table.count("|\n") >= 4
    before = table[: table.index("bounds and NLL in nats")]
    assert [line.split(":")[0] for line in before.splitlines() if "test bound" in line] == [
        "VAE, K = 1",
        "H-IWAE alpha 0.5, K = 2",
    ]
    assert {path.name for path in tmp_path.rglob("*.png")} == {
        "samples.png",
        "reconstructions.png",
        "digits-curves.png",
    }
    events = [path.read_bytes() for path in tmp_path.rglob("events*")]
    assert len(events) == 2
    assert all(b"validation_bound/seed_1" in content for content in events)
    assert len(collected.read([tmp_path])) == 2
    # A second call reads what the first one wrote.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    vae.main(arguments)
    assert "finished before" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}


def test_a_time_limit_is_told_by_the_exit_status(tmp_path, capsys):
    assert vae.main([*OPTIONS, "--model", "vae", "--time-limit", "0", "--output", str(tmp_path)]) == vae.STOPPED
    assert "the same command goes on" in capsys.readouterr().out
    assert not results(tmp_path)


def test_a_cell_that_diverges_does_not_keep_the_others_from_being_run(tmp_path, capsys):
    options = [*OPTIONS, "--output", str(tmp_path), "--learning-rate", "1e30", "1e-3", "--clip", "1e30"]
    assert vae.main([*options, "--model", "vae"]) == 1
    assert capsys.readouterr().out.count("the objective of seed 0 is not finite at step") == 2
    assert [result["settings"]["learning_rate"] for result in results(tmp_path).values()] == [1e-3]
