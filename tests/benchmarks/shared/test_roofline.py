"""The rates of a machine: FLOPs as the compiler counts them, and quotients by hand, on seconds that are made up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.shared import roofline

WIDTHS = (3, 5, 7, 11)
PRODUCTS = 3 * 5 + 5 * 7 + 7 * 11


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_flops_are_those_that_the_compiler_counts(precision):
    square, decoder = roofline.square_product(7, precision), roofline.decoder_products(WIDTHS, 8, precision)
    for timed in (square, decoder):
        assert timed.flops == timed.program.cost_analysis()["flops"]
    assert (square.flops, decoder.flops) == (2 * 7**3, 3 * 2 * 8 * PRODUCTS)


def test_all_nine_products_are_asked_for():
    """The last one of either pass would be left out by the compiler if nothing were returned of it."""
    timed = roofline.decoder_products(WIDTHS, 8, "float32")
    logits, (kernels, z) = timed.program(*timed.arguments)
    assert [kernel.shape for kernel in kernels] == [(3, 5), (5, 7), (7, 11)]
    assert (logits.shape, z.shape) == ((8, 11), (8, 3))
    given, rows, cotangent = timed.arguments
    matrix = functools.reduce(np.matmul, [np.asarray(kernel) for kernel in given])
    np.testing.assert_allclose(logits, rows @ matrix, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(z, cotangent @ matrix.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "attribute", "kind"),
    [
        ("float32", "{highest,highest}", jnp.float32),
        ("tf32", "{high,high}", jnp.float32),
        ("bfloat16", "", jnp.bfloat16),
    ],
)
def test_a_precision_is_what_its_name_says(precision, attribute, kind):
    timed = roofline.square_product(4, precision)
    assert attribute in timed.program.as_text()
    assert all(argument.dtype == kind for argument in timed.arguments)


@pytest.fixture
def rates(monkeypatch):
    """With a second for each element of the first argument, twice that where there are more than ten rows."""

    def seconds_of(program, arguments, *, seconds):
        assert seconds == 0.25
        assert len(jax.tree.leaves(program(*arguments))) > 0
        first = jax.tree.leaves(arguments[1:] or arguments)[0]
        return first.size * (2.0 if len(jnp.atleast_1d(first)) > 10 else 1.0)

    monkeypatch.setattr(roofline, "seconds_of", seconds_of)
    return roofline.measure(WIDTHS, "float32", rows=(12, 6), sizes=(4, 8), seconds=0.25)


def test_rates_are_flops_over_seconds_of_the_same_program(rates):
    found, references = rates
    assert found.square == {"4": 2 * 4**3 / 16, "8": 2 * 8**3 / 64}
    seconds = {rows: rows * 3 * (2 if rows > 10 else 1) for rows in (12, 6)}  # of z
    assert found.decoder == {str(rows): 6 * rows * PRODUCTS / seconds[rows] for rows in seconds}
    assert references["mlp"].arguments[1].shape == (6, 3)
    assert references["conv"].arguments[0].shape == (8, 8)
    assert found.output_layer == 2 * 6 * 7 * 11 / (7 * 11)  # seconds of the kernel
    large = 4 * 8**2  # numbers of four bytes, all read and written in each pass
    assert found.bytes_per_second == 2 * roofline.PASSES * 4 * large / (2 * large)


def test_microseconds_are_those_of_a_row(rates):
    found, _ = rates
    assert found.microseconds_per_row == {
        "matrix products": pytest.approx(1e6 * 3),
        "likelihood": pytest.approx(1e6 * 2 * 11 / 6),  # the image's eleven pixels are more than ten
        "tanh": pytest.approx(1e6 * (5 + 7)),
        "noise": pytest.approx(1e6 / 6),
    }


def test_seconds_are_the_median_over_rounds_without_the_first_call(clock, monkeypatch):
    monkeypatch.setattr(roofline, "time", clock)
    calls = []

    def program(argument):
        """Slow while it is new, and for a whole round of ten calls."""
        calls.append(argument)
        clock.spend(64.0 if len(calls) == 1 else 8.0 if 12 < len(calls) <= 22 else 0.25)
        return jnp.zeros(())

    assert roofline.seconds_of(program, (3,), seconds=12.5, rounds=5) == 0.25
    assert calls == [3] * (1 + 1 + 5 * 10)


@pytest.mark.parametrize(("seconds", "expected"), [(0.1, 1), (1.0, 4), (1.1, 5), (1e6, roofline.LONGEST_ROUND)])
def test_a_round_lasts_as_long_as_it_should(clock, monkeypatch, seconds, expected):
    monkeypatch.setattr(roofline, "time", clock)
    assert roofline.calls_in(lambda: clock.spend(0.25), (), seconds) == expected


def test_sizes_that_do_not_fit_into_memory_are_left_out(monkeypatch):
    def make(size):
        if size > 100:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
        return size

    monkeypatch.setattr(roofline, "rate", lambda program, seconds: program / seconds)
    assert roofline.fitting(make, (10, 1_000, 20), 2.0) == ({10: 10, 20: 20}, {10: 5.0, 20: 10.0})
    with pytest.raises(jax.errors.JaxRuntimeError):
        roofline.fitting(make, (1_000, 10), 2.0)
