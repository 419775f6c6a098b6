"""Finding, verifying and asking for raw files."""

import gzip
import hashlib
import http.server
import pathlib
import socket
import threading
import time
import tracemalloc
import urllib.request

import pytest

import hiwae_jax.data.binarized_mnist
from hiwae_jax.data import raw_files
from hiwae_jax.data.raw_files import RawFile

CONTENT = b"0 1 0 1\n" * 1000
RAW = RawFile("http://127.0.0.1:9/a.amat", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "a.amat")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_checksums_file_of_binarized_mnist():
    folder = pathlib.Path(hiwae_jax.data.binarized_mnist.__file__).parent
    files = raw_files.read_checksums(folder / "checksums.tsv")
    assert list(files) == [f"binarized_mnist_{split}.amat" for split in ("train", "valid", "test")]
    # 784 digits and as many separators a row.
    assert [file.size / (2 * 784) for file in files.values()] == [50_000, 10_000, 10_000]
    assert all(file.url.endswith(f"/{name}") and len(file.sha256) == 64 for name, file in files.items())


def test_plain_comes_before_compressed(tmp_path):
    assert raw_files.find(RAW, tmp_path, name="tiny") is None
    (tmp_path / "a.amat.gz").write_bytes(gzip.compress(CONTENT))
    assert raw_files.find(RAW, tmp_path, name="tiny") == tmp_path / "a.amat.gz"
    (tmp_path / "a.amat").write_bytes(CONTENT)
    assert raw_files.find(RAW, tmp_path, name="tiny") == tmp_path / "a.amat"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_read_verifies(tmp_path, pack):
    path = tmp_path / ("a.amat" if pack is bytes else "a.amat.gz")
    path.write_bytes(pack(CONTENT))
    assert raw_files.read(RAW, path) == CONTENT

    path.write_bytes(pack(CONTENT[:-100]))
    with pytest.raises(
        ValueError, match=f"{path} is truncated, or another file: 7,900 bytes where the original has 8,000"
    ):
        raw_files.read(RAW, path)
    path.write_bytes(pack(CONTENT + b"0"))
    with pytest.raises(ValueError, match=f"{path} is not the original: it has more than .* 8,000 bytes"):
        raw_files.read(RAW, path)
    path.write_bytes(pack(b"1" + CONTENT[1:]))
    with pytest.raises(ValueError, match=rf"{path} has the wrong checksum: sha256 \w+ where .* {RAW.sha256}"):
        raw_files.read(RAW, path)


@pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
def test_a_file_that_expands_without_end_is_read_no_further_than_its_format_goes(tmp_path, known, monkeypatch):
    """Forty kilobytes that stand for forty megabytes."""
    path = tmp_path / "a.amat.gz"
    path.write_bytes(gzip.compress(bytes(40 * 2**20), 9))
    monkeypatch.setattr(raw_files, "_ALWAYS_READ", 2**14)
    raw = RAW if known else RAW._replace(size=None, largest=9_000)
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=f"{path} is not the original: it has more than .*{'8' if known else '9'},000 b"
    ):
        raw_files.read(raw, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: b"not gzip",
        lambda packed: packed[:-9],
        lambda packed: packed[:12] + b"\xff\xff\xff" + packed[15:],
    ],
    ids=["no gzip", "cut off", "altered"],
)
def test_broken_gzip(tmp_path, damage):
    path = tmp_path / "a.amat.gz"
    path.write_bytes(damage(gzip.compress(CONTENT)))
    with pytest.raises(ValueError, match=f"{path} is a broken gzip file"):
        raw_files.read(RAW, path)


def test_require_directory(tmp_path):
    assert raw_files.require_directory(str(tmp_path)) == tmp_path
    with pytest.raises(FileNotFoundError, match=f"does not exist: {tmp_path / 'nowhere'}"):
        raw_files.require_directory(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=f"not a directory: {tmp_path / 'file'}"):
        raw_files.require_directory(tmp_path / "file")


class Answers(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def log_message(self, *args):
        pass


def test_probe_of_a_server_that_answers():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        reasons = {code: raw_files.why_unreachable(f"{address}/{code}") for code in (200, 404, 405, 503)}
        server.shutdown()
        thread.join()
    assert reasons == {200: None, 404: "HTTP status 404", 405: None, 503: "HTTP status 503"}


def test_probe_gives_up_soon(monkeypatch):
    assert "refused" in raw_files.why_unreachable("http://127.0.0.1:9/a.amat")
    assert "ValueError" in raw_files.why_unreachable("no address")
    start = time.perf_counter()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.amat"
        assert raw_files.why_unreachable(url, timeout=0.3) is not None

    # A name server that does not answer holds the call for longer than its timeout.
    def never_answer(*args, **kwargs):
        time.sleep(3)
        raise OSError("too late for anyone to hear")

    monkeypatch.setattr(urllib.request, "urlopen", never_answer)
    assert raw_files.why_unreachable("http://127.0.0.1:9/a.amat", timeout=0.2) == "no answer in 0.2 s"
    assert time.perf_counter() - start < 2
