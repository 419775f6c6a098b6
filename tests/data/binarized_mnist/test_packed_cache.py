"""A cache that is damaged, of another content, not writable or half written."""

import os
import shutil

import numpy as np
import pytest

from hiwae_jax.data import packed_cache
from hiwae_jax.data.dataset import checksum
from tests.data.binarized_mnist.tiny_checks import assert_is


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"",
        lambda content: b"text",
        lambda content: content.replace(b"(14, 98)", b"(98, 14)"),
        lambda content: content.replace(b"(14, 98)", b"(14, 4*(10**18),)")[: len(content)],
        lambda content: content.replace(b"(14, 98)", b"(14, 98000000000000)"),
        lambda content: content.replace(b"'|u1'", b"'|i1'"),
        lambda content: content.replace(b"False", b"True "),
        lambda content: content.replace(b"}", b" "),
        lambda content: content[:8] + b"\xff\xff" + content[10:],
    ],
    ids=[
        *("cut off", "altered", "empty", "no npy", "other shape", "an expression", "more than any memory"),
        *("other type", "other order", "no dictionary", "header longer than the file"),
    ],
)
def test_a_damaged_cache_is_made_anew(tiny_set, damage):
    tiny_set.write()
    tiny_set.load()
    path = packed_cache.cache_path(tiny_set.specification, tiny_set.data_dir)
    content = path.read_bytes()
    path.write_bytes(damage(content))
    shutil.rmtree(tiny_set.manual_dir)  # not needed: the prepared set is still there
    assert_is(tiny_set.load(), tiny_set)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "images", [np.zeros((13, 98), np.uint8), np.zeros((14, 99), np.uint8), np.zeros(1_372, np.uint8)]
)
def test_a_set_without_a_published_checksum_has_its_shape(images, tiny_set):
    """Here the file's name is all that says what it holds: an array of zeros of another shape has the same checksum."""
    unknown = tiny_set.specification._replace(checksum=None)
    for stored in (np.zeros((14, 98), np.uint8), images):
        path = packed_cache.cache_path(unknown._replace(checksum=checksum(stored)), tiny_set.data_dir)
        packed_cache.write(path, stored)
        found = packed_cache.read(unknown, tiny_set.data_dir)
        assert (found is None) == (stored is images)
        path.unlink()


def test_a_cache_of_another_content_is_not_read(tiny_set, monkeypatch):
    tiny_set.write()
    tiny_set.load()
    tiny_set.install(monkeypatch, tiny_set.specification._replace(checksum="0" * 64))
    with pytest.raises(ValueError, match=rf"damaged: sha256 {tiny_set.specification.checksum} where 0{{64}} was"):
        tiny_set.load()


def test_a_cache_that_cannot_be_written(tiny_set):
    tiny_set.write()
    tiny_set.data_dir.mkdir()
    (tiny_set.data_dir / "hiwae_jax_packed").touch()
    with pytest.warns(UserWarning, match="cannot be written, so every load will take seconds"):
        assert_is(tiny_set.load(), tiny_set)


def test_an_interrupted_write_leaves_no_cache(tiny_set, monkeypatch):
    path = packed_cache.cache_path(tiny_set.specification, tiny_set.data_dir)

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        packed_cache.write(path, np.zeros((3, 98), np.uint8))
    assert list(path.parent.iterdir()) == []
