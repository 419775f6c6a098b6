"""The command `python -m benchmarks.objectives`."""

import sys

from benchmarks.objectives import command

if __name__ == "__main__":
    sys.exit(command.main())
