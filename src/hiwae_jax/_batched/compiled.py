"""The functions that a call of `batched_value_and_grad` is made of: what is drawn, and what a chunk gives."""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from hiwae_jax._batched import budget
from hiwae_jax._batched.checks import value_and_aux
from hiwae_jax._batched.chunks import Given, OfExamples, OfIndex, Total, sum_dispatched, sum_in_a_loop
from hiwae_jax._batched.trees import add, join, length, split_by_derivative
from hiwae_jax._types import Keys, Params, PerExample, Scalar, Unchecked

AxisName = str | tuple[str, ...]
PullBack = Callable[[PerExample], tuple[Params]]
Result = TypeVar("Result")


class Drawn(NamedTuple):
    """What is drawn for all examples at once.

    Attributes:
      moving: what moves with the parameters, floating-point arrays with a leading axis of examples; None without a
        `draw`.
      pull: from a gradient in `moving` to one in the parameters; None without a `draw`.
      fixed: the other arrays of the draw; without a `draw`, the examples' keys.
    """

    moving: PerExample
    pull: PullBack | None
    fixed: PerExample


class Compiled(NamedTuple):
    """The functions of one `batched_value_and_grad`. All its calls use the same ones, so that each compiles once.

    Attributes:
      draw_all: `(params, batch, keys, shared) -> Drawn`.
      of_chunk: `(params, moving, Given) -> ((value, aux), (gradient in params, gradient in moving))`.
      pull_back: `(Drawn.pull, gradient in moving, gradient so far) -> gradient`.
      needs: `(params, moving, Given) -> Needs`.
      sum_over: `(of_index, number of chunks) -> (Total, OfExamples)`, the sum of `of_index(index)` over all chunks.
    """

    draw_all: Callable[[Params, PerExample, Keys, tuple[object, ...]], Drawn]
    of_chunk: Callable[[Params, PerExample, Given], tuple[tuple[Scalar, PerExample], tuple[Params, PerExample]]]
    pull_back: Callable[[PullBack, PerExample, Params], Params]
    needs: Callable[[Params, PerExample, Given], budget.Needs]
    sum_over: Callable[[OfIndex, int], tuple[Total, OfExamples]]


def compiled(
    objective: Callable[..., Unchecked],
    draw: Callable[..., object] | None,
    dispatch: bool,
    has_aux: bool,
    spmd_axis_name: AxisName | None,
) -> Compiled:
    """The functions that a call is made of, for these arguments of `batched_value_and_grad`."""
    draw_all = functools.partial(_draw_all, draw, spmd_axis_name)
    pull_back = lambda pull, moved, so_far: add(so_far, pull(moved)[0])
    part_of_mean = functools.partial(_part_of_mean, objective, has_aux, spmd_axis_name)
    value_alone = lambda *arguments: part_of_mean(*arguments)[0]
    return Compiled(
        draw_all=jax.jit(draw_all) if dispatch else draw_all,
        # Under jit even inside of a loop, which traces it twice.
        of_chunk=jax.jit(jax.value_and_grad(part_of_mean, argnums=(0, 1), has_aux=True)),
        pull_back=jax.jit(pull_back) if dispatch else pull_back,
        needs=budget.once_for_each_shape(lambda *arguments: budget.examples_at_once(value_alone, *arguments)),
        sum_over=sum_dispatched if dispatch else sum_in_a_loop,
    )


def _draw_all(
    draw: Callable[..., object] | None,
    spmd_axis_name: AxisName | None,
    params: Params,
    batch: PerExample,
    keys: Keys,
    shared: tuple[object, ...],
) -> Drawn:
    """What `draw` gives for every example, made ready to be differentiated in chunks."""
    if draw is None:
        return Drawn(None, None, keys)
    of_params = lambda params: split_by_derivative(
        _over_examples(draw, params, batch, keys, shared=shared, spmd_axis_name=spmd_axis_name)
    )
    moving, pull, fixed = jax.vjp(of_params, params, has_aux=True)
    return Drawn(moving, pull, fixed)


def _part_of_mean(
    objective: Callable[..., Unchecked],
    has_aux: bool,
    spmd_axis_name: AxisName | None,
    read: Params,
    moving: PerExample,
    given: Given,
) -> tuple[Scalar, PerExample]:
    """What the examples given add to the mean over the whole batch, and the `aux` of each."""
    params, drawn = join(read, given.others), join(moving, given.fixed)
    result = _over_examples(objective, params, given.batch, drawn, shared=given.shared, spmd_axis_name=spmd_axis_name)
    values, aux = value_and_aux(result, has_aux=has_aux)
    total = jnp.sum(values if given.counted is None else jnp.where(given.counted, values, 0.0))
    return total / given.num_examples, aux


def _over_examples(
    function: Callable[..., Result],
    params: Params,
    *of_each: PerExample,
    shared: tuple[object, ...],
    spmd_axis_name: AxisName | None,
) -> Result:
    """`function(params, *arguments of one example, *shared)` at every example."""
    if length(of_each) == 1:
        # XLA makes sums of products over [1, ...] ten times as slow on a CPU as over [...]. The barrier keeps it from
        # moving the axis back in.
        one_example = jax.tree.map(lambda leaf: leaf[0], of_each)
        behind_barrier = jax.lax.optimization_barrier(one_example)  # type: ignore[no-untyped-call]
        result: Result = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(params, *behind_barrier, *shared))
        return result
    axes = (None, *[0] * len(of_each), *[None] * len(shared))
    return jax.vmap(function, in_axes=axes, spmd_axis_name=spmd_axis_name)(params, *of_each, *shared)
