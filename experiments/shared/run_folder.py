"""A lock that gives a folder to one process at a time, and signals that let a run save before it stops.

The lock is `flock` on the file `lock`. The operating system releases it when its holder ends, however it ends. A file
system without such locks has no lock.

The first SIGTERM or Ctrl-C is only recorded. The program calls `stopping` wherever it can save all that is done. The
second signal ends the process at once.
"""

import contextlib
import datetime
import os
import pathlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator

from experiments.shared.command_line import AGAIN, DONE, INTERRUPTED

try:
    import fcntl
except ImportError:  # not on this operating system
    fcntl = None

_asked: list[signal.Signals] = []


class BusyError(RuntimeError):
    """Another process works in the folder."""


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if it is not there.

    Raises:
      BusyError: another process holds it; the message names the folder and the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="utf-8") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            raise BusyError(f"{folder}: {holder} works in this folder; wait for it, or end it") from error
        except OSError:
            pass
        file.truncate(0)
        now = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}\n")
        file.flush()
        yield


def work_in(folder: pathlib.Path, work: Callable[[], int | None]) -> int:
    """Do the work of a command that saves each finished part in the folder, and return the exit status."""
    try:
        with held(folder):
            return work() or DONE
    except BusyError as error:
        print(error)
        return AGAIN
    except KeyboardInterrupt:
        print(f"\ninterrupted: what is finished is in {folder}, and the same command goes on")
        return INTERRUPTED


@contextlib.contextmanager
def stops_in_order() -> Iterator[None]:
    """Note the first SIGTERM or Ctrl-C in this block, instead of ending the process (see `stopping`)."""
    _asked.clear()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _) -> None:
        _asked.append(signal.Signals(number))
        for other, handler in before.items():
            signal.signal(other, handler)
        # `print` must not be used: the signal may have interrupted one.
        text = (
            f"\n{_asked[0].name}: saving and stopping as soon as the work under way is done; once more ends at once\n"
        )
        os.write(2, text.encode())

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def stopping() -> signal.Signals | None:
    """The signal that asked this process to stop, None if there was none."""
    return _asked[0] if _asked else None
