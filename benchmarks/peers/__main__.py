"""The command `python -m benchmarks.peers`."""

import sys

from benchmarks.peers import command

if __name__ == "__main__":
    sys.exit(command.main())
