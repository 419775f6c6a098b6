"""A preparation that is killed, fails or comes second, and a prepared set that is damaged."""

import errno
import shutil
import signal
import subprocess
import sys

import pytest

from hiwae_jax.data.binarized_mnist.builder import HiwaeBinarizedMnist
from tests.data.binarized_mnist.tiny_checks import assert_is, assert_nothing_is_readable


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*train.array_record*", lambda path: path.write_bytes(path.read_bytes()[:-100])),
        ("*train.array_record*", lambda path: path.unlink()),
        ("dataset_info.json", lambda path: path.unlink()),
        ("dataset_info.json", lambda path: path.write_bytes(path.read_bytes()[:-100])),
    ],
    ids=["cut off", "records absent", "description absent", "description cut off"],
)
def test_a_damaged_prepared_set_is_refused(tiny_set, pattern, damage):
    tiny_set.write()
    tiny_set.load()
    folder = HiwaeBinarizedMnist(data_dir=tiny_set.data_dir).data_path
    shutil.rmtree(tiny_set.data_dir / "hiwae_jax_packed")
    (path,) = folder.glob(pattern)
    damage(path)
    with pytest.raises(ValueError, match=f"(?s)prepared set in {folder} is damaged: .* Delete that directory"):
        tiny_set.load()


def test_a_killed_preparation_leaves_nothing_readable(tiny_set):
    tiny_set.write()
    code = f"""
import os, signal
{tiny_set.in_python}
from hiwae_jax.data.binarized_mnist.builder import HiwaeBinarizedMnist

def generate(self, images):
    yield 0, {{"image": images[0]}}
    if len(images) == 4:  # the test split: the other two lie there complete
        os.kill(os.getpid(), signal.SIGKILL)
    yield from ((i, {{"image": image}}) for i, image in enumerate(images[1:], start=1))

HiwaeBinarizedMnist._generate_examples = generate
load()
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tiny_set.manual_dir)
    assert killed.returncode == -signal.SIGKILL
    assert list(tiny_set.data_dir.glob("*/incomplete.*/*train.array_record*"))
    assert_nothing_is_readable(tiny_set)
    assert_is(tiny_set.load(), tiny_set)


def test_a_failed_preparation_leaves_nothing_readable(tiny_set, monkeypatch):
    tiny_set.write()

    def generate(self, images):
        yield 0, {"image": images[0]}
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(HiwaeBinarizedMnist, "_generate_examples", generate)
        with pytest.raises(OSError, match="No space left"):
            tiny_set.load()
    assert_nothing_is_readable(tiny_set)
    assert_is(tiny_set.load(), tiny_set)


def test_another_process_is_first(tiny_set, monkeypatch):
    tiny_set.write()
    prepare = HiwaeBinarizedMnist.download_and_prepare

    def prepare_twice(self, **options):
        prepare(HiwaeBinarizedMnist(data_dir=tiny_set.data_dir), **options)
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(HiwaeBinarizedMnist, "download_and_prepare", prepare_twice)
    assert_is(tiny_set.load(), tiny_set)
