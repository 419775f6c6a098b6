"""Checkpoints of training, which are written whole and restored only by the cell that wrote them."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.shared.stored import UnusableError, load_json
from experiments.vae import layout

FILE_BYTES = 8 * 2**20  # large single files are a burden to move


class Checkpoints(NamedTuple):
    """The checkpoints of one cell; only the newest is kept.

    Attributes:
      folder: where they are. The file `NAME.json` beside the folder NAME has the checksums of the newest one's files.
      belongs_to: the `stored.identity` of settings and data.
      manager: Orbax's.
    """

    folder: pathlib.Path
    belongs_to: str
    manager: ocp.CheckpointManager

    def save(self, step: int, state: Any, seconds: float) -> None:
        """Write the state of training after so many compiled calls, and the seconds that they took."""
        content = {"state": state, "seconds": np.float64(seconds), "belongs_to": _as_array(self.belongs_to)}
        chunks = jax.tree.map(lambda leaf: ocp.SaveArgs(chunk_byte_size=FILE_BYTES), content)
        self.manager.save(step, args=ocp.args.PyTreeSave(content, chunks, ocdbt_target_data_file_size=FILE_BYTES))
        self.manager.wait_until_finished()
        if layout.is_first():
            self._seal.with_suffix(".partial").write_text(json.dumps({"step": step, "files": self._checksums(step)}))
            self._seal.with_suffix(".partial").replace(self._seal)

    def restore(self, state: Any) -> tuple[Any, float] | None:
        """The newest state, with the shapes and shardings of `state`, and its seconds; None if there is none.

        Raises:
          UnusableError: it is damaged, or of other settings, data or of another version.
        """
        step = self.manager.latest_step()
        if step is None:
            if layout.is_first():
                self._seal.unlink(missing_ok=True)  # the checksums of checkpoints that were deleted
            return None
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        target = {"state": shapes, "seconds": np.float64(0.0), "belongs_to": _as_array(self.belongs_to)}
        try:
            # Orbax reads in the background, where an error prints many messages. So a checkpoint is checked before it
            # is read.
            if not layout.agreed(self._is_whole(step)):
                raise ValueError("its files have other checksums than when they were written")
            if _shapes(self.manager.item_metadata(step)) != _shapes(target):
                raise ValueError("it has arrays of other names or shapes")
            how = ocp.checkpoint_utils.construct_restore_args(target)
            content = self.manager.restore(step, args=ocp.args.PyTreeRestore(target, restore_args=how))
            if not np.array_equal(content["belongs_to"], target["belongs_to"]):
                raise ValueError("it is of other settings or data, or of another version")
        except Exception as error:  # Orbax and the libraries below it raise many kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UnusableError(
                f"{self.folder}: checkpoint {step} cannot be continued: {reason}; delete that folder, and the "
                "same command trains the cell anew"
            ) from error
        return content["state"], float(content["seconds"])

    @property
    def _seal(self) -> pathlib.Path:
        return self.folder.with_suffix(".json")

    def _checksums(self, step: int) -> dict[str, str]:
        here = self.folder / str(step)
        files = sorted(path for path in here.rglob("*") if path.is_file())
        return {path.relative_to(here).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def _is_whole(self, step: int) -> bool:
        # A process that was killed after a checkpoint and before its checksums left older checksums, or none.
        if not self._seal.exists():
            return True
        sealed = load_json(self._seal)
        if not (isinstance(sealed, dict) and sealed.keys() == {"step", "files"}):
            return False
        return sealed["step"] != step or sealed["files"] == self._checksums(step)


@contextlib.contextmanager
def opened(folder: pathlib.Path, belongs_to: str) -> Iterator[Checkpoints]:
    """Open the checkpoints in a folder, and make the folder if it is not there."""
    if folder.exists() and not folder.is_dir():
        raise UnusableError(f"{folder}: expected the folder of checkpoints, and it is a file; delete it")
    options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=False)
    handler = ocp.PyTreeCheckpointHandler()  # says what a checkpoint holds before it is read
    with ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handler) as manager:
        yield Checkpoints(folder, belongs_to, manager)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of all leaves by their path, whatever kind of container holds them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        ".".join(str(getattr(part, "key", getattr(part, "name", part))) for part in path): tuple(np.shape(leaf))
        if isinstance(leaf, np.ndarray | np.generic)
        else tuple(leaf.shape)
        for path, leaf in leaves
    }


def _as_array(belongs_to: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(belongs_to), np.uint8)
