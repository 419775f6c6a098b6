"""Value and gradient of a minibatch, as many examples at once as the machine likes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hiwae_jax import _checks
from hiwae_jax._make_bound import Bound
from hiwae_jax._programs import bytes_of, kept_for_backward
from hiwae_jax._proposals.sharding import on_auto_axes
from hiwae_jax._random_streams import example_keys
from hiwae_jax._types import Params

# What the backward pass may keep at once. On a CPU small arrays are the fast ones: they stay in the cache, and the
# allocator hands them out again, where large ones are returned to the system and cleared anew at every step.
# Elsewhere they have to fit, no more.
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
    spmd_axis_name: str | None = None,
) -> Callable[..., tuple[Any, Params]]:
    """The mean over a minibatch of a function of one example, and its gradient, a few examples at a time.

    Examples do not know of one another, so the gradient is a sum over chunks of them, exactly: no more than one chunk
    is in memory, and on a CPU small chunks are faster than everything at once.

    Args:
      objective: `(params, x, key, *shared) -> scalar`, of one example: a bound, its negative, an annealed objective.
      draw: None, or `(params, x, key, *shared) -> drawn`, as a rule `bound.draw`: what is evaluated, and
        differentiated, for all examples at once, while only `objective`, then `(params, x, drawn, *shared) -> scalar`,
        goes in chunks. A bound takes what it has drawn in place of a key. Use it where the networks of the
        proposal are large beside a chunk, those of a `hierarchical` one above all: each chunk then has no gradient of
        theirs to add up. Their activations and the samples of the whole batch have to fit.
      chunk_size: how many examples are evaluated at once; made smaller where the batch then divides more evenly. At
        least the batch size for all of them. None chooses it when traced, from the bytes that the backward pass keeps
        for each example: 6 MiB on a CPU, or one and a half times the parameters that `objective` reads if that is more,
        and 4 GiB elsewhere. Where a single example keeps more, give `make_bound` a `chunk_size` of samples as well.
      dispatch: False for a loop inside of the caller's program. True compiles the chunk alone and calls it from Python
        for each chunk: for models that are slow inside of compiled loops, as most convolutions are on a CPU (those of
        `hiwae_jax.nn` are not). Not to be called under jit.
      has_aux: whether `objective` returns a pair `(scalar, aux)`, as for `jax.value_and_grad`. `aux` is a pytree of
        arrays of one example, such as the number of weights that are zero; it is not differentiated.
      spmd_axis_name: of `jax.vmap` over examples: the axis of a mesh over which the batch lies, if any.

    Returns:
      `value_and_grad(params, batch, key, *shared) -> (mean, gradient)`: `batch` is an array or pytree with a leading
      axis of examples, `key` one typed key that is split into one for each, and the gradient has the structure of
      `params`. With `has_aux` it returns `((mean, aux), gradient)`, every leaf of `aux` with a leading axis of
      examples, in the order of the batch. Every chunk size, with `draw` or without, gives the same numbers, up to
      rounding.

    Raises:
      ValueError: if `chunk_size` is less than 1, and when called, for a batch without examples or with leaves of
        unequal length, more than one key, or an objective that is no scalar.
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
    # Not what they take: shared arguments may follow.
    for name, function in (("objective", objective), ("draw", draw)):
        if not callable(function) and not (name == "draw" and function is None):
            got = type(function).__name__
            raise TypeError(f"{name}: expected a function (params, x, key) of one example, got {got}")
    if spmd_axis_name is not None and not isinstance(spmd_axis_name, (str, tuple)):
        raise TypeError(f"spmd_axis_name: expected the name of a mesh axis, got {spmd_axis_name!r:.80}")
    if isinstance(draw, Bound):
        raise TypeError("draw: expected bound.draw, got the bound itself")
    if chunk_size is not None:
        chunk_size = _checks.positive_integer("chunk_size", chunk_size)
    for name, flag in (("dispatch", dispatch), ("has_aux", has_aux)):
        _checks.boolean(name, flag)

    def over_examples(function: Callable[..., Any], params: Params, *of_each: Any, shared: tuple[Any, ...]) -> Any:
        if _length(of_each) == 1:
            # XLA makes sums of products over [1, ...] ten times as slow on a CPU as over [...]. The barrier keeps it
            # from moving the axis back in.
            alone = jax.tree.map(lambda leaf: leaf[0], of_each)
            alone = jax.lax.optimization_barrier(alone)  # type: ignore[no-untyped-call]
            return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(params, *alone, *shared))
        axes = (None, *[0] * len(of_each), *[None] * len(shared))
        return jax.vmap(function, in_axes=axes, spmd_axis_name=spmd_axis_name)(params, *of_each, *shared)

    def draw_all(params: Params, batch: Any, keys: Any, shared: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        """What `draw` gives that moves with the parameters, the pull of a gradient back to them, and all the rest."""
        if draw is None:
            return None, None, keys
        of_params = lambda params: _split(over_examples(draw, params, batch, keys, shared=shared))
        moving, pull, fixed = jax.vjp(of_params, params, has_aux=True)
        return moving, pull, fixed

    def part_of_mean(
        params: Params,
        moving: Any,
        others: Params | None,
        batch: Any,
        fixed: Any,
        counted: Bool[Array, " M"] | None,
        num_examples: Any,
        shared: tuple[Any, ...],
    ) -> tuple[Float[Array, ""], Any]:
        result = over_examples(objective, _join(params, others), batch, _join(moving, fixed), shared=shared)
        values, aux = _value_and_aux(result, has_aux=has_aux)
        total = jnp.sum(values if counted is None else jnp.where(counted, values, 0.0))
        return total / num_examples, aux

    # Under jit even inside of a loop, which traces it twice.
    of_chunk = jax.jit(jax.value_and_grad(part_of_mean, argnums=(0, 1), has_aux=True))

    def of_one_of_many(*chunk: Any) -> Any:
        (value, aux), (gradient, moved) = of_chunk(*chunk)
        return (value, jax.tree.map(_wide, gradient)), (moved, aux)

    compiled = jax.jit if dispatch else lambda function: function
    draw_all = compiled(draw_all)
    pull_back = compiled(lambda pull, moved, so_far: _add(so_far, pull(moved)[0]))
    add = jax.jit(lambda so_far, part: jax.tree.map(jnp.add, so_far, part), donate_argnums=0)

    found: dict[Any, tuple[int, list[bool]]] = {}

    def look(*arguments: Any) -> tuple[int, list[bool]]:
        leaves, structure = jax.tree.flatten(arguments)
        shapes = structure, *((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        if shapes not in found:  # calls from Python come with every step
            found[shapes] = _examples_at_once(lambda *given: part_of_mean(*given)[0], *arguments)
        return found[shapes]

    @on_auto_axes
    def value_and_grad(params: Params, batch: Any, key: Any, *shared: Any) -> tuple[Any, Params]:
        num_examples = _length(batch)
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
        if dispatch and any(
            isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, batch, key, shared))
        ):
            raise TypeError(
                "dispatch: True calls compiled chunks from Python and cannot be traced; call it outside of jit, or use "
                "dispatch=False"
            )
        if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim != 0:
            raise ValueError(
                f"key: expected one typed key, which is split into one for each example, got shape {jnp.shape(key)}"
            )
        keys = example_keys(key, num_examples)
        moving, pull, fixed = draw_all(params, batch, keys, shared)
        whole = params, moving, None, batch, fixed, None, num_examples, shared
        at_once = chunk_size or look(*whole)[0]
        chunks = -(-num_examples // at_once)
        at_once = -(-num_examples // chunks)
        padding = chunks * at_once - num_examples
        of_each, counted = (moving, batch, fixed), None
        if padding:
            # The last chunk is filled up with examples that do not count.
            places = jnp.arange(num_examples + padding) % num_examples
            of_each = jax.tree.map(lambda leaf: jnp.asarray(leaf)[places], of_each)
            counted = jnp.arange(num_examples + padding) < num_examples
        if chunks == 1:
            (value, aux), (gradient, moved) = of_chunk(
                params, moving, None, *of_each[1:], counted, num_examples, shared
            )
        else:
            # Each chunk has some of the examples of every device, where their axis lies on several.
            apart = lambda leaf: jnp.reshape(leaf, (at_once, chunks, *jnp.shape(leaf)[1:]))
            together = lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])
            interleaved = jax.tree.map(apart, (*of_each, counted))
            # Chunks need not return the zeros of what only `draw` reads.
            read, others = (params, None) if draw is None else _partition(params, look(*whole)[1])

            def of_number(number: Any) -> Any:
                moving, *chunk = _chunk(interleaved, number)
                return of_one_of_many(read, moving, others, *chunk, num_examples, shared)

            if dispatch:
                total, of_examples = of_number(0)
                parts = [of_examples]
                for number in range(1, chunks):
                    part, of_examples = of_number(number)
                    total = add(total, part)
                    parts.append(of_examples)
                of_examples = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
            else:
                zeros = jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), jax.eval_shape(of_number, 0)[0])

                def add_number(so_far: Any, number: Any) -> Any:
                    part, of_examples = of_number(number)
                    return jax.tree.map(jnp.add, so_far, part), of_examples

                total, of_examples = jax.lax.scan(add_number, zeros, jnp.arange(chunks))
            (value, gradient), (moved, aux) = total, jax.tree.map(together, of_examples)
        moved, aux = jax.tree.map(lambda leaf: leaf[:num_examples], (moved, aux))
        if pull is not None:
            gradient = pull_back(pull, moved, gradient)
        gradient = jax.tree.map(lambda leaf, param: leaf.astype(jnp.result_type(param)), gradient, params)
        return (value, aux) if has_aux else value, gradient

    return value_and_grad


def _value_and_aux(result: Any, *, has_aux: bool) -> tuple[Float[Array, " M"], Any]:
    """The values of some examples, and what the objective returned beside them; or say what is wrong with it."""
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


def _length(batch: Any) -> int:
    for leaf in jax.tree.leaves(batch):
        if not _checks.is_array(leaf):
            raise TypeError(f"batch: expected arrays, got a leaf of type {type(leaf).__name__}")
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) != 1 or lengths <= {None, 0}:
        raise ValueError(
            f"batch: expected arrays with one leading axis of examples, at least one of them, got shapes {shapes}"
        )
    return int(shapes[0][0])


@jax.jit
def _chunk(tree: Any, number: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, number, axis=1, keepdims=False), tree)


def _partition(tree: Any, chosen: list[bool]) -> tuple[Any, Any]:
    """The leaves chosen, and the others, each in the structure of the tree with None elsewhere."""
    leaves, structure = jax.tree.flatten(tree)
    pairs = [(leaf, None) if is_chosen else (None, leaf) for leaf, is_chosen in zip(leaves, chosen, strict=True)]
    first, second = zip(*pairs, strict=True) if pairs else ((), ())
    return jax.tree.unflatten(structure, first), jax.tree.unflatten(structure, second)


def _split(tree: Any) -> tuple[Any, Any]:
    """The leaves that have derivatives, and the others."""
    return _partition(tree, [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(tree)])


def _join(first: Any, second: Any) -> Any:
    """The tree that was partitioned."""
    if first is None or second is None:
        return second if first is None else first
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)


def _add(gradient: Params, more: Params) -> Params:
    """Their sum, where a leaf of the first that is None counts as zero, and the others may be wider."""
    add = lambda a, b: b if a is None else a + b.astype(a.dtype)
    return jax.tree.map(add, gradient, more, is_leaf=lambda leaf: leaf is None)


def _wide(gradient: Any) -> Any:
    """A part of a sum: many of them, added up in bfloat16, would lose what each adds."""
    return _checks.at_least_float32(gradient) if jnp.issubdtype(gradient.dtype, jnp.floating) else gradient


def _examples_at_once(
    function: Callable[..., Any], params: Params, moving: Any, others: None, batch: Any, *given: Any
) -> tuple[int, list[bool]]:
    """How many examples keep no more than they should for the backward pass, and which parameters they read."""
    kept, is_read = kept_for_backward(function, (params, moving), (others, batch, *given))
    of_params = is_read[: len(jax.tree.leaves(params))]
    budget = KEPT_ELSEWHERE
    if jax.default_backend() == "cpu":
        # Each chunk adds a gradient of the size of the parameters to the sum: it should have more to do than that.
        added = sum(bytes_of(leaf) for leaf, read in zip(jax.tree.leaves(params), of_params, strict=True) if read)
        budget = max(KEPT_ON_CPU, 3 * added // 2)
    return max(1, budget * _length(batch) // max(1, kept)), of_params
