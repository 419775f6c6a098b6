"""What computed a number: the commit, the command, the versions of the packages, and the machine."""

import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys

import jax

import hiwae_jax as hj

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
COMMIT_VARIABLE = "HIWAE_JAX_COMMIT"
OF_THE_CALL = ("commit", "command", "date")  # these may differ between calls whose numbers compare


def provenance() -> dict[str, str | None]:
    """The provenance of what this process computes, for files of results."""
    device = jax.devices()[0]
    return {
        "hiwae_jax": hj.__version__,  # the package need not be installed, so its metadata may be missing
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": f"{device.platform} {device.device_kind}",
        "processor": processor(),
        **of_the_call(),
    }


def of_the_call() -> dict[str, str | None]:
    """The part of the provenance that takes no device: the values of `OF_THE_CALL`."""
    return {
        "commit": commit(),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def processor() -> str:
    """The name of the processor, and how many cores it has."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"


@functools.cache
def commit() -> str | None:
    """The commit of the checkout, followed by "with changes" if files differ from it; None outside of a checkout.

    A copy of the files without their repository takes the environment variable `HIWAE_JAX_COMMIT` instead.
    """
    if COMMIT_VARIABLE in os.environ:
        return os.environ[COMMIT_VARIABLE]
    here = pathlib.Path(__file__).parent
    try:
        name, changes = (
            subprocess.run(["git", *words], cwd=here, check=True, capture_output=True, text=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{name} with changes" if changes else name
