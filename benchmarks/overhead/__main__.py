"""The command `python -m benchmarks.overhead`."""

import sys

from benchmarks.overhead import command

if __name__ == "__main__":
    sys.exit(command.main())
