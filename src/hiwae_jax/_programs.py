"""What a traced program contains: its primitives, and the memory of its backward pass. Nothing is evaluated."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr


def bytes_of(tree: object) -> int:
    """The size in bytes of all arrays of a tree. Abstract values will do: only shapes and dtypes are read."""
    return sum(math.prod(jnp.shape(leaf)) * jnp.result_type(leaf).itemsize for leaf in jax.tree.leaves(tree))


def kept_for_backward(
    function: Callable[..., object], differentiated: tuple[object, ...], given: tuple[object, ...]
) -> tuple[int, list[bool]]:
    """The memory that `function(*differentiated, *given)` keeps for its derivative in `differentiated`.

    Returns:
      The number of bytes kept, without those of the arguments themselves. And for each array of `differentiated`,
      whether the value may depend on it. If it does not, the derivative is zero.
    """

    def backward(differentiated: tuple[object, ...], given: tuple[object, ...]) -> object:
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


def primitive_names(program: Jaxpr | ClosedJaxpr) -> set[str]:
    """The primitives of a program, including those inside loops, branches and called programs."""
    equations = (program.jaxpr if isinstance(program, ClosedJaxpr) else program).eqns
    names = {equation.primitive.name for equation in equations}
    for equation in equations:
        for leaf in jax.tree.leaves(equation.params, is_leaf=_is_program):
            if _is_program(leaf):
                names |= primitive_names(leaf)
    return names


def _is_program(leaf: object) -> bool:
    return isinstance(leaf, (Jaxpr, ClosedJaxpr))
