"""The command `python -m benchmarks.accelerator`."""

import sys

from benchmarks.accelerator import command

if __name__ == "__main__":
    sys.exit(command.main())
