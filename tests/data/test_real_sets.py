"""The real files of MNIST, OMNIGLOT (rebuilt) and Caltech 101 Silhouettes: content, split, orientation and polarity."""

import hashlib
import random

import numpy as np
import pytest
import scipy.io

from hiwae_jax.data import load_caltech101_silhouettes, mnist, raw_files
from hiwae_jax.data.dataset import checksum
from hiwae_jax.data.mnist.builder import HiwaeMnist
from hiwae_jax.data.omniglot.builder import HiwaeOmniglotRebuilt
from tests.data.tiny_files import permuted

SPLITS = ("train", "validation", "test")


def parsed(builder, raw_data_dir, tmp_path):
    """The splits of a real set, of its verified files, without the writing of records."""
    images = {}
    for part, raw in builder.SPECIFICATION.files.items():
        path = raw_files.find(raw, raw_data_dir, name=builder.SPECIFICATION.name)
        if path is None:
            pytest.skip(f"no {raw.filename} or {raw.filename}.gz in {raw_data_dir}")
        images |= builder(data_dir=tmp_path).parse(part, raw_files.read(raw, path), path)
    assert [len(images[split]) for split in SPLITS] == list(builder.SPECIFICATION.split_sizes)
    assert checksum(*(images[split] for split in SPLITS)) == builder.SPECIFICATION.checksum
    return images


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_real_mnist(raw_data_dir, tmp_path):
    images = parsed(HiwaeMnist, raw_data_dir, tmp_path)
    # Found apart from this library, of the arrays uint8 [60000, 28, 28] and [10000, 28, 28].
    assert sha256(np.concatenate([images["train"], images["validation"]])) == (
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757"
    )
    assert sha256(images["test"]) == "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"
    # The first image, and the first of validation, row by row from the bytes of the file.
    raw = mnist.SPECIFICATION.files["train"]
    content = raw_files.read(raw, raw_files.find(raw, raw_data_dir, name=mnist.SPECIFICATION.name))
    for image, index in ((images["train"][0], 0), (images["validation"][0], 50_000)):
        offset = 16 + 784 * index
        rows = [sum(content[start : start + 28]) for start in range(offset, offset + 784, 28)]
        assert image.sum(axis=1).tolist() == rows


def test_real_omniglot_rebuilt(raw_data_dir, tmp_path):
    images = parsed(HiwaeOmniglotRebuilt, raw_data_dir, tmp_path)
    variables = scipy.io.loadmat(raw_data_dir / "chardata_rebuilt.mat")
    assert sha256(variables["data"].T) == "8c655e8e839c1c22a29ef87bc6462697edbe0ae59c57bf2a41cd2cbed4ad6376"
    assert sha256(variables["testdata"].T) == "edfa4a2ea40fc475a93f6cfc7581c04b51450862127cb7d93532b452264e91bb"

    # The split takes every published training image once, in the order that the docstring names.
    both = np.concatenate([images["train"], images["validation"]])
    order = permuted(24_345)
    for position in (0, 1, 22_999, 23_000, 24_344):
        levels = both[position].ravel(order="F")
        assert np.abs(levels / 255 - variables["data"][:, order[position]]).max() <= 0.5001 / 255
    upright = np.zeros_like(both)
    upright[order] = both
    assert np.abs(upright.swapaxes(1, 2).reshape(-1, 784).T / np.float32(255) - variables["data"]).max() <= 0.5001 / 255

    # Upright, against the drawings of 105x105: rows and columns are cut into 28 bands, whose means are compared.
    large_path = raw_data_dir / "omniglot_images_evaluation.npz"
    if not large_path.exists():
        pytest.skip(f"no {large_path.name} in {raw_data_dir}")
    with np.load(large_path) as archive:
        large = archive["images"]
    bands = np.repeat(np.eye(28), 105, axis=1).reshape(28, 105, 28).sum(axis=2) / 105
    character, drawer = variables["testcharacter"][0].astype(int), variables["testdrawer"][0].astype(int)
    chosen = random.Random(0).sample(np.flatnonzero(character > 964).tolist(), 100)
    for index in chosen:
        small = bands @ ~large[character[index] - 965, drawer[index] - 1] @ bands.T
        image = images["test"][index].astype(float)
        correlation, if_transposed = (np.corrcoef(small.ravel(), other.ravel())[0, 1] for other in (image, image.T))
        assert correlation > 0.9
        assert correlation > if_transposed


def test_real_caltech101_silhouettes(raw_data_dir, tmp_path):
    path = raw_data_dir / "caltech101_silhouettes_28_split1.mat"
    if not path.exists():
        pytest.skip(f"no {path.name} in {raw_data_dir}")
    dataset = load_caltech101_silhouettes(data_dir=tmp_path, manual_dir=raw_data_dir)
    images = {split: np.unpackbits(getattr(dataset, split), axis=-1).reshape(-1, 28, 28) for split in SPLITS}
    for split, num_images, expected in (
        ("train", 4_100, "e16c69228270895ecb557b51da4924fbb288b477fd5923c533614c3159aaccc3"),
        ("validation", 2_264, "67a4e3a2ee22d8dce7242c3227f1bd643554efcbdb4d6cce6249832f7d623754"),
        ("test", 2_307, "4abecf7121e7eeb9c944d555d59efc350ef75f979951175322ba8a2842e7fe0f"),
    ):
        # As stored: the background 1, column by column.
        stored = 1 - np.stack([image.ravel(order="F") for image in images[split]])
        assert stored.shape == (num_images, 784)
        assert sha256(stored) == expected

    # Upright: lamps and umbrellas are wide above, pyramids and metronomes below.
    variables = scipy.io.loadmat(path)
    for number, name in enumerate(variables["classnames"][0], start=1):
        if name[0] in ("lamp", "umbrella", "pyramid", "metronome"):
            widths = images["train"][variables["train_labels"][:, 0] == number].mean(axis=0).sum(axis=1)
            above, below = widths[2:12].mean(), widths[16:26].mean()
            assert above > 1.5 * below if name[0] in ("lamp", "umbrella") else below > 1.5 * above
    # Borders are background, and the middle is not.
    assert images["train"][:, 0, 0].mean() < 0.3 < 0.9 < images["train"][:, 14, 14].mean()
