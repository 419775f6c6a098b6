"""Value and gradient of a minibatch, as many examples at once as the machine likes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hiwae_jax import _checks
from hiwae_jax._batched import budget
from hiwae_jax._batched.chunks import (
    ChunkPlan,
    Given,
    OfExamples,
    OfIndex,
    Total,
    chunk_at,
    interleave,
    plan_chunks,
    sum_dispatched,
    sum_in_a_loop,
)
from hiwae_jax._batched.trees import add, join, length, partition, split_by_derivative, wide
from hiwae_jax._make_bound import Bound
from hiwae_jax._proposals.sharding import on_auto_axes
from hiwae_jax._random_streams import example_keys
from hiwae_jax._types import Params, PerExample

AxisName = str | tuple[str, ...]


@_checks.by_name
def batched_value_and_grad(
    objective: Callable[..., Float[Array, ""]],
    *,
    draw: Callable[..., Any] | None = None,
    chunk_size: int | None = None,
    dispatch: bool = False,
    has_aux: bool = False,
    spmd_axis_name: AxisName | None = None,
) -> Callable[..., tuple[Any, Params]]:
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
    _check_arguments(objective, draw, dispatch, has_aux, spmd_axis_name)
    size_asked_for = None if chunk_size is None else _checks.positive_integer("chunk_size", chunk_size)
    compiled = _compiled(objective, draw, dispatch, has_aux, spmd_axis_name)

    @on_auto_axes
    def value_and_grad(params: Params, batch: PerExample, key: PRNGKeyArray, *shared: Any) -> tuple[Any, Params]:
        num_examples = length(batch)
        _check_call(params, batch, key, shared, dispatch=dispatch)
        drawn = compiled.draw_all(params, batch, example_keys(key, num_examples), shared)
        given = Given(None, batch, drawn.fixed, None, num_examples, shared)
        plan = plan_chunks(num_examples, size_asked_for or compiled.needs(params, drawn.moving, given).at_once)
        if plan.chunks == 1:
            (value, aux), (gradient, moved) = compiled.of_chunk(params, drawn.moving, given)
        else:
            # Chunks need not return the zeros of the parameters that only `draw` reads.
            is_read = None if draw is None else compiled.needs(params, drawn.moving, given).is_read
            (value, gradient), (moved, aux) = _over_chunks(compiled, plan, params, is_read, drawn.moving, given)
        whole = gradient if drawn.pull is None else compiled.pull_back(drawn.pull, moved, gradient)
        as_params = jax.tree.map(lambda leaf, param: leaf.astype(jnp.result_type(param)), whole, params)
        return (value, aux) if has_aux else value, as_params

    return value_and_grad


class Drawn(NamedTuple):
    """What is drawn for all examples at once.

    Attributes:
      moving: what moves with the parameters, floating-point arrays with a leading axis of examples; None without a
        `draw`.
      pull: from a gradient in `moving` to one in the parameters; None without a `draw`.
      fixed: the other arrays of the draw; without a `draw`, the examples' keys.
    """

    moving: PerExample
    pull: Callable[[PerExample], tuple[Params]] | None
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

    draw_all: Callable[..., Drawn]
    of_chunk: Callable[..., Any]
    pull_back: Callable[..., Params]
    needs: Callable[..., budget.Needs]
    sum_over: Callable[[OfIndex, int], tuple[Total, OfExamples]]


def _compiled(
    objective: Callable[..., Any],
    draw: Callable[..., Any] | None,
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


def _check_arguments(
    objective: object, draw: object, dispatch: object, has_aux: object, spmd_axis_name: object
) -> None:
    """Raise if an argument of `batched_value_and_grad` is not what it should be."""
    # What the functions take is not checked: shared arguments of any number may follow the key.
    for name, function in (("objective", objective), ("draw", draw)):
        if not callable(function) and not (name == "draw" and function is None):
            got = type(function).__name__
            raise TypeError(f"{name}: expected a function (params, x, key) of one example, got {got}")
    if spmd_axis_name is not None and not isinstance(spmd_axis_name, (str, tuple)):
        raise TypeError(f"spmd_axis_name: expected the name of a mesh axis, got {spmd_axis_name!r:.80}")
    if isinstance(draw, Bound):
        raise TypeError("draw: expected bound.draw, got the bound itself")
    for name, flag in (("dispatch", dispatch), ("has_aux", has_aux)):
        _checks.boolean(name, flag)


def _check_call(params: Params, batch: PerExample, key: object, shared: tuple[Any, ...], *, dispatch: bool) -> None:
    """Raise if the parameters or the key of a call are not what they should be, or it cannot be traced."""
    for leaf in jax.tree.leaves(params):
        if not _checks.is_array(leaf):
            raise TypeError(
                f"params: expected arrays, got a leaf of type {type(leaf).__name__}; hand over the arrays alone "
                "and put the rest back within objective, as eqx.partition and eqx.combine do"
            )
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"params: expected floating-point arrays, got a leaf of type {jnp.result_type(leaf)}; keep keys, "
                "counts and the like out of params, as nnx.split(model, nnx.Param, ...) does"
            )
    if dispatch and any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, batch, key, shared))):
        raise TypeError(
            "dispatch: True calls compiled chunks from Python and cannot be traced; call it outside of jit, or use "
            "dispatch=False"
        )
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim != 0:
        raise ValueError(
            f"key: expected one typed key, which is split into one for each example, got shape {jnp.shape(key)}"
        )


def _over_chunks(
    compiled: Compiled, plan: ChunkPlan, params: Params, is_read: list[bool] | None, moving: PerExample, given: Given
) -> tuple[Total, OfExamples]:
    """The sum over several chunks, and what each example gave in the order of the batch.

    `is_read` says which parameters `objective` reads; None if all are to be differentiated.
    """
    read, others = (params, None) if is_read is None else partition(params, is_read)
    interleaved = interleave(plan, (moving, given.batch, given.fixed))

    def of_index(index: int | Int[Array, ""]) -> tuple[Total, OfExamples]:
        (moving, batch, fixed), counted = chunk_at(interleaved, index)
        chunk = given._replace(others=others, batch=batch, fixed=fixed, counted=counted)
        (value, aux), (gradient, moved) = compiled.of_chunk(read, moving, chunk)
        return Total(value, jax.tree.map(wide, gradient)), OfExamples(moved, aux)

    total, of_examples = compiled.sum_over(of_index, plan.chunks)
    in_order = lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])[: plan.num_examples]
    return total, jax.tree.map(in_order, of_examples)


def _draw_all(
    draw: Callable[..., Any] | None,
    spmd_axis_name: AxisName | None,
    params: Params,
    batch: PerExample,
    keys: PRNGKeyArray,
    shared: tuple[Any, ...],
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
    objective: Callable[..., Any],
    has_aux: bool,
    spmd_axis_name: AxisName | None,
    read: Params,
    moving: PerExample,
    given: Given,
) -> tuple[Float[Array, ""], PerExample]:
    """What the examples given add to the mean over the whole batch, and the `aux` of each."""
    params, drawn = join(read, given.others), join(moving, given.fixed)
    result = _over_examples(objective, params, given.batch, drawn, shared=given.shared, spmd_axis_name=spmd_axis_name)
    values, aux = _value_and_aux(result, has_aux=has_aux)
    total = jnp.sum(values if given.counted is None else jnp.where(given.counted, values, 0.0))
    return total / given.num_examples, aux


def _over_examples(
    function: Callable[..., Any],
    params: Params,
    *of_each: PerExample,
    shared: tuple[Any, ...],
    spmd_axis_name: AxisName | None,
) -> Any:
    """`function(params, *arguments of one example, *shared)` at every example."""
    if length(of_each) == 1:
        # XLA makes sums of products over [1, ...] ten times as slow on a CPU as over [...]. The barrier keeps it from
        # moving the axis back in.
        one_example = jax.tree.map(lambda leaf: leaf[0], of_each)
        behind_barrier = jax.lax.optimization_barrier(one_example)  # type: ignore[no-untyped-call]
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(params, *behind_barrier, *shared))
    axes = (None, *[0] * len(of_each), *[None] * len(shared))
    return jax.vmap(function, in_axes=axes, spmd_axis_name=spmd_axis_name)(params, *of_each, *shared)


def _value_and_aux(result: Any, *, has_aux: bool) -> tuple[Float[Array, " M"], PerExample]:
    """The values of some examples and their `aux`, from what the objective returned; or what is wrong with it."""
    if has_aux and not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"objective: with has_aux=True expected a function with a pair (scalar, aux), got {type(result).__name__}"
        )
    values, aux = result if has_aux else (result, None)
    if not isinstance(values, jax.Array):
        remedy = "" if has_aux else "; for further results use has_aux=True"
        raise TypeError(f"objective: expected a scalar for one example, got a {type(values).__name__}{remedy}")
    if values.ndim != 1:
        raise ValueError(
            f"objective: expected a function with a scalar value for one example, got shape {values.shape[1:]}"
        )
    return values, aux
