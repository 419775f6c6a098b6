"""A tiny set in the format of binarized MNIST, which takes its place in the library; and a server of files."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import pathlib
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest

from hiwae_jax.data import binarized_mnist
from hiwae_jax.data.binarized_mnist.builder import HiwaeBinarizedMnist
from hiwae_jax.data.raw_files import RawFile
from hiwae_jax.data.specification import Specification

# Nothing listens on the discard port of this machine, so that a connection is refused at once.
NOWHERE = "http://127.0.0.1:9"


class TinySet(NamedTuple):
    """The images by split, the texts by file name, and where files and prepared sets go."""

    specification: Specification
    images: dict[str, np.ndarray]
    texts: dict[str, bytes]
    manual_dir: pathlib.Path
    data_dir: pathlib.Path

    def write(self, *, compressed: bool = False) -> None:
        """Puts the raw files into manual_dir."""
        for name, text in self.texts.items():
            if compressed:
                (self.manual_dir / f"{name}.gz").write_bytes(gzip.compress(text))
            else:
                (self.manual_dir / name).write_bytes(text)

    def install(self, monkeypatch: pytest.MonkeyPatch, specification: Specification) -> None:
        """Makes the loader and the builder take this specification for the published one."""
        monkeypatch.setattr(binarized_mnist, "SPECIFICATION", specification)
        monkeypatch.setattr(HiwaeBinarizedMnist, "SPECIFICATION", specification)

    @property
    def in_python(self) -> str:
        """The statements that install it in another process, without the builder."""
        return f"""
from hiwae_jax.data import binarized_mnist
from hiwae_jax.data.raw_files import RawFile
from hiwae_jax.data.specification import Specification
binarized_mnist.SPECIFICATION = {self.specification!r}
def load():
    binarized_mnist.load_binarized_mnist(data_dir={str(self.data_dir)!r}, manual_dir={str(self.manual_dir)!r})
"""

    def load(self) -> binarized_mnist.Dataset:
        """Loads it with the public function."""
        return binarized_mnist.load_binarized_mnist(data_dir=self.data_dir, manual_dir=self.manual_dir)


def amat(images: np.ndarray) -> bytes:
    """The text of images [N, P]."""
    return "".join(" ".join(map(str, row)) + "\n" for row in images.tolist()).encode()


def describe(text: bytes, name: str, *, server: str = NOWHERE) -> RawFile:
    """The line of checksums.tsv for a text."""
    return RawFile(f"{server}/{name}", len(text), hashlib.sha256(text).hexdigest(), name)


def permuted(num_images: int) -> list[int]:
    """The order of OMNIGLOT, by the legacy shuffle of NumPy: in place, and seeded globally."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(123)  # noqa: NPY002
    order = list(range(num_images))
    np.random.shuffle(order)  # noqa: NPY002
    np.random.set_state(state)  # noqa: NPY002
    return order


class SilentFiles(http.server.SimpleHTTPRequestHandler):
    """Sends the files of a folder, and logs nothing."""

    def log_message(self, *args):
        """Overrides what would write to stderr."""


@contextlib.contextmanager
def serve(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """Makes a folder and serves it on this machine: the folder and its address."""
    folder.mkdir()
    handler = functools.partial(SilentFiles, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield folder, f"http://127.0.0.1:{serving.server_port}"
        finally:
            serving.shutdown()
            thread.join()
