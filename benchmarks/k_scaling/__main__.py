"""The command `python -m benchmarks.k_scaling`."""

import sys

from benchmarks.k_scaling import command

if __name__ == "__main__":
    sys.exit(command.main())
