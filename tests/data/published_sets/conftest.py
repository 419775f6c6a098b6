"""Tiny sets in the place of the published ones."""

import hashlib

import numpy as np
import pytest

from hiwae_jax.data.dataset import checksum
from tests.data.published_sets.tiny_sets import SIZES, Installed, grey_images
from tests.data.tiny_files import NOWHERE


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a tiny set in the place of a published one; its files are not written yet."""

    def install(described):
        images = grey_images()
        contents = described.files(images)
        specification = getattr(described.module, described.attribute)
        rows = images.reshape(14, 784)[described.order]
        if not specification.grey:
            rows = (rows >= 128).astype(np.uint8)
        files = {}
        for part, raw in specification.files.items():
            content = contents[raw.filename]
            raw = raw._replace(url=raw.url and f"{NOWHERE}/{raw.filename}")
            if raw.md5:
                files[part] = raw._replace(md5=hashlib.md5(content).hexdigest())
            else:
                files[part] = raw._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        stored = rows if specification.grey else np.packbits(rows, axis=-1)
        tiny = specification._replace(
            files=files, split_sizes=SIZES, checksum=specification.checksum and checksum(stored)
        )
        monkeypatch.setattr(described.module, described.attribute, tiny)
        monkeypatch.setattr(described.builder, "SPECIFICATION", tiny)
        manual_dir = tmp_path / "raw"
        manual_dir.mkdir(exist_ok=True)
        return Installed(described, contents, rows, tmp_path / "prepared", manual_dir)

    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    return install
