"""The command `python -m benchmarks.gradient_quality`."""

import sys

from benchmarks.gradient_quality import command

if __name__ == "__main__":
    sys.exit(command.main())
