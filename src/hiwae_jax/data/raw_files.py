"""The files that a set's authors published: where they are, and whether they are what they should be."""

import gzip
import hashlib
import pathlib
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable
from http.client import HTTPException
from typing import NamedTuple


class RawFile(NamedTuple):
    """A published file, as its line in `checksums.tsv` describes it."""

    url: str
    size: int
    sha256: str
    filename: str


def read_checksums(path: pathlib.Path) -> dict[str, RawFile]:
    """Reads a `checksums.tsv` (url, size, sha256, file name; tab separated) into a dict by file name."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    return {name: RawFile(url, int(size), sha256, name) for url, size, sha256, name in lines}


def require_directory(directory: str | pathlib.Path) -> pathlib.Path:
    """The directory as a path; FileNotFoundError or NotADirectoryError, naming it, if it is none."""
    path = pathlib.Path(directory).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"the directory of raw files does not exist: {path}")
    if not path.is_dir():
        raise NotADirectoryError(f"the directory of raw files is not a directory: {path}")
    return path


def find(raw: RawFile, directory: pathlib.Path) -> pathlib.Path | None:
    """The path of the file in the directory, plain or else gzip-compressed, or None."""
    candidates = (directory / raw.filename, directory / f"{raw.filename}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read(raw: RawFile, path: pathlib.Path) -> bytes:
    """Reads a file and verifies it against the original's size and sha256.

    Args:
        raw: what the content must be.
        path: the file, or the file gzip-compressed if its name is `raw.filename` and `.gz`; size and sha256
            are those of the uncompressed content.

    Returns:
        The (uncompressed) content.

    Raises:
        ValueError: broken gzip, truncated, or other content than the original's. The message names the file.
    """
    content = _gunzip(path, limit=raw.size + 1) if path.name == f"{raw.filename}.gz" else path.read_bytes()
    if len(content) < raw.size:
        raise ValueError(f"{path} is truncated: {len(content):,} bytes where the original has {raw.size:,}")
    if len(content) > raw.size:
        raise ValueError(f"{path} is not the original: it has more than the original's {raw.size:,} bytes")
    found = hashlib.sha256(content).hexdigest()
    if found != raw.sha256:
        raise ValueError(f"{path} has the wrong checksum: sha256 {found} where the original has {raw.sha256}")
    return content


def _gunzip(path: pathlib.Path, *, limit: int) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(limit)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a broken gzip file: {error}") from error


def why_unreachable(url: str, *, timeout: float = 3.0) -> str | None:
    """Asks a server, once, whether it would send the url.

    Args:
        url: the address; proxies named by the environment are honoured, as a download would.
        timeout: seconds to wait for an answer, the resolving of names included.

    Returns:
        None if it would, and the reason in words if not.
    """
    answers: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout):
                answers.append(None)
        except urllib.error.HTTPError as error:
            # A server that has no HEAD may well have GET.
            answers.append(None if error.code in (405, 501) else f"HTTP status {error.code}")
            error.close()
        except urllib.error.URLError as error:
            answers.append(str(error.reason))
        except (OSError, HTTPException, ValueError) as error:
            answers.append(f"{type(error).__name__}: {error}")

    # In a thread because a name server that does not answer is not subject to the socket's timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answers[0] if answers else f"no answer in {timeout:g} s"


def missing_files_message(name: str, missing: Iterable[RawFile], directory: pathlib.Path, reason: str) -> str:
    """What to tell a user whose raw files are neither at hand nor to be downloaded."""
    files = "\n".join(
        f"  {raw.filename} or {raw.filename}.gz  ({raw.size:,} bytes uncompressed, from {raw.url})" for raw in missing
    )
    return (
        f"{name}: the raw files below are not in {directory}, and cannot be downloaded now ({reason}).\n"
        f"Put each, plain or gzip-compressed, into one directory and name it with manual_dir=...:\n{files}"
    )
