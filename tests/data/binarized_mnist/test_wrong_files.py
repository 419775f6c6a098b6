"""Raw files that are not the published ones: what is wrong with them, and nothing is prepared."""

import numpy as np
import pytest

from tests.data.binarized_mnist.tiny_checks import assert_nothing_is_readable
from tests.data.tiny_files import amat, describe


def test_raw_files_that_are_not_the_published_ones(tiny_set):
    tiny_set.write()
    path = tiny_set.manual_dir / "binarized_mnist_test.amat"
    text = path.read_bytes()
    for other, message in (
        (text[:3000], f"{path} is truncated, or another file: .* wrong with it: line 2 has 716 values where 784"),
        (text + text, f"{path} is not the original"),
        (text[1568:] + text[:1568], f"{path} has the wrong checksum: .*the same saved anew"),
    ):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=message):
            tiny_set.load()
    path.unlink()
    path.with_name(f"{path.name}.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=f"{path}.gz is a broken gzip file"):
        tiny_set.load()
    assert_nothing_is_readable(tiny_set)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 28), np.uint8), "line 1 has 28 values where 784 were expected"),
        (np.eye(4, 784, dtype=np.uint8) * 7, "line 1 holds the value '7' where 0 or 1"),
    ],
    ids=["shape", "values"],
)
def test_raw_files_of_another_shape_or_other_values(tiny_set, monkeypatch, images, message):
    # Such a file gets that far only if its checksum is the registered one.
    name = "binarized_mnist_test.amat"
    files = {**tiny_set.specification.files, "test": describe(amat(images), name)}
    tiny_set.install(monkeypatch, tiny_set.specification._replace(files=files))
    tiny_set.write()
    (tiny_set.manual_dir / name).write_bytes(amat(images))
    with pytest.raises(ValueError, match=f"{tiny_set.manual_dir / name}: {message}"):
        tiny_set.load()
    assert_nothing_is_readable(tiny_set)
