"""Values and gradients of a problem on two devices, and how far they are apart."""

import concurrent.futures
from typing import Any, NamedTuple

import jax
import numpy as np

import hiwae_jax as hj
from benchmarks.agreement import problems

VALUE_TOLERANCE = 1e-5  # of the value, or absolute where it is below 1
GRADIENT_TOLERANCE = 1e-4  # of the norm of the gradient of all parameters

Found = dict[str, tuple[float, np.ndarray]]  # by gradient: the value, and the gradient of all parameters in one row


class Devices(NamedTuple):
    """The device that is there, and the CPU that it is compared with."""

    here: jax.Device
    cpu: jax.Device


def devices() -> Devices:
    """The first device of each kind.

    Raises:
      ValueError: JAX was told to leave the CPU out.
    """
    try:
        return Devices(jax.devices()[0], jax.devices("cpu")[0])
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        raise ValueError(f"JAX has no CPU to compare with; add cpu to JAX_PLATFORMS, or unset it ({text})") from error


def compare(name: str, where: Devices) -> dict[str, dict[str, Any]]:
    """The figures of each gradient that is valid for the problem, by cell."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # the two compile side by side
        of_cpu = None if where.here == where.cpu else pool.submit(evaluate, name, where.cpu)
        ours = evaluate(name, where.here)
        theirs = ours if of_cpu is None else of_cpu.result()
    return {f"{name}, {gradient}": figures(name, gradient, ours[gradient], theirs[gradient]) for gradient in theirs}


def evaluate(name: str, device: jax.Device) -> Found:
    """Value and gradient of the mean bound of the batch under each valid gradient, from one program in float32."""
    with jax.default_device(jax.devices("cpu")[0]):  # the same parameters and examples to the bit, wherever they go
        problem = problems.make(name)
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        steps = {
            gradient: hj.batched_value_and_grad(bound, draw=bound.draw) for gradient, bound in problem.bounds().items()
        }
        arguments = jax.device_put((problem.params, problem.batch, jax.random.key(2)), device)
        # For a program that runs once on a CPU, compiling is most of the time.
        hurry = {"xla_backend_optimization_level": 0} if device.platform == "cpu" else None
        program = jax.jit(
            lambda *arguments: {key: step(*arguments) for key, step in steps.items()}, compiler_options=hurry
        )
        results = program(*arguments)
    return {gradient: (float(value), row(gradients)) for gradient, (value, gradients) in results.items()}


def row(tree: Any) -> np.ndarray:
    """All numbers of a tree, in double precision."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def figures(name: str, gradient: str, ours: tuple[float, np.ndarray], theirs: tuple[float, np.ndarray]) -> dict:
    """How far the value and the gradient are from those of the CPU, and "failed" if that is too far."""
    value = abs(ours[0] - theirs[0]) / max(1.0, abs(theirs[0]))
    apart = float(np.linalg.norm(ours[1] - theirs[1]) / np.linalg.norm(theirs[1]))
    found = {"proposal": name, "gradient": gradient, "value": theirs[0]}
    # What is not finite has no place in JSON, and agrees with nothing.
    found |= {"value_apart": value if np.isfinite(value) else None}
    found |= {"gradient_apart": apart if np.isfinite(apart) else None}
    if not (value <= VALUE_TOLERANCE and apart <= GRADIENT_TOLERANCE):
        found["failed"] = f"value {value:.2g} and gradient {apart:.2g} away from the CPU's"
    return found
