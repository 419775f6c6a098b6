"""How a run lies on devices: batches over the mesh axis `data`, the K samples of an example over `sample`.

The layout changes numbers by rounding only. Without a mesh these functions change nothing.
"""

import argparse
import contextlib
import math
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.vae.models import mixture_size
from experiments.vae.settings import Settings

AXES = ("data", "sample")
_FORCED_DEVICES = "xla_force_host_platform_device_count"


def parse_mesh(text: str) -> dict[str, int]:
    """The value of --mesh, `data=4,sample=2`, as sizes by axis."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in AXES or name in sizes:
            raise argparse.ArgumentTypeError(f"expected the axes {' and '.join(AXES)}, once each, got {part!r}")
        if not size.isdecimal() or int(size) < 1:
            raise argparse.ArgumentTypeError(f"expected a number of devices as in {name}=4, got {part!r}")
        sizes[name] = int(size)
    return sizes


def join(address: str) -> None:
    """Make this process one of several: `auto`, or `HOST:PORT,COUNT,INDEX` with the host and port of process 0."""
    if address == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ValueError(
                "--distributed: found no launcher that says address, count and index (Slurm, Open MPI, Kubernetes, "
                "TPU); give them as HOST:PORT,COUNT,INDEX"
            ) from error
        return
    host, *numbers = address.split(",")
    port = host.rpartition(":")[2]
    if len(numbers) != 2 or ":" not in host or not all(number.isdecimal() for number in (port, *numbers)):
        raise ValueError(
            f"--distributed: expected nothing, or HOST:PORT,COUNT,INDEX as in 10.0.0.1:7000,2,0; got {address!r}"
        )
    count, index = map(int, numbers)
    if index >= count:
        raise ValueError(f"--distributed: expected an index from 0 to {count - 1} of {count} processes, got {index}")
    jax.distributed.initialize(host, *map(int, numbers), cluster_detection_method="deactivate")


def split_cpu(sizes: dict[str, int]) -> None:
    """Make devices of the cores of a CPU, as many as the mesh has, if there are so many cores.

    Call it before JAX looks for devices. A number of devices that JAX was told otherwise stays.
    """
    count = math.prod(sizes.values())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = jax.config.jax_num_cpu_devices >= 0 or _FORCED_DEVICES in os.environ.get("XLA_FLAGS", "")
    if count <= cores and not told:
        with contextlib.suppress(RuntimeError):  # JAX has its devices already
            jax.config.update("jax_num_cpu_devices", count)


def make_mesh(sizes: dict[str, int]) -> Mesh:
    """The mesh with these sizes; an axis that is left out has size 1. Several processes have to use all devices."""
    count, there = math.prod(sizes.values()), len(jax.devices())
    asked = ",".join(f"{name}={size}" for name, size in sizes.items())
    if count > there:
        raise ValueError(
            f"--mesh: {asked} needs {count} devices, and there are {there}; to make more of a CPU than it has cores, "
            f"set XLA_FLAGS=--{_FORCED_DEVICES}={count}"
        )
    if count < there and jax.process_count() > 1:
        raise ValueError(f"--mesh: several processes use all their {there} devices, and {asked} are {count}")
    full = {**sizes, **{name: 1 for name in AXES if name not in sizes}}
    return jax.make_mesh(tuple(full.values()), tuple(full), axis_types=(AxisType.Auto,) * len(full))


def check(settings: Settings, mesh: Mesh | None) -> None:
    """Raise a ValueError that names the setting if one does not divide into the mesh."""
    if mesh is None:
        return
    if mixture_size(settings.model) is not None and mesh.shape["sample"] > 1:
        raise ValueError(
            f"model: the samples of {settings.model} cannot be split over devices; use the mesh axis data, as in "
            f"--mesh data={math.prod(mesh.shape.values())}"
        )
    samples = 1 if settings.model == "vae" else settings.num_samples
    for setting, value, axis in (("batch_size", settings.batch_size, "data"), ("num_samples", samples, "sample")):
        if value % mesh.shape[axis]:
            raise ValueError(
                f"{setting}: {value} of {settings.model} cannot be split evenly over the {mesh.shape[axis]} devices of "
                f"the mesh axis {axis}"
            )


def over(mesh: Mesh | None, *axis: str) -> NamedSharding | None:
    """The sharding of arrays with their first dimension over this axis; without an axis, whole on every device."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec(*axis))


def split(mesh: Mesh | None, tree: Any) -> Any:
    """Lay examples over the axis `data`; for use within a compiled function."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, over(mesh, "data"))


def whole(mesh: Mesh | None, tree: Any) -> Any:
    """Lay arrays that are equal in every process on all devices; for use outside of compiled functions."""
    return tree if mesh is None else jax.device_put(tree, over(mesh))


def batch_axis(mesh: Mesh | None) -> str | None:
    """The `spmd_axis_name` for `jax.vmap` over examples."""
    return None if mesh is None else "data"


def describe(mesh: Mesh) -> str:
    """The mesh in words, for results."""
    axes = ",".join(f"{name}={size}" for name, size in mesh.shape.items())
    return f"{axes}; processes={jax.process_count()}"


def is_first() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Print, once for all processes."""
    if is_first():
        print(text, flush=True)


def agreed(value: bool) -> bool:
    """The value of the first process. Clocks and file systems differ, and all processes must take the same branch."""
    return value if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))
