"""The command `python -m benchmarks.agreement`."""

import sys

from benchmarks.agreement import command

if __name__ == "__main__":
    sys.exit(command.main())
