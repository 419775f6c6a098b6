"""The examples of a minibatch in chunks, and sums over chunks."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hiwae_jax._types import Params, PerExample, Tree


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
    shared: tuple[object, ...]


class Total(NamedTuple):
    """What is added up over chunks."""

    value: Float[Array, ""]
    gradient: Params


class OfExamples(NamedTuple):
    """What is returned for each example: the gradient in `Drawn.moving`, and `aux`."""

    moved: PerExample
    aux: PerExample


OfIndex = Callable[[int | Int[Array, ""]], tuple[Total, OfExamples]]  # what a chunk gives, by the index of the chunk


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


def interleave(plan: ChunkPlan, of_each: PerExample) -> tuple[PerExample, Bool[Array, "M chunks"] | None]:
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
def chunk_at(interleaved: Tree, index: int | Int[Array, ""]) -> Tree:
    """One of the chunks of `interleave`."""
    at_index = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, axis=1, keepdims=False)
    chunk: Tree = jax.tree.map(at_index, interleaved)
    return chunk


def sum_in_a_loop(of_index: OfIndex, chunks: int) -> tuple[Total, OfExamples]:
    """The sum over chunks, and what each gave for its examples, stacked; in a loop inside of the caller's program."""
    shapes, _ = jax.eval_shape(of_index, 0)
    zeros = jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), shapes)

    def add_chunk(so_far: Total, index: Int[Array, ""]) -> tuple[Total, OfExamples]:
        part, of_examples = of_index(index)
        return jax.tree.map(jnp.add, so_far, part), of_examples

    return jax.lax.scan(add_chunk, zeros, jnp.arange(chunks))


def sum_dispatched(of_index: OfIndex, chunks: int) -> tuple[Total, OfExamples]:
    """The same as `sum_in_a_loop`; each chunk is a compiled program that is called from Python."""
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
