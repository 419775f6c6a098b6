"""The command `python -m experiments.tables`."""

import sys

from experiments.tables import command

if __name__ == "__main__":
    sys.exit(command.main())
