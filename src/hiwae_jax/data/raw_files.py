"""The files that a set's authors published: finding them, and verifying that they are the published ones."""

import gzip
import hashlib
import pathlib
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable
from http.client import HTTPException
from typing import NamedTuple

_ALWAYS_READ = 2**24  # bytes


class RawFile(NamedTuple):
    """A published file; the first four fields are a line of `checksums.tsv`.

    Attributes:
        url: where it is published, or None.
        size: of its content in bytes, or None if unknown.
        sha256: of its content, or None if unknown.
        filename: its name; a local copy may be compressed with gzip, and then has `.gz` behind it.
        md5: of its content; looked at only where there is no sha256.
        download_sha256: of the file at the url if that is compressed, so that it differs from its content. Where
            neither sha256 nor md5 is known, it is what a compressed local copy is verified by.
        largest: bytes that its content cannot exceed; looked at only where there is no size.
    """

    url: str | None
    size: int | None
    sha256: str | None
    filename: str
    md5: str | None = None
    download_sha256: str | None = None
    largest: int = 2**28


def read_checksums(path: pathlib.Path) -> dict[str, RawFile]:
    """Reads a `checksums.tsv` (url, size, sha256, file name; tab separated) into a dict by file name."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    return {name: RawFile(url, int(size), sha256, name) for url, size, sha256, name in lines}


def gunzipped(raw: RawFile, *, size: int, sha256: str) -> RawFile:
    """The description of the content of a file that is published with gzip, from that of the compressed file."""
    return raw._replace(size=size, sha256=sha256, filename=raw.filename.removesuffix(".gz"), download_sha256=raw.sha256)


def require_directory(directory: str | pathlib.Path) -> pathlib.Path:
    """The directory as a path; raises FileNotFoundError or NotADirectoryError, with its name, if there is none."""
    path = pathlib.Path(directory).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"the directory of raw files does not exist: {path}")
    if not path.is_dir():
        raise NotADirectoryError(f"the directory of raw files is not a directory: {path}")
    return path


def find(raw: RawFile, directory: pathlib.Path, *, name: str) -> pathlib.Path | None:
    """The path of a set's file, plain or else gzip-compressed; None if there is none.

    The sub-folder with the name of the set is looked into before the directory itself: files of two sets may have
    equal names.
    """
    return next(filter(None, (_find_in(folder, raw) for folder in (directory / name, directory))), None)


def _find_in(folder: pathlib.Path, raw: RawFile) -> pathlib.Path | None:
    candidates = (folder / raw.filename, folder / f"{raw.filename}.gz")
    return next((path for path in candidates if path.is_file()), None)


def of_another_set(raw: RawFile, path: pathlib.Path, directory: pathlib.Path, *, name: str) -> str:
    """The end of the message that refuses a file, which may be another set's file of the same name; empty if not."""
    other = _find_in(directory, raw)
    if path.parent == directory / name and other is not None:
        return f". {other} has the same name and was not looked at: remove the one that is not of {name}"
    if path.parent == directory:
        return f". If it is of another data set, put the file of {name} into the folder {directory / name}"
    return ""


def read(raw: RawFile, path: pathlib.Path, *, diagnose: Callable[[bytes], str] | None = None) -> bytes:
    """Reads a file and verifies it against the original's size and checksum.

    Args:
        raw: what the content must be.
        path: the file, compressed with gzip if its name ends in `.gz`; size and checksum are those of the
            uncompressed content.
        diagnose: says in words what is wrong with a content; called only with one that is not the original's.

    Returns:
        The (uncompressed) content.

    Raises:
        ValueError: broken gzip, truncated, or other content than the original's. The message names the file,
            and ends with the diagnosis.
    """
    # Twice the size is enough to see that a file is too long, and to say what it holds. No file is read any further,
    # because a few kilobytes of gzip can expand to more than any memory.
    limit = 1 + (raw.largest if raw.size is None else max(2 * raw.size, _ALWAYS_READ))
    content = _read(path, limit=limit)
    difference = _difference(raw, content, path)
    if difference is None:
        return content
    raise ValueError(f"{path} {difference}" + (f". {diagnose(content)}" if diagnose else ""))


def _difference(raw: RawFile, content: bytes, path: pathlib.Path) -> str | None:
    if raw.size is not None and len(content) < raw.size:
        return f"is truncated, or another file: {len(content):,} bytes where the original has {raw.size:,}"
    if raw.size is not None and len(content) > raw.size:
        return f"is not the original: it has more than the original's {raw.size:,} bytes"
    if raw.size is None and len(content) > raw.largest:
        return f"is not the original: it has more than {raw.largest:,} bytes, the most that its format has room for"
    expected = raw.sha256 or raw.md5 or raw.download_sha256
    if raw.sha256:
        algorithm, digest = "sha256", hashlib.sha256(content)
    elif raw.md5:
        algorithm, digest = "md5", hashlib.md5(content, usedforsecurity=False)
    elif path.suffix != ".gz":
        return "cannot be verified: only the compressed file has a known checksum; put that one in its place"
    else:
        algorithm, digest = "sha256 of the compressed file", hashlib.sha256(path.read_bytes())
    if digest.hexdigest() == expected:
        return None
    return f"has the wrong checksum: {algorithm} {digest.hexdigest()} where the original has {expected}"


def _read(path: pathlib.Path, *, limit: int) -> bytes:
    """The first `limit` bytes of the content."""
    if path.suffix != ".gz":
        with path.open("rb") as file:
            return file.read(limit)
    try:
        with gzip.open(path) as compressed:
            return compressed.read(limit)
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
            # A server that refuses HEAD may still answer GET.
            answers.append(None if error.code in (405, 501) else f"HTTP status {error.code}")
            error.close()
        except urllib.error.URLError as error:
            answers.append(str(error.reason))
        except (OSError, HTTPException, ValueError) as error:
            answers.append(f"{type(error).__name__}: {error}")

    # This runs in a thread, because the socket's timeout does not cover a name server that does not answer.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answers[0] if answers else f"no answer in {timeout:g} s"


def missing_files_message(name: str, missing: Iterable[RawFile], directory: pathlib.Path, reason: str) -> str:
    """The message for a user whose raw files are missing and cannot be downloaded."""
    files = "\n".join(f"  {raw.filename} or {raw.filename}.gz  ({_describe(raw)})" for raw in missing)
    return (
        f"{name}: the raw files below are not in {directory}, and cannot be downloaded now ({reason}).\n"
        f"Put each, plain or gzip-compressed, into one directory, or into its sub-folder {name}, and "
        f"name the directory with manual_dir=...:\n{files}"
    )


def _describe(raw: RawFile) -> str:
    size = f"md5 {raw.md5}" if raw.size is None else f"{raw.size:,} bytes"
    return f"{size} uncompressed, {f'from {raw.url}' if raw.url else 'to be had from no address'}"
