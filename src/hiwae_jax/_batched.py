"""Value and gradient of a minibatch, as many examples at once as the machine likes."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hiwae_jax import _checks
from hiwae_jax._proposal import Params

# What the backward pass may keep at once. On a CPU small arrays are the fast ones: they stay in the cache, and the
# allocator hands them out again, where large ones are returned to the system and cleared anew at every step.
# Elsewhere they have to fit, no more.
KEPT_ON_CPU = 6 * 2**20
KEPT_ELSEWHERE = 4 * 2**30


def batched_value_and_grad(
    objective: Callable[..., Float[Array, ""]],
    *,
    chunk_size: int | None = None,
    dispatch: bool = False,
    spmd_axis_name: str | None = None,
) -> Callable[..., tuple[Float[Array, ""], Params]]:
    """The mean over a minibatch of a function of one example, and its gradient, a few examples at a time.

    Examples do not know of one another, so the gradient is a sum over chunks of them, exactly: no more than one chunk
    is in memory, and on a CPU small chunks are faster than everything at once.

    Args:
      objective: `(params, x, key, *shared) -> scalar`, of one example: a bound, its negative, an annealed objective.
      chunk_size: how many examples are evaluated at once; made smaller where the batch then divides more evenly. At
        least the batch size for all of them. None chooses it when traced, from the bytes that the backward pass keeps
        for each example: 6 MiB on a CPU, or one and a half times the parameters if that is more, and 4 GiB elsewhere.
        Where a single example keeps more, give `make_bound` a `chunk_size` of samples as well.
      dispatch: False for a loop inside of the caller's program. True compiles the chunk alone and calls it from Python
        for each chunk: for models that are slow inside of compiled loops, as most convolutions are on a CPU (those of
        `hiwae_jax.nn` are not). Not to be called under jit.
      spmd_axis_name: of `jax.vmap` over examples: the axis of a mesh over which the batch lies, if any.

    Returns:
      `value_and_grad(params, batch, key, *shared) -> (mean, gradient)`: `batch` is an array or pytree with a leading
      axis of examples, `key` one typed key that is split into one for each, and the gradient has the structure of
      `params`. Every chunk size gives the same numbers, up to rounding.

    Raises:
      ValueError: if `chunk_size` is less than 1, and when called, for a batch without examples or with leaves of
        unequal length, or more than one key.
      TypeError: if `objective` is no function; when called, for a key that is not typed, or under jit with `dispatch`.

    >>> import hiwae_jax as hj
    >>> proposal = hj.independent(lambda params, x: (params * x, jnp.ones_like(x)), num_samples=8)
    >>> bound = hj.make_bound(lambda params, x, z: -0.5 * jnp.sum((x - z) ** 2 + z**2), proposal)
    >>> step = jax.jit(hj.batched_value_and_grad(bound, chunk_size=16))
    >>> value, gradient = step(jnp.float32(0.5), jnp.ones((64, 2)), jax.random.key(0))
    >>> value.shape, gradient.shape
    ((), ())
    """
    if not callable(objective):
        got = type(objective).__name__
        raise TypeError(f"objective: expected a function (params, x, key) -> scalar of one example, got {got}")
    if chunk_size is not None:
        chunk_size = _checks.positive_integer("chunk_size", chunk_size)

    def total(
        params: Params, batch: Any, key_data: Any, counted: Bool[Array, " M"] | None, like: Any, *shared: Any
    ) -> Float[Array, ""]:
        keys = jax.random.wrap_key_data(key_data, impl=jax.random.key_impl(like))
        axes = (None, 0, 0, *[None] * len(shared))
        values = jax.vmap(objective, in_axes=axes, spmd_axis_name=spmd_axis_name)(params, batch, keys, *shared)
        return jnp.sum(values if counted is None else jnp.where(counted, values, 0.0))

    of_chunk = jax.value_and_grad(total)
    dispatched = jax.jit(of_chunk)
    add = jax.jit(lambda so_far, part: jax.tree.map(jnp.add, so_far, part), donate_argnums=0)

    sizes: dict[Any, int] = {}

    def chosen_size(*arguments: Any) -> int:
        leaves, structure = jax.tree.flatten(arguments)
        shapes = structure, *((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        if shapes not in sizes:  # calls from Python come with every step
            sizes[shapes] = max(1, _kept_budget(arguments[0]) // _kept_by_example(total, *arguments))
        return sizes[shapes]

    def value_and_grad(params: Params, batch: Any, key: Any, *shared: Any) -> tuple[Float[Array, ""], Params]:
        num_examples = _length(batch)
        if dispatch and any(
            isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, batch, key, shared))
        ):
            raise TypeError(
                "dispatch: True calls compiled chunks from Python and cannot be traced; call it outside of jit, or use "
                "dispatch=False"
            )
        if jnp.ndim(key) != 0:
            raise ValueError(
                f"key: expected one typed key, which is split into one for each example, got shape {jnp.shape(key)}"
            )
        key_data = jax.random.key_data(jax.random.split(_checks.one_key(key), num_examples))
        at_once = chunk_size or chosen_size(params, batch, key_data, key, *shared)
        chunks = -(-num_examples // at_once)
        at_once = -(-num_examples // chunks)
        padding = chunks * at_once - num_examples
        counted = None
        if padding:
            # The last chunk is filled up with examples that do not count.
            places = jnp.arange(num_examples + padding) % num_examples
            batch, key_data = jax.tree.map(lambda leaf: jnp.asarray(leaf)[places], (batch, key_data))
            counted = jnp.arange(num_examples + padding) < num_examples
        arguments = (batch, key_data, counted)
        if dispatch:
            value, gradient = dispatched(params, *_every(chunks, 0, arguments), key, *shared)
            for first in range(1, chunks):
                part = dispatched(params, *_every(chunks, first, arguments), key, *shared)
                value, gradient = add((value, gradient), part)
        elif chunks == 1:
            value, gradient = of_chunk(params, *arguments, key, *shared)
        else:
            from optax.microbatching import microbatch  # takes longer to import than all the rest

            value, gradient = microbatch(of_chunk, (1, 2, 3), at_once)(params, *arguments, key, *shared)
        mean: tuple[jax.Array, Params] = jax.tree.map(lambda leaf: leaf / num_examples, (value, gradient))
        return mean

    return value_and_grad


def _length(batch: Any) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) != 1 or lengths <= {None, 0}:
        raise ValueError(
            f"batch: expected arrays with one leading axis of examples, at least one of them, got shapes {shapes}"
        )
    return int(shapes[0][0])


def _every(step: int, first: int, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[first::step], tree)


def _kept_budget(params: Params) -> int:
    if jax.default_backend() != "cpu":
        return KEPT_ELSEWHERE
    # Each chunk adds a gradient of the size of the parameters to the sum: it should have more to do than that.
    return max(KEPT_ON_CPU, 3 * _bytes(params) // 2)


def _bytes(tree: Any) -> int:
    return sum(math.prod(jnp.shape(leaf)) * jnp.result_type(leaf).itemsize for leaf in jax.tree.leaves(tree))


def _kept_by_example(total: Callable[..., Any], params: Params, batch: Any, key_data: Any, *rest: Any) -> int:
    """Bytes that the backward pass keeps for each example; found without evaluating anything."""

    def backward(params: Params, batch: Any, key_data: Any) -> Any:
        return jax.vjp(lambda params: total(params, batch, key_data, None, *rest), params)[1]

    kept = _bytes(jax.eval_shape(backward, params, batch, key_data)) - _bytes(params)
    return max(1, kept // _length(batch))
