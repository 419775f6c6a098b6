"""A command that runs as a process of its own until a deadline."""

import os
import pathlib
import subprocess
import time
from collections.abc import Mapping

from experiments.shared import command_line, run_folder

SOFT, ASKED = 0.85, 0.95  # of its seconds: when a command is told to stop by itself, and when it gets SIGTERM
GRACE = 20.0  # seconds that it has to save when this process was told to stop
TICK = 0.1  # seconds between two looks at it


def run(argv: list[str], *, log: pathlib.Path, seconds: float, environment: Mapping[str, str]) -> int:
    """Run a command for so many seconds at most; what it prints goes to the end of the log.

    It gets SIGTERM at 95 % of its time, or when this process is told to stop (`run_folder.stopping`), and is killed at
    its end.

    Returns:
      Its exit status; `AGAIN` if it had to be stopped and neither finished nor failed before.
    """
    end, told = time.monotonic() + seconds, False
    with log.open("a", encoding="utf-8") as file:
        child = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        try:
            while child.poll() is None:
                now = time.monotonic()
                if not told and (run_folder.stopping() or now > end - (1.0 - ASKED) * seconds):
                    child.terminate()
                    told, end = True, min(end, now + GRACE)
                elif now > end:
                    child.kill()
                time.sleep(TICK)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    stopped = told and child.returncode not in (command_line.DONE, command_line.FAILED)
    return command_line.AGAIN if stopped else child.returncode
