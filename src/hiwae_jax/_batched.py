"""Value and gradient of a minibatch, as many examples at once as the machine likes."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hiwae_jax import _checks
from hiwae_jax._make_bound import Bound
from hiwae_jax._programs import bytes_of, kept_for_backward
from hiwae_jax._proposals.sharding import on_auto_axes
from hiwae_jax._random_streams import example_keys
from hiwae_jax._types import Params

PerExample = Any  # the user's: an array or pytree of arrays with a leading axis of examples
AxisName = str | tuple[str, ...]
Result = TypeVar("Result")

# How many bytes the backward pass may keep at once. On a CPU small arrays are the fast ones: they stay in the cache,
# and the allocator hands them out again. Large ones are returned to the system and cleared anew at every step. On other
# devices the arrays only have to fit.
KEPT_ON_CPU = 6 * 2**20
KEPT_ELSEWHERE = 4 * 2**30


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
        num_examples = _length(batch)
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


class Given(NamedTuple):
    """What a part of the mean depends on besides what it is differentiated in.

    Attributes:
      others: the parameters that `objective` does not read; None if they are not set apart.
      batch: the examples.
      fixed: as in `Drawn`.
      counted: which examples count; None if all of them do.
      num_examples: how many examples the whole batch has.
      shared: further arguments that all examples share.
    """

    others: Params | None
    batch: PerExample
    fixed: PerExample
    counted: Bool[Array, " M"] | None
    num_examples: int
    shared: tuple[Any, ...]


class Total(NamedTuple):
    """What is added up over chunks."""

    value: Float[Array, ""]
    gradient: Params


class OfExamples(NamedTuple):
    """What is returned for each example: the gradient in `Drawn.moving`, and `aux`."""

    moved: PerExample
    aux: PerExample


class Needs(NamedTuple):
    """What is known of an objective without evaluating it.

    Attributes:
      at_once: how many examples to evaluate at once.
      is_read: for each array of the parameters, whether the objective reads it.
    """

    at_once: int
    is_read: list[bool]


OfIndex = Callable[[int | Int[Array, ""]], tuple[Total, OfExamples]]  # what a chunk gives, by the index of the chunk


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
    needs: Callable[..., Needs]
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
    pull_back = lambda pull, moved, so_far: _add(so_far, pull(moved)[0])
    part_of_mean = functools.partial(_part_of_mean, objective, has_aux, spmd_axis_name)
    value_alone = lambda *arguments: part_of_mean(*arguments)[0]
    return Compiled(
        draw_all=jax.jit(draw_all) if dispatch else draw_all,
        # Under jit even inside of a loop, which traces it twice.
        of_chunk=jax.jit(jax.value_and_grad(part_of_mean, argnums=(0, 1), has_aux=True)),
        pull_back=jax.jit(pull_back) if dispatch else pull_back,
        needs=_once_for_each_shape(lambda *arguments: Needs(*_examples_at_once(value_alone, *arguments))),
        sum_over=_dispatched if dispatch else _in_a_loop,
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


class ChunkPlan(NamedTuple):
    """How the examples of a batch are divided into chunks of equal size, the last of which may not be full.

    Attributes:
      num_examples: how many examples there are.
      chunks: the number of chunks.
      chunk_size: how many examples each chunk has, those counted that only fill it up.
    """

    num_examples: int
    chunks: int
    chunk_size: int

    @property
    def padding(self) -> int:
        """How many examples fill up the last chunk and do not count."""
        return self.chunks * self.chunk_size - self.num_examples


def plan_chunks(num_examples: int, largest_size: int) -> ChunkPlan:
    """The fewest chunks of no more than `largest_size` examples, and of these the smallest.

    >>> plan_chunks(7, 5), plan_chunks(7, 5).padding
    (ChunkPlan(num_examples=7, chunks=2, chunk_size=4), 1)
    """
    chunks = -(-num_examples // largest_size)
    return ChunkPlan(num_examples, chunks, -(-num_examples // chunks))


def _over_chunks(
    compiled: Compiled, plan: ChunkPlan, params: Params, is_read: list[bool] | None, moving: PerExample, given: Given
) -> tuple[Total, OfExamples]:
    """The sum over several chunks, and what each example gave in the order of the batch.

    `is_read` says which parameters `objective` reads; None if all are to be differentiated.
    """
    read, others = (params, None) if is_read is None else _partition(params, is_read)
    interleaved = _interleaved(plan, (moving, given.batch, given.fixed))

    def of_index(index: int | Int[Array, ""]) -> tuple[Total, OfExamples]:
        (moving, batch, fixed), counted = _chunk(interleaved, index)
        chunk = given._replace(others=others, batch=batch, fixed=fixed, counted=counted)
        (value, aux), (gradient, moved) = compiled.of_chunk(read, moving, chunk)
        return Total(value, jax.tree.map(_wide, gradient)), OfExamples(moved, aux)

    total, of_examples = compiled.sum_over(of_index, plan.chunks)
    in_order = lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])[: plan.num_examples]
    return total, jax.tree.map(in_order, of_examples)


def _interleaved(plan: ChunkPlan, of_each: PerExample) -> tuple[PerExample, Bool[Array, "M chunks"] | None]:
    """The arrays of all examples with axes [chunk_size, chunks], and which of them count; None if all do.

    Neighbours of the batch go to different chunks: where the axis of examples lies on several devices, each chunk then
    has some examples of every device.
    """
    filled, counted = _filled_up(plan, of_each) if plan.padding else (of_each, None)
    apart = lambda leaf: jnp.reshape(leaf, (plan.chunk_size, plan.chunks, *jnp.shape(leaf)[1:]))
    interleaved: tuple[PerExample, Bool[Array, "M chunks"] | None] = jax.tree.map(apart, (filled, counted))
    return interleaved


def _filled_up(plan: ChunkPlan, of_each: PerExample) -> tuple[PerExample, Bool[Array, " filled"]]:
    """The arrays of all examples, then of some of them again that fill up the last chunk, and which of them count."""
    numbers = jnp.arange(plan.num_examples + plan.padding)
    indices = numbers % plan.num_examples
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[indices], of_each), numbers < plan.num_examples


@jax.jit
def _chunk(interleaved: Any, index: int | Int[Array, ""]) -> Any:
    """One of the chunks of `_interleaved`."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, axis=1, keepdims=False), interleaved)


def _in_a_loop(of_index: OfIndex, chunks: int) -> tuple[Total, OfExamples]:
    """The sum over chunks, and what each gave for its examples, stacked; in a loop inside of the caller's program."""
    shapes, _ = jax.eval_shape(of_index, 0)
    zeros = jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), shapes)

    def add_chunk(so_far: Total, index: Int[Array, ""]) -> tuple[Total, OfExamples]:
        part, of_examples = of_index(index)
        return jax.tree.map(jnp.add, so_far, part), of_examples

    return jax.lax.scan(add_chunk, zeros, jnp.arange(chunks))


def _dispatched(of_index: OfIndex, chunks: int) -> tuple[Total, OfExamples]:
    """The same as `_in_a_loop`; each chunk is a compiled program that is called from Python."""
    total, first = of_index(0)
    parts = [first]
    for index in range(1, chunks):
        part, of_examples = of_index(index)
        total = _add_in_place(total, part)
        parts.append(of_examples)
    return total, jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


@functools.partial(jax.jit, donate_argnums=0)
def _add_in_place(so_far: Total, part: Total) -> Total:
    """The sum of both, in the memory of the first."""
    total: Total = jax.tree.map(jnp.add, so_far, part)
    return total


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
    of_params = lambda params: _split(
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
    params, drawn = _join(read, given.others), _join(moving, given.fixed)
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
    if _length(of_each) == 1:
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


def _length(batch: PerExample) -> int:
    """The number of examples of a batch."""
    leaves = jax.tree.leaves(batch)
    for leaf in leaves:
        if not _checks.is_array(leaf):
            raise TypeError(f"batch: expected arrays, got a leaf of type {type(leaf).__name__}")
    shapes = [jnp.shape(leaf) for leaf in leaves]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) != 1 or lengths <= {None, 0}:
        raise ValueError(
            f"batch: expected arrays with one leading axis of examples, at least one of them, got shapes {shapes}"
        )
    return int(shapes[0][0])


def _partition(tree: Any, is_chosen: list[bool]) -> tuple[Any, Any]:
    """The leaves chosen, and the others, each in the structure of the tree with None elsewhere."""
    leaves, structure = jax.tree.flatten(tree)
    pairs = [(leaf, None) if chosen else (None, leaf) for leaf, chosen in zip(leaves, is_chosen, strict=True)]
    first, second = zip(*pairs, strict=True) if pairs else ((), ())
    return jax.tree.unflatten(structure, first), jax.tree.unflatten(structure, second)


def _split(tree: Any) -> tuple[Any, Any]:
    """The leaves that have derivatives, and the others."""
    return _partition(tree, [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(tree)])


def _join(first: Any, second: Any) -> Any:
    """The tree that `_partition` divided."""
    if first is None or second is None:
        return second if first is None else first
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)


def _add(gradient: Params, more: Params) -> Params:
    """The sum of two gradients: a leaf of the first that is None counts as zero, other leaves may be wider."""
    add = lambda a, b: b if a is None else a + b.astype(a.dtype)
    return jax.tree.map(add, gradient, more, is_leaf=lambda leaf: leaf is None)


def _wide(gradient: Array) -> Array:
    """A gradient in at least float32: a sum of many parts in bfloat16 would lose what each part adds."""
    return _checks.at_least_float32(gradient) if jnp.issubdtype(gradient.dtype, jnp.floating) else gradient


def _once_for_each_shape(function: Callable[..., Result]) -> Callable[..., Result]:
    """The same function of trees of arrays, which remembers its result for each set of shapes and dtypes.

    A call from Python needs the result at every step of training.
    """
    found: dict[Hashable, Result] = {}

    def remembered(*arguments: Any) -> Result:
        leaves, structure = jax.tree.flatten(arguments)
        shapes = structure, *((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        if shapes not in found:
            found[shapes] = function(*arguments)
        return found[shapes]

    return remembered


def _examples_at_once(
    part_of_mean: Callable[..., Any], params: Params, moving: PerExample, given: Given
) -> tuple[int, list[bool]]:
    """How many examples keep no more than they should for the backward pass, and which parameters they read."""
    kept, is_used = kept_for_backward(part_of_mean, (params, moving), (given,))
    leaves = jax.tree.leaves(params)
    is_read = is_used[: len(leaves)]
    budget = KEPT_ELSEWHERE
    if jax.default_backend() == "cpu":
        # Each chunk adds a gradient of the size of the parameters to the sum: it should have more to do than that.
        added = sum(bytes_of(leaf) for leaf, read in zip(leaves, is_read, strict=True) if read)
        budget = max(KEPT_ON_CPU, 3 * added // 2)
    return max(1, budget * given.num_examples // max(1, kept)), is_read
