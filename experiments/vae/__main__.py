"""The command `python -m experiments.vae`."""

import sys

from experiments.vae import command

if __name__ == "__main__":
    sys.exit(command.main())
