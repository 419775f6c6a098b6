"""The best rates of this machine: of matrix products, of memory, and of the other parts of a step."""

import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hiwae_jax import nn

# The JAX precision for each name in the tables. On NVIDIA GPUs the JAX precision "bfloat16" computes in TensorFloat-32;
# only arrays of that type are multiplied in bfloat16.
CONTEXTS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "tensorfloat32"}
TYPES = {"float32": jnp.float32, "tf32": jnp.float32, "bfloat16": jnp.bfloat16}
LONGEST_ROUND = 1_000  # calls
PASSES = 16  # how often one call goes through memory


class Timed(NamedTuple):
    """A compiled program, what it is called with, and the FLOPs of its matrix products."""

    program: Callable[..., Any]
    arguments: tuple[Any, ...]
    flops: float


class Rates(NamedTuple):
    """The rates of one precision.

    Attributes:
      square: FLOP/s of products of square matrices, by their size.
      decoder: FLOP/s of the nine products of the decoder's forward and backward pass alone, by rows.
      output_layer: FLOP/s of its last layer's product at the rows that are fastest in `decoder`.
      bytes_per_second: of adding one to a large array, read and written.
      microseconds_per_row: of the products, and of what else a sample needs: the likelihood of its pixels and the tanh
        units, forward and backward, and its noise.
    """

    square: dict[str, float]
    decoder: dict[str, float]
    output_layer: float
    bytes_per_second: float
    microseconds_per_row: dict[str, float]


def wait(program: Callable[..., Any], arguments: tuple[Any, ...], calls: int) -> float:
    """The mean seconds of a call, of several calls in a row."""
    one_by_one = jax.default_backend() == "cpu"  # there, calls that are not waited for run side by side
    began = time.perf_counter()
    result = None
    for _ in range(calls):
        result = program(*arguments)
        if one_by_one:
            jax.block_until_ready(result)
    jax.block_until_ready(result)
    return (time.perf_counter() - began) / calls


def calls_in(program: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> int:
    """The number of calls that take so many seconds, at least one. The program has to have run once before."""
    return max(1, min(LONGEST_ROUND, math.ceil(seconds / wait(program, arguments, 1))))


def seconds_of(program: Callable[..., Any], arguments: tuple[Any, ...], *, seconds: float, rounds: int = 5) -> float:
    """Median over rounds of the seconds a call takes, after one call that is not timed."""
    wait(program, arguments, 1)
    calls = calls_in(program, arguments, seconds / rounds)
    return statistics.median(wait(program, arguments, calls) for _ in range(rounds))


def compiled(function: Callable[..., Any], arguments: tuple[Any, ...], precision: str) -> Any:
    """The function compiled for these arguments, with the matrix products of this precision."""
    with jax.default_matmul_precision(CONTEXTS[precision]):
        return jax.jit(function).lower(*arguments).compile()


def decoder_products(widths: tuple[int, ...], rows: int, precision: str, *, of_input: bool = True) -> Timed:
    """The matrix products of an MLP's forward and backward pass, with nothing between them.

    Without `of_input` there is no gradient of the input, as of the images that an encoder reads.
    """
    kind, key = TYPES[precision], jax.random.key(0)
    kernels = [
        jax.random.normal(jax.random.fold_in(key, i), shape, kind) / math.sqrt(shape[0])
        for i, shape in enumerate(itertools.pairwise(widths))
    ]
    z, cotangent = (jax.random.normal(key, (rows, width), kind) for width in (widths[0], widths[-1]))

    def products(kernels, z, cotangent):
        def chain(kernels, z):
            for kernel in kernels:
                z = z @ kernel
            return z

        logits, pull = jax.vjp(chain, kernels, z) if of_input else jax.vjp(lambda kernels: chain(kernels, z), kernels)
        return logits, pull(cotangent)

    flops = 3 * 2 * rows * sum(m * n for m, n in itertools.pairwise(widths))
    flops -= 0 if of_input else 2 * rows * widths[0] * widths[1]
    arguments = (kernels, z, cotangent)
    return Timed(compiled(products, arguments, precision), arguments, flops)


def square_product(size: int, precision: str) -> Timed:
    """The product of two square matrices."""
    arguments = (jax.random.normal(jax.random.key(0), (size, size), TYPES[precision]),) * 2
    return Timed(compiled(jnp.matmul, arguments, precision), arguments, 2.0 * size**3)


def rate(timed: Timed, seconds: float) -> float:
    """The FLOP/s of a program."""
    return timed.flops / seconds_of(timed.program, timed.arguments, seconds=seconds)


def measure(
    widths: tuple[int, ...], precision: str, *, rows: tuple[int, ...], sizes: tuple[int, ...], seconds: float
) -> tuple[Rates, dict[str, Timed]]:
    """The rates, and the fastest products of each kind: "mlp", the decoder's own shapes, and "conv", square ones."""
    squares, square = fitting(lambda size: square_product(size, precision), sizes, seconds)
    decoders, decoder = fitting(lambda n: decoder_products(widths, n, precision), rows, seconds)
    fastest, largest = max(decoder, key=decoder.__getitem__), max(square, key=square.__getitem__)
    per_row = {"matrix products": 1e6 * decoders[fastest].flops / fastest / decoder[fastest]}
    for name, (function, arguments) in other_parts(widths, fastest, precision).items():
        program = compiled(function, arguments, precision)
        per_row[name] = 1e6 * seconds_of(program, arguments, seconds=seconds) / fastest
    rates = Rates(
        square={f"{size:,}": value for size, value in square.items()},
        decoder={f"{n:,}": value for n, value in decoder.items()},
        output_layer=rate(output_product(widths, fastest, precision), seconds),
        bytes_per_second=memory_rate(max(squares) ** 2 * 4, precision, seconds),
        microseconds_per_row=per_row,
    )
    return rates, {"mlp": decoders[fastest], "conv": squares[largest]}


def fitting(
    make: Callable[[int], Timed], sizes: tuple[int, ...], seconds: float
) -> tuple[dict[int, Timed], dict[int, float]]:
    """Programs and their rates by size. Sizes for which the device has too little memory are left out.

    Raises:
      jax.errors.JaxRuntimeError: not even the first size can run.
    """
    programs, rates = {}, {}
    for size in sizes:
        try:
            program = make(size)
            rates[size] = rate(program, seconds)
        except jax.errors.JaxRuntimeError:
            if not rates:
                raise
            continue
        programs[size] = program
    return programs, rates


def output_product(widths: tuple[int, ...], rows: int, precision: str) -> Timed:
    """The product of the decoder's last layer."""
    kind, key = TYPES[precision], jax.random.key(1)
    hidden, pixels = widths[-2:]
    arguments = jax.random.normal(key, (rows, hidden), kind), jax.random.normal(key, (hidden, pixels), kind)
    return Timed(compiled(jnp.matmul, arguments, precision), arguments, 2.0 * rows * hidden * pixels)


def other_parts(
    widths: tuple[int, ...], rows: int, precision: str
) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """What a sample needs beside the matrix products, as functions with their arguments."""
    kind, key = TYPES[precision], jax.random.key(1)
    units = jax.random.normal(key, (rows, sum(widths[1:-1])), kind)
    logits = jax.random.normal(key, (rows, widths[-1]), kind)
    image = jax.random.bernoulli(key, 0.3, (widths[-1],)).astype(jnp.float32)

    def likelihood(logits, x):
        return jnp.sum(jax.vmap(nn.bernoulli_log_prob, (0, None))(logits, x))

    def activations(units, cotangent):
        value, pull = jax.vjp(jnp.tanh, units)
        return value, pull(cotangent)

    return {
        "likelihood": (jax.value_and_grad(likelihood), (logits, image)),
        "tanh": (activations, (units, units)),
        "noise": (lambda key: jax.random.normal(key, (rows, widths[0])), (key,)),
    }


def memory_rate(numbers: int, precision: str, seconds: float) -> float:
    """Bytes a second of adding one to an array of so many numbers, read and written."""
    large = jnp.zeros(numbers)

    def add(array):
        # The loop works in place after its first turn. A new array would first have to get its pages.
        return jax.lax.fori_loop(0, PASSES, lambda _, array: array + 1.0, array)

    adding = compiled(add, (large,), precision)
    return 2 * PASSES * large.nbytes / seconds_of(adding, (large,), seconds=seconds)
