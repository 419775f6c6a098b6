"""Files that are not the published ones: what is wrong with them, and nothing is prepared."""

import struct

import numpy as np
import pytest

from tests.data.published_sets.tiny_sets import (
    CALTECH,
    MNIST,
    OMNIGLOT,
    REBUILT,
    caltech_matrices,
    grey_images,
    idx,
    mat,
    omniglot_matrices,
)


def transposed(matrices):
    return {key: matrix.T for key, matrix in matrices.items()}


CALTECH_FILE, REBUILT_FILE = "caltech101_silhouettes_28_split1.mat", "chardata_rebuilt.mat"


@pytest.mark.parametrize(
    ("described", "name", "make", "message"),
    [
        (MNIST, "train-images-idx3-ubyte", lambda images: idx(images[:9]), r"shape \(9, 28, 28\) where \(10, 28, 28\)"),
        (MNIST, "train-images-idx3-ubyte", lambda images: idx(images[:10])[:-5], "7,835 pixels follow the header"),
        (MNIST, "t10k-images-idx3-ubyte", lambda images: b"<html>", "no idx file of images"),
        (MNIST, "t10k-images-idx3-ubyte", lambda images: struct.pack(">II", 2049, 4) + bytes(4), "it holds labels"),
        (
            MNIST,
            "t10k-images-idx3-ubyte",
            lambda images: idx(255 - images[10:]),
            "looks inverted: mean pixel 0.799, expected about 0.131",
        ),
        (MNIST, "t10k-images-idx3-ubyte", lambda images: idx(images[:4]), "the same saved anew"),
        (OMNIGLOT, "chardata.mat", lambda images: b"text" * 100, "no .mat file"),
        (OMNIGLOT, "chardata.mat", lambda images: mat(**omniglot_matrices(images[::-1])), "the same saved anew"),
        (REBUILT, REBUILT_FILE, lambda images: mat(data=omniglot_matrices(images)["data"]), "holds no 'testdata'"),
        (REBUILT, REBUILT_FILE, lambda images: mat(**transposed(omniglot_matrices(images))), "it looks transposed"),
        (
            REBUILT,
            REBUILT_FILE,
            lambda images: mat(**{key: 255 * matrix for key, matrix in omniglot_matrices(images).items()}),
            r"data holds the value \d+, and [\d,]+ more that are not from 0 to 1",
        ),
        (
            REBUILT,
            REBUILT_FILE,
            lambda images: mat(**{key: 1 - matrix for key, matrix in omniglot_matrices(images).items()}),
            r"data looks inverted: mean pixel 0\.\d+, expected about 0\.083",
        ),
        (CALTECH, CALTECH_FILE, lambda images: mat(**caltech_matrices(images))[:-90], "damaged .mat file"),
        (CALTECH, CALTECH_FILE, lambda images: mat(**transposed(caltech_matrices(images))), "it looks transposed"),
        (
            CALTECH,
            CALTECH_FILE,
            lambda images: mat(**{key: 1 - matrix for key, matrix in caltech_matrices(images).items()}),
            r"train_data looks inverted: mean pixel 0\.\d+, expected about 0\.55",
        ),
        (
            CALTECH,
            CALTECH_FILE,
            lambda images: mat(**{**caltech_matrices(images), "val_data": np.full((3, 784), 0.5)}),
            "val_data holds the value 0.5, and 2,351 more that are not 0 or 1",
        ),
    ],
)
def test_other_files_are_diagnosed(described, name, make, message, install):
    installed = install(described)
    installed.write()
    (installed.manual_dir / name).write_bytes(make(grey_images()))
    not_published = r"(is truncated, or another file|is not the original|has the wrong checksum): "
    with pytest.raises(ValueError, match=f"^{installed.manual_dir / name} {not_published}.*{message}"):
        installed.load()
    assert not list(installed.data_dir.glob("hiwae_jax_packed/*"))
    assert not described.builder(data_dir=installed.data_dir).data_path.exists()
