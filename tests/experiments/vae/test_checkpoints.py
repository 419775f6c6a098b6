"""Checkpoints are gone on from by the cell that wrote them, if they are whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.shared import stored
from experiments.shared.stored import UnusableError
from experiments.vae import checkpoints

STATE = {"params": {"w": jnp.arange(3.0)}, "calls": jnp.int32(2)}
OURS, OTHER = stored.identity("ours"), stored.identity("other")


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    with checkpoints.opened(folder, OURS) as kept:
        assert kept.restore(STATE) is None
        kept.save(2, STATE, 1.5)
    return folder


def restored(folder, belongs_to=OURS, state=STATE):
    with checkpoints.opened(folder, belongs_to) as kept:
        return kept.restore(jax.tree.map(jnp.zeros_like, state))


def test_a_checkpoint_is_restored_by_the_cell_that_wrote_it(checkpoint):
    state, seconds = restored(checkpoint)
    jax.tree.map(np.testing.assert_array_equal, state, STATE)
    assert seconds == 1.5
    with pytest.raises(UnusableError, match=f"^{checkpoint}: checkpoint 2 .* of other settings or data.*; delete"):
        restored(checkpoint, OTHER)


@pytest.mark.parametrize(
    "state",
    [
        {**STATE, "params": {"w": jnp.zeros(4)}},
        {**STATE, "params": {"v": jnp.zeros(3)}},
        {**STATE, "more": jnp.zeros(3)},
        {"params": STATE["params"]},
    ],
    ids=["another shape", "another name", "one more", "one less"],
)
def test_a_checkpoint_of_another_state_is_refused(checkpoint, state):
    with pytest.raises(UnusableError, match=r"it has arrays of other names or shapes; delete that folder"):
        restored(checkpoint, state=state)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"\xff" * 30), lambda path: path.unlink()])
def test_a_damaged_checkpoint_is_refused(checkpoint, damage):
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        content = path.read_bytes()
        damage(path)
        with pytest.raises(UnusableError, match=f"^{checkpoint}: checkpoint 2 cannot be continued: .*; delete"):
            restored(checkpoint)
        path.write_bytes(content)
    assert restored(checkpoint) is not None


def test_a_kill_between_a_checkpoint_and_its_checksums_costs_nothing(checkpoint):
    seal = checkpoint.with_suffix(".json")
    older = seal.read_text()
    with checkpoints.opened(checkpoint, OURS) as kept:
        kept.save(3, STATE, 2.5)
    seal.write_text(older)
    assert restored(checkpoint)[1] == 2.5
    seal.unlink()
    assert restored(checkpoint)[1] == 2.5
