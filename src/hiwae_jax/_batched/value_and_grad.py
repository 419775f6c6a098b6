"""Value and gradient of a minibatch, as many examples at once as the machine likes."""

from collections.abc import Callable
from typing import Any, Literal, Protocol, overload, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from hiwae_jax import _checks
from hiwae_jax._batched.checks import check_arguments, check_call
from hiwae_jax._batched.chunks import ChunkPlan, Given, OfExamples, Total, chunk_at, interleave, plan_chunks
from hiwae_jax._batched.compiled import AxisName, Compiled, compiled
from hiwae_jax._batched.trees import length, partition, wide
from hiwae_jax._proposals.sharding import on_auto_axes
from hiwae_jax._random_streams import example_keys
from hiwae_jax._types import Params, PerExample, Scalar, Tree

Aux = Any  # what the user's objective returns besides, a row for each example
Mean = Any  # the mean of the objective; with has_aux, a pair of it and Aux


@runtime_checkable
class ValueAndGrad(Protocol):
    """The mean over a minibatch, and its gradient, which has the structure of the parameters."""

    def __call__(self, params: Tree, batch: PerExample, key: PRNGKeyArray, *shared: object) -> tuple[Scalar, Tree]: ...


@runtime_checkable
class ValueAuxAndGrad(Protocol):
    """The same of an objective with `has_aux`."""

    def __call__(
        self, params: Tree, batch: PerExample, key: PRNGKeyArray, *shared: object
    ) -> tuple[tuple[Scalar, Aux], Tree]: ...


@overload
def batched_value_and_grad(
    objective: Callable[..., Scalar],
    *,
    draw: Callable[..., object] | None = ...,
    chunk_size: int | None = ...,
    dispatch: bool = ...,
    has_aux: Literal[False] = ...,
    spmd_axis_name: AxisName | None = ...,
) -> ValueAndGrad: ...


@overload
def batched_value_and_grad(
    objective: Callable[..., tuple[Scalar, Aux]],
    *,
    draw: Callable[..., object] | None = ...,
    chunk_size: int | None = ...,
    dispatch: bool = ...,
    has_aux: Literal[True],
    spmd_axis_name: AxisName | None = ...,
) -> ValueAuxAndGrad: ...


@_checks.by_name
def batched_value_and_grad(
    objective: Callable[..., Mean],
    *,
    draw: Callable[..., object] | None = None,
    chunk_size: int | None = None,
    dispatch: bool = False,
    has_aux: bool = False,
    spmd_axis_name: AxisName | None = None,
) -> Callable[..., tuple[Mean, Params]]:
    """The mean over a minibatch of a function of one example, and its gradient, a few examples at a time.

    Examples do not depend on one another, so that the gradient is exactly a sum over chunks of examples. No more than
    one chunk is in memory, and on a CPU small chunks are faster than everything at once.

    Args:
      objective: `(params, x, key, *shared) -> scalar`, of one example: a bound, its negative, an annealed objective.
      draw: None, or a function `(params, x, key, *shared) -> drawn` of one example, as a rule `bound.draw`. It is
        evaluated and differentiated for all examples at once. Only `objective` then goes in chunks, as
        `(params, x, drawn, *shared) -> scalar`: a bound takes what it has drawn instead of a key. Use `draw` where the
        networks of the proposal are large beside a chunk, as those of a `hierarchical` one are: a chunk then has no
        gradient of theirs to add up. Their activations and the samples of the whole batch have to fit in memory.
      chunk_size: how many examples are evaluated at once. It is made smaller where the batch then divides more evenly;
        the batch size or more evaluates all of them at once. None chooses a size when traced, so that the bytes that
        the backward pass keeps for a chunk stay within a budget: on a CPU 6 MiB, or one and a half times the parameters
        that `objective` reads if that is more, and 4 GiB elsewhere. Where a single example keeps more, give
        `make_bound` a `chunk_size` of samples as well.
      dispatch: False for a loop inside of the caller's program. True compiles one chunk alone and calls it from Python
        for each chunk; the result cannot be called under jit. It is for models that are slow inside of compiled loops,
        as most convolutions are on a CPU (those of `hiwae_jax.nn` are not).
      has_aux: whether `objective` returns a pair `(scalar, aux)`, as for `jax.value_and_grad`. `aux` is a pytree of
        arrays of one example, such as the number of weights that are zero; it is not differentiated.
      spmd_axis_name: the axis of a mesh over which the batch lies, if any, for `jax.vmap` over examples.

    Returns:
      `value_and_grad(params, batch, key, *shared) -> (mean, gradient)`: `batch` is an array or pytree with a leading
      axis of examples, `key` one typed key that is split into one for each, and the gradient has the structure of
      `params`. With `has_aux` it returns `((mean, aux), gradient)`, every leaf of `aux` with a leading axis of
      examples, in the order of the batch. Every chunk size, with `draw` or without, gives the same numbers, up to
      rounding.

    Raises:
      ValueError: if `chunk_size` is less than 1; when called, for a batch without examples or with leaves of unequal
        length, for more than one key, or for an objective that is no scalar.
      TypeError: if `objective` or `draw` is no function; when called, for a key that is not typed, for `params` that
        are not all floating-point arrays, or under jit with `dispatch`.

    >>> import hiwae_jax as hj
    >>> proposal = hj.independent(lambda params, x: (params * x, jnp.ones_like(x)), num_samples=8)
    >>> bound = hj.make_bound(lambda params, x, z: -0.5 * jnp.sum((x - z) ** 2 + z**2), proposal)
    >>> step = jax.jit(hj.batched_value_and_grad(bound, draw=bound.draw, chunk_size=16))
    >>> value, gradient = step(jnp.float32(0.5), jnp.ones((64, 2)), jax.random.key(0))
    >>> value.shape, gradient.shape
    ((), ())
    """
    check_arguments(objective, draw, dispatch, has_aux, spmd_axis_name)
    size_asked_for = None if chunk_size is None else _checks.positive_integer("chunk_size", chunk_size)
    functions = compiled(objective, draw, dispatch, has_aux, spmd_axis_name)

    @on_auto_axes
    def value_and_grad(params: Params, batch: PerExample, key: PRNGKeyArray, *shared: object) -> tuple[Mean, Params]:
        num_examples = length(batch)
        check_call(params, batch, key, shared, dispatch=dispatch)
        drawn = functions.draw_all(params, batch, example_keys(key, num_examples), shared)
        given = Given(None, batch, drawn.fixed, None, num_examples, shared)
        plan = plan_chunks(num_examples, size_asked_for or functions.needs(params, drawn.moving, given).at_once)
        if plan.chunks == 1:
            (value, aux), (gradient, moved) = functions.of_chunk(params, drawn.moving, given)
        else:
            # Chunks need not return the zeros of the parameters that only `draw` reads.
            is_read = None if draw is None else functions.needs(params, drawn.moving, given).is_read
            (value, gradient), (moved, aux) = _over_chunks(functions, plan, params, is_read, drawn.moving, given)
        whole = gradient if drawn.pull is None else functions.pull_back(drawn.pull, moved, gradient)
        as_params = jax.tree.map(lambda leaf, param: leaf.astype(jnp.result_type(param)), whole, params)
        return (value, aux) if has_aux else value, as_params

    return value_and_grad


def _over_chunks(
    functions: Compiled, plan: ChunkPlan, params: Params, is_read: list[bool] | None, moving: PerExample, given: Given
) -> tuple[Total, OfExamples]:
    """The sum over several chunks, and what each example gave in the order of the batch.

    `is_read` says which parameters `objective` reads; None if all are to be differentiated.
    """
    read, others = (params, None) if is_read is None else partition(params, is_read)
    interleaved = interleave(plan, (moving, given.batch, given.fixed))

    def of_index(index: int | Int[Array, ""]) -> tuple[Total, OfExamples]:
        (moving, batch, fixed), counted = chunk_at(interleaved, index)
        chunk = given._replace(others=others, batch=batch, fixed=fixed, counted=counted)
        (value, aux), (gradient, moved) = functions.of_chunk(read, moving, chunk)
        return Total(value, jax.tree.map(wide, gradient)), OfExamples(moved, aux)

    total, of_examples = functions.sum_over(of_index, plan.chunks)
    in_order = lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])[: plan.num_examples]
    return total, jax.tree.map(in_order, of_examples)
