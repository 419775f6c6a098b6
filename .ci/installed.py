"""Says where the library comes from, and fails unless that is the environment of this Python: `make test-wheel`."""

import pathlib
import sys
import sysconfig
from importlib.metadata import version

import hiwae_jax
import hiwae_jax.data
import hiwae_jax.nn

if __name__ == "__main__":
    path = pathlib.Path(hiwae_jax.__file__).resolve()
    print(f"{path} on Python {sys.version.split()[0]}, JAX {version('jax')}, Flax {version('flax')}")
    if pathlib.Path(sysconfig.get_path("purelib")).resolve() not in path.parents:
        sys.exit("expected the installed wheel, and not a checkout")
