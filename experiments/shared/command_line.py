"""The parts of a command line that all commands share: options, refusals in one line, and exit statuses.

Exit statuses of all commands: 0, done; 1, run, and something failed; 2, refused before any work; 75, stopped, or
another process is at work, and the same command continues; 130, interrupted by Ctrl-C.

This module imports nothing that starts threads, since benchmarks choose their cores after reading the command line.
"""

import argparse
import contextlib
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

DONE, FAILED, REFUSED, AGAIN, INTERRUPTED = 0, 1, 2, 75, 130
LARGEST = 2**31 - 1  # counts are 32-bit numbers in compiled programs


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the list of all options."""

    def __init__(self, module: str, description: str | None, **others: Any):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=f"python -m {module}", description=description, formatter_class=formatter, **others)

    def error(self, message: str) -> NoReturn:
        """Print one line on the standard error, and exit with status 2."""
        self.exit(REFUSED, f"{self.prog}: error: {message}\n")


@contextlib.contextmanager
def refusals(module: str) -> Iterator[None]:
    """Turn an error in this block into one line and status 2. The block has the checks before any work."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        Parser(module, None).error(str(error))


def whole_number(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`."""

    def read(text: str) -> int:
        with contextlib.suppress(ValueError):
            if least <= int(text) <= LARGEST:
                return int(text)
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {LARGEST:,}, got {text!r}")

    return read


def number(*, least: float = -math.inf, above: float = -math.inf, below: float = math.inf) -> Callable[[str], float]:
    """Reads a finite number: at least `least`, above `above` and below `below`."""
    limits = [(f"of at least {least:g}", least), (f"above {above:g}", above), (f"below {below:g}", below)]
    expected = f"a finite number {' and '.join(words for words, limit in limits if math.isfinite(limit))}".strip()

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            value = float(text)
            if math.isfinite(value) and value >= least and value > above and value < below:
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return read


def existing_folder(text: str) -> pathlib.Path:
    """Reads the name of a folder that is there."""
    path = pathlib.Path(text).expanduser()
    if not path.is_dir():
        wrong = "is a file" if path.exists() else "does not exist"
        raise argparse.ArgumentTypeError(f"expected a folder, and {path} {wrong}")
    return path


def make_folder(option: str, path: pathlib.Path) -> None:
    """Make the folder into which a command will write, and try whether it can.

    Raises:
      OSError: it cannot be made, or nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = "there is a file of that name" if path.is_file() else error.strerror or str(error)
        raise OSError(f"argument {option}: cannot write into the folder {path}: {reason}") from error


def make_folder_of(option: str, path: pathlib.Path) -> None:
    """Make the folder of a file that a command will write, and try whether it can."""
    if path.is_dir():
        raise OSError(f"argument {option}: expected the name of a file, and {path} is a folder")
    make_folder(option, path.parent)
