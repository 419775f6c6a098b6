"""The command `python -m experiments.toy`."""

import sys

from experiments.toy import command

if __name__ == "__main__":
    sys.exit(command.main())
