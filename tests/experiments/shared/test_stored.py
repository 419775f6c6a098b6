"""What a run finds on disk: whole and its own, or refused by name, or made anew."""

import io
import json
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.shared import stored
from experiments.shared.stored import Pieces, UnusableError
from experiments.vae import command as vae
from experiments.vae import result_files
from experiments.vae.evaluation import FIGURES
from experiments.vae.settings import Settings
from experiments.vae.training import CURVES

SETTINGS = Settings(model="vae", num_samples=1, nll_images=20, seeds=2)


@pytest.fixture
def result(digits):
    """The content of a finished cell of the digits."""
    figure = {name: [1.0] * 2 for name in ("mean", "standard_error", "monte_carlo_error")}
    content = {
        "format": stored.FORMAT,
        "settings": SETTINGS._asdict(),
        "steps": 60,
        **dict.fromkeys(FIGURES, figure),
        "nll_samples": 10,
        "nll_images": [20, 20],
        "train_seconds": 1.0,
        "evaluation_seconds": 1.0,
        "curves": {"step": [1.0], **dict.fromkeys(CURVES[1:], [[1.0]] * 2)},
        "data": {"name": digits.name, "checksum": digits.checksum},
        "provenance": dict.fromkeys(("jax", "device", "processor", "date"), "of some kind"),
    }
    return json.loads(json.dumps(content))


def test_the_result_of_a_cell_is_read_as_it_was_written(result, digits, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result))
    assert result_files.read_of_cell(path, SETTINGS, digits) == result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "no readable JSON"),
        (lambda text: text[:-50], "no readable JSON"),
        (lambda text: "\x00" * 9, "no readable JSON"),
        (lambda text: "[" * 100_000, "no readable JSON"),
        (lambda text: "null", "expected a JSON object, got null"),
        (lambda text: "[1]", "expected a JSON object"),
        (lambda text: "{}", "the result: expected also settings"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "format: expected 1, got 2"),
        (lambda text: text.replace('"format": 1, ', ""), "it has the format None, and this version writes 1"),
        (lambda text: text.replace('"latent": 20', '"latent": 7'), r"it is of other settings \(latent\)"),
        (lambda text: text.replace('"checksum": "', '"checksum": "0'), "it is of other data, with another checksum"),
        (lambda text: text.replace("[20, 20]", "[20, 30]"), r"its NLL is of \[20, 30\] images and not of \[20, 20\]"),
        (lambda text: text.replace('"test_nll": {"mean": [1.0', '"test_nll": {"mean": [NaN'), "2 finite numbers"),
        (lambda text: text.replace('"test_nll": {"mean": [1.0', '"test_nll": {"mean": [1e999'), "2 finite numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_result_is_refused_with_its_name_and_what_to_do(change, message, result, digits, tmp_path):
    path, text = tmp_path / "result.json", json.dumps(result)
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(UnusableError, match=f"^{path}: .*{message}.*; delete it, and the same command makes it anew"):
        result_files.read_of_cell(path, SETTINGS, digits)


def test_the_command_refuses_it_before_any_work(tmp_path, capsys):
    cells = vae.cells(vae.parse(["--model", "vae", "--steps", "60", "70"]))
    (tmp_path / cells[1].name()).mkdir()
    (tmp_path / cells[1].name() / "result.json").write_text("null")
    with pytest.raises(SystemExit) as refused:
        vae.main(["--model", "vae", "--steps", "60", "70", "--output", str(tmp_path)])
    assert refused.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"python -m experiments.vae: error: {tmp_path / cells[1].name() / 'result.json'}: expected a")
    assert err.count("\n") == 1
    assert not (tmp_path / cells[0].name()).exists()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def with_header(text):
    """An .npz file whose array `found` has this header and eight bytes."""
    file = io.BytesIO()
    header = text.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("found.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8))
    return file.getvalue()


def compressed():
    file = io.BytesIO()
    np.savez_compressed(file, found=np.zeros(10**6))
    return file.getvalue()


HEADER = "{{'descr': '<f8', 'fortran_order': False, 'shape': {}}}"
FOREIGN = {
    "empty": lambda whole: b"",
    "text": lambda whole: b"text",
    "cut off": lambda whole: whole[:-30],
    "a byte altered": lambda whole: whole[:200] + bytes([whole[200] ^ 1]) + whole[201:],
    "compressed": lambda whole: compressed(),
    "objects": lambda whole: npz(found=np.array([None, "x"], object)),
    "more than any memory": lambda whole: with_header(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (10**6, 10**9)}"
    ),
    "a shape of 8e18 bytes": lambda whole: with_header(HEADER.format("(1000000000, 1000000000)")),
    "a negative shape": lambda whole: with_header(HEADER.format("(-1,)")),
    "more bytes than its shape has": lambda whole: with_header(HEADER.format("(0,)")),
    "no dictionary": lambda whole: with_header("{'descr': '<f8'"),
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_arrays_that_are_damaged_or_foreign_are_refused_by_name(foreign, tmp_path):
    path = tmp_path / "a.npz"
    stored.write_arrays(path, {"found": np.arange(10.0).reshape(2, 5).T, "name": np.asarray("abc")})
    read = stored.read_arrays(path)
    np.testing.assert_array_equal(read["found"], np.arange(10.0).reshape(2, 5).T)
    assert str(read["name"]) == "abc"
    path.write_bytes(FOREIGN[foreign](path.read_bytes()))
    with pytest.raises(UnusableError, match=f"^{path}: no readable arrays"):
        stored.read_arrays(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"belongs_to": "of something else"}, "of other settings, data, parameters or of another version"),
        ({"found": np.zeros((2, 8))}, "two rows of at most 7 numbers"),
        ({"found": np.zeros((3, 2))}, "two rows of at most 7 numbers"),
        ({"found": np.zeros(2)}, "two rows of at most 7 numbers"),
        ({"found": np.zeros((2, 2), np.float32)}, "two rows of at most 7 numbers"),
        ({"seconds": np.float64(np.nan)}, "and seconds"),
        ({"seconds": np.zeros(2)}, "and seconds"),
        ({"more": np.zeros(2)}, "of other settings"),
    ],
)
def test_pieces_of_an_evaluation_that_do_not_belong_are_made_anew(change, reason, tmp_path, capsys):
    pieces = Pieces(tmp_path / "evaluated.npz", stored.identity(SETTINGS._asdict(), arrays=[jnp.ones(2)]), total=7)
    found = np.arange(6.0).reshape(2, 3)
    pieces.write(1.5, found)
    seconds, read = pieces.read()
    assert (seconds, read.tolist()) == (1.5, found.tolist())
    content = {"belongs_to": np.asarray(pieces.belongs_to), "seconds": np.float64(1.5), "found": found}
    stored.write_arrays(pieces.path, {**content, **{name: np.asarray(value) for name, value in change.items()}})
    assert capsys.readouterr().out == ""
    seconds, read = pieces.read()
    assert (seconds, read.shape) == (0.0, (2, 0))
    out = capsys.readouterr().out
    assert out.startswith(f"{pieces.path}: ")
    assert reason in out
    assert out.endswith("the evaluation begins anew\n")


def test_an_identity_is_that_of_settings_data_and_parameters():
    ones = [jnp.ones(4)]
    different = [
        stored.identity(SETTINGS._asdict(), "digits", "ab", arrays=ones),
        stored.identity(SETTINGS._replace(latent=7)._asdict(), "digits", "ab", arrays=ones),
        stored.identity(SETTINGS._asdict(), "digits", "abc", arrays=ones),
        stored.identity(SETTINGS._asdict(), "digits", "ab", arrays=[jnp.ones(4).at[0].set(1.5)]),
        stored.identity(SETTINGS._asdict(), "digits", "ab", arrays=[jnp.ones((2, 2))]),
        stored.identity(SETTINGS._asdict(), "digits", "ab"),
    ]
    assert len(set(different)) == len(different)
    assert stored.identity(SETTINGS._asdict(), "digits", "ab", arrays=[np.ones(4, np.float32)]) == different[0]
