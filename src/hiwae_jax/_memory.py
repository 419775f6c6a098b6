"""How much a backward pass keeps in memory, found without evaluating anything."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def bytes_of(tree: Any) -> int:
    """Of all arrays, or of what is known of their shapes."""
    return sum(math.prod(jnp.shape(leaf)) * jnp.result_type(leaf).itemsize for leaf in jax.tree.leaves(tree))


def kept_for_backward(
    function: Callable[..., Any], differentiated: tuple[Any, ...], given: tuple[Any, ...]
) -> tuple[int, list[bool]]:
    """What `function(*differentiated, *given)` keeps for its derivative in the first of its arguments.

    Returns:
      The bytes kept, those of the arguments themselves not counted, and for each array among the differentiated
      whether the value may depend on it; where it does not, the derivative is zero.
    """

    def backward(differentiated: tuple[Any, ...], given: tuple[Any, ...]) -> Any:
        return jax.vjp(lambda *moving: function(*moving, *given), *differentiated)

    program, results = jax.make_jaxpr(backward, return_shape=True)(differentiated, given)
    program, values = program.jaxpr, len(jax.tree.leaves(results[0]))
    arguments = {id(argument) for argument in (*program.invars, *program.constvars)}
    kept = {id(result): bytes_of(result.aval) for result in program.outvars[values:] if id(result) not in arguments}
    read = {id(result) for result in program.outvars[:values]}
    for equation in reversed(program.eqns):
        if any(id(result) in read for result in equation.outvars):
            read.update(id(operand) for operand in equation.invars)
    of_differentiated = program.invars[: len(jax.tree.leaves(differentiated))]
    return sum(kept.values()), [id(argument) in read for argument in of_differentiated]
