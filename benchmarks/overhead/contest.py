"""The convolutional H-IWLB beside its port to PyTorch. First their values are compared, then both are timed.

PyTorch is imported only inside the functions that need it, so that the others work without it.
"""

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import hiwae_jax as hj
from benchmarks.overhead import problem as problems
from benchmarks.overhead import timing
from benchmarks.overhead.problem import Problem, Sizes
from benchmarks.overhead.tables import AT_ONCE, DISPATCHED, ONE_PROGRAM, PLAIN, PORT
from benchmarks.shared import cores

VALUE_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4  # relative


class Ways(NamedTuple):
    """The ways to take a step, by name: calls without arguments, and the bytes that each needs."""

    calls: dict[str, Callable[[], Any]]
    memory: dict[str, int]


def why_missing() -> str | None:
    """Why the PyTorch port cannot run beside JAX on the device that is there; None if it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: the PyTorch port is left out (pip install torch)"
    if jax.default_backend() == "cpu":
        return None
    import torch

    if not torch.cuda.is_available():
        backend = jax.default_backend()
        return f"JAX runs on a {backend} here, and torch {torch.__version__} cannot: the PyTorch port is left out"
    return None


def _torch_device() -> str:
    return "cpu" if jax.default_backend() == "cpu" else "cuda"


def contest(sizes: Sizes, num_samples: int, options: argparse.Namespace) -> dict[str, Any]:
    """Times of the H-IWLB at alpha 1 in several ways, in float32 with products of the highest precision.

    Raises:
      RuntimeError: the port computes something else.
    """
    import torch

    if _torch_device() == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(cores.used_cores() or 1)
    with jax.default_matmul_precision("highest"):
        return _contest(sizes, num_samples, options)


def _contest(sizes: Sizes, num_samples: int, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from benchmarks.overhead import torch_port

    problem = problems.make_problem(sizes, problems.Method(1.0, PLAIN), num_samples)
    batch = problems.make_batch(options.batch_size)
    noise = noise_of(sizes, num_samples, batch)
    ours = our_ways(problem, batch, options)
    require_equal(problem, batch, noise, num_samples, *ours.calls[ONE_PROGRAM]())
    port = port_in(np.float32, problem, batch, noise)
    calls = {**ours.calls, PORT: lambda: torch_port.value_and_grad(*port, num_samples=num_samples)}
    memory = {**ours.memory, PORT: torch_port.kept_bytes(*port, num_samples=num_samples)}
    seconds = timing.take_turns(calls, options.rounds)
    return {
        "nets": sizes.name(),
        "num_samples": num_samples,
        "batch_size": options.batch_size,
        "torch": torch.__version__,
        "ways": {
            name: {
                "cpu": timing.ratios(seconds[name], seconds[PORT], 0),
                "wall": timing.ratios(seconds[name], seconds[PORT], 1),
                **timing.milliseconds(seconds[name]),
                "bytes": memory.get(name),
            }
            for name in (ONE_PROGRAM, DISPATCHED, AT_ONCE, PORT)
        },
    }


def our_ways(problem: Problem, batch: jax.Array, options: argparse.Namespace) -> Ways:
    """The library's step: dispatched chunk by chunk, in one program, and with all examples at once."""
    draw = None if options.no_draw else problem.bound.draw
    arguments = problem.params, batch, jax.random.key(2)
    dispatched = hj.batched_value_and_grad(problem.bound, draw=draw, chunk_size=options.chunk_size, dispatch=True)
    calls: dict[str, Callable[[], Any]] = {DISPATCHED: lambda: jax.block_until_ready(dispatched(*arguments))}
    memory = {}
    for way, chunk_size in ((ONE_PROGRAM, options.chunk_size), (AT_ONCE, len(batch))):
        calls[way], facts = timing.compiled(problem.bound, problem.params, batch, chunk_size=chunk_size, draw=draw)
        memory[way] = facts["temp_bytes"]
    return Ways(calls, memory)


def noise_of(sizes: Sizes, num_samples: int, batch: jax.Array) -> jax.Array:
    """The noise [B, D + K D] that the bound draws under the key of the steps."""
    numbers = sizes.latent * (1 + num_samples)
    return jax.vmap(lambda key: jax.random.normal(key, (numbers,)))(jax.random.split(jax.random.key(2), len(batch)))


def port_in(dtype: Any, problem: Problem, batch: jax.Array, noise: jax.Array) -> tuple[Any, Any, Any]:
    """Parameters, images and noise as the port takes them, with floats of this type."""
    import torch

    from benchmarks.overhead import torch_port

    def cast(leaf: Any) -> np.ndarray:
        return np.asarray(leaf, dtype)

    device = _torch_device()
    params = torch_port.to_torch(jax.tree.map(cast, nnx.to_pure_dict(problem.params)), device=device)
    return params, torch.tensor(cast(batch), device=device), torch.tensor(cast(noise), device=device)


def require_equal(
    problem: Problem, batch: jax.Array, noise: jax.Array, num_samples: int, value: jax.Array, gradient: Any
) -> None:
    """Raise a RuntimeError unless the port has this value and gradient, in double precision."""
    from benchmarks.overhead import torch_port

    exact = port_in(np.float64, problem, batch, noise)
    theirs = torch_port.value_and_grad(*exact, num_samples=num_samples)
    wanted, ours = flat(torch_port.gradients(exact[0])), flat(nnx.to_pure_dict(gradient))
    apart = np.linalg.norm(ours - wanted) / np.linalg.norm(wanted)
    if not (abs(theirs - float(value)) <= VALUE_TOLERANCE * abs(theirs) and apart <= GRADIENT_TOLERANCE):
        raise RuntimeError(f"the port gives {theirs}, the library {float(value)}; gradients differ by {apart:.2g}")


def flat(tree: Any) -> np.ndarray:
    """All numbers of a tree in one row."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
