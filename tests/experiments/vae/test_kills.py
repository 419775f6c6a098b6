"""A run that is killed with kill -9 while it writes a checkpoint; `killed_runs.py` has the long form."""

from tests.experiments.vae.killed_runs import Kill, Runs, check

OPTIONS = "--model vae --steps 150 --warmup 20 --latent 4 --hidden 16 --num-samples 2 --nll-samples 20"


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    """While the second checkpoint is written; it is the first one that is gone on from, or the second."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    kills = [Kill("checkpoint", 1, 0.02)]
    assert check(Runs(tmp_path, "", OPTIONS.split()), kills, last_in_one_process=True) == []
