"""The reader of .mat files, against SciPy's and on damaged files."""

import contextlib
import gzip
import io
import pathlib
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io

from hiwae_jax.data.mat import parse_mat, upright

PATH = pathlib.Path("folder/a.mat")
RNG = np.random.default_rng(0)
TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
MATRICES = {f"of_{kind}": RNG.integers(0, 100, (3, 5)).astype(kind) for kind in TYPES}
OTHERS = {"text": "abc", "truth": np.eye(2) > 0, "cell": np.array([1, "b"], object), "z": np.eye(2) * 1j}


def mat(variables, **options):
    """A .mat file as SciPy writes it."""
    file = io.BytesIO()
    scipy.io.savemat(file, variables, **options)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_against_scipy(compressed):
    # One value of one byte lies in its element's head.
    variables = {**MATRICES, "small": np.array([[7]], np.uint8), **OTHERS}
    content = mat(variables, do_compression=compressed)
    wanted = {name: variables[name].shape for name in ("of_f8", "small", *MATRICES, "truth")}
    parsed = parse_mat(content, shapes=wanted, path=PATH)
    assert list(parsed) == list(wanted)
    expected = scipy.io.loadmat(io.BytesIO(content))
    for name, matrix in parsed.items():
        assert matrix.dtype == expected[name].dtype
        np.testing.assert_array_equal(matrix, expected[name])


def high_byte_first(values, shape):
    """A file as some machines wrote it: a matrix `a` of doubles, stored as int16 because its values allow it."""

    def element(kind, value):
        return struct.pack(">II", kind, len(value)) + value + bytes(-len(value) % 8)

    parts = [(6, struct.pack(">II", 6, 0)), (5, struct.pack(">ii", *shape)), (1, b"a"), (3, values.tobytes("F"))]
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + element(14, b"".join(element(*part) for part in parts))


def test_high_byte_first():
    values = np.array([[1, 2, 3], [-4, 500, 6]], ">i2")
    content = high_byte_first(values, (2, 3))
    np.testing.assert_array_equal(scipy.io.loadmat(io.BytesIO(content))["a"], values)
    np.testing.assert_array_equal(parse_mat(content, shapes={"a": (2, 3)}, path=PATH)["a"], values)
    with pytest.raises(ValueError, match=r"damaged .mat file: a matrix of shape \(-1, 3\) has 6 values"):
        parse_mat(high_byte_first(values, (-1, 3)), shapes={"a": (2, 3)}, path=PATH)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>" * 100, "no .mat file of versions 5 to 7: it starts with b'<html><html>"),
        (gzip.compress(mat(MATRICES), mtime=0), "compressed with gzip: give its name the ending .gz"),
        (mat({"of_u1": np.eye(3)}, format="4"), "no .mat file of versions 5 to 7"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", "of version 7.3: save it from MATLAB with -v7"),
        (mat(MATRICES)[:-3], "it is a damaged .mat file: an element has .* bytes where"),
        (mat(MATRICES) + b"0", "it is a damaged .mat file: it ends within the head of an element"),
        (mat({"of_u2": np.eye(3)}), r"it holds no 'of_u1', only \['of_u2'\]"),
        (mat({"of_u1": "text"}), "of_u1 is no full real matrix of numbers"),
        (mat({"of_u1": np.eye(3) * 1j}), "of_u1 is no full real matrix of numbers"),
        (mat({"of_u1": np.zeros((5, 3))}), r"of_u1 has shape \(5, 3\) where \(3, 5\) was .*: it looks transposed"),
        (mat({"of_u1": np.zeros((3, 4))}), r"of_u1 has shape \(3, 4\) where \(3, 5\) was expected$"),
    ],
)
def test_faults(content, message):
    with pytest.raises(ValueError, match=f"^folder/a.mat: .*{message}"):
        parse_mat(content, shapes={"of_u1": (3, 5)}, path=PATH)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_damage_is_a_value_error_or_one_wrong_number_and_nothing_else(compressed):
    """One byte is changed near the start, and some files are cut off too."""
    # Some of these bytes make SciPy's reader kill the process.
    rng = np.random.default_rng(1)
    content, original = mat(MATRICES, do_compression=compressed), MATRICES["of_u1"]
    refused, read = [], []
    for _ in range(500):
        damaged = bytearray(content)
        damaged[rng.integers(128, 400)] = rng.integers(256)
        length = rng.integers(1, 2 * len(content))
        try:
            matrix = parse_mat(bytes(damaged[:length]), shapes={"of_u1": (3, 5)}, path=PATH)["of_u1"]
        except ValueError as error:
            refused.append(str(error))
            continue
        assert matrix.shape == (3, 5)
        read.append(np.count_nonzero(matrix != original))
    # Half of the files are cut off, and few of them where an element ends. Of the whole ones those are read whose byte
    # is the same as before, or lies in a matrix that nobody asked for, or in a number; compression protects numbers.
    assert len(refused) > 250
    assert all(message.startswith("folder/a.mat: ") for message in refused)
    assert len(read) >= (1 if compressed else 20)
    assert max(read) == (0 if compressed else 1)


def compressed(variables):
    """The file's parts: what precedes the elements, and the content of each compressed element."""
    content, elements = mat(variables, do_compression=True), []
    position = 128
    while position < len(content):
        _, size = struct.unpack_from("<II", content, position)
        elements.append(zlib.decompress(content[position + 8 : position + 8 + size]))
        position += 8 + size
    return content[:128], elements


def element(content):
    """A compressed element."""
    packed = zlib.compress(content, 9)
    return struct.pack("<II", 15, len(packed)) + packed


@pytest.mark.parametrize(
    ("bomb", "message"),
    [
        # Another variable: it is passed over, and its numbers are never looked at.
        (lambda matrix: mat({"b": np.zeros(5 * 2**20)}, do_compression=True)[128:], None),
        # The variable itself in another shape.
        (
            lambda matrix: mat({"a": np.zeros((3, 2**20))}, do_compression=True)[128:],
            r"a has shape \(3, 1048576\) where",
        ),
        # Its shape is right, and it says that it is larger.
        (
            lambda matrix: element(matrix[:4] + struct.pack("<I", 2**25) + matrix[8:] + bytes(2**25)),
            r"a holds more bytes than a matrix of shape \(3, 5\) has room for",
        ),
        # What it says is right, and there is more.
        (lambda matrix: element(matrix + bytes(2**25)), None),
        # The names, or what comes before them, do not end.
        (lambda matrix: element(struct.pack("<IIII", 14, 2**25, 6, 2**25) + bytes(2**25)), "damaged .mat file"),
    ],
    ids=["other variable", "other shape", "says it is larger", "goes on", "head without end"],
)
def test_a_compressed_element_expands_no_further_than_its_matrix_goes(bomb, message):
    values = np.arange(15.0).reshape(3, 5)
    start, (matrix,) = compressed({"a": values})
    content = start + (element(matrix) if message is None else b"") + bomb(matrix)
    tracemalloc.start()
    with contextlib.nullcontext() if message is None else pytest.raises(ValueError, match=message):
        np.testing.assert_array_equal(parse_mat(content, shapes={"a": (3, 5)}, path=PATH)["a"], values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_upright_against_fortran_order():
    images = RNG.integers(0, 256, (4, 3, 5))
    rows = np.stack([image.ravel(order="F") for image in images])
    np.testing.assert_array_equal(upright(rows, (3, 5)), images)
