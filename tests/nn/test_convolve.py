"""Convolutions against JAX's own, with all their derivatives, and spelled so that loops on a CPU stay fast."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hiwae_jax.nn._convolve import _doubled_by_contraction, _doubled_on_cpu, convolve, convolve_doubled
from hiwae_jax.nn._elu import elu

CASES = {
    "plain": ((7, 5, 3), (3, 3, 3, 2), 1),
    "odd, in two": ((7, 7, 3), (3, 3, 3, 4), 2),
    "even, in two": ((8, 6, 1), (3, 3, 1, 4), 2),
    "one channel": ((6, 7, 1), (3, 3, 1, 1), 1),
}


def reference(x: Any, kernel: Any, stride: int = 1) -> Any:
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def reference_doubled(x: Any, kernel: Any) -> Any:
    height, width, channels = x.shape
    return reference(jax.image.resize(x, (2 * height, 2 * width, channels), "bilinear"), kernel)


def draw(*shapes: tuple[int, ...]) -> list[Any]:
    generator = np.random.default_rng(0)
    return [jnp.asarray(generator.standard_normal(shape), jnp.float32) for shape in shapes]


def everything(function: Callable[[Any, Any], Any], x: Any, kernel: Any, dx: Any, dkernel: Any) -> Any:
    """Value, tangent, gradient, and the tangent of the gradient."""
    loss = lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel)))
    gradient = jax.grad(loss, argnums=(0, 1))
    return (
        jax.jvp(function, (x, kernel), (dx, dkernel)),
        jax.jvp(gradient, (x, kernel), (dx, dkernel)),
        jax.grad(loss, argnums=1)(x, kernel),
    )


def assert_equal(got: Any, wanted: Any) -> None:
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4), got, wanted)


@pytest.mark.parametrize("case", CASES)
def test_convolve_is_the_convolution(case: str) -> None:
    x_shape, kernel_shape, stride = CASES[case]
    arguments = draw(x_shape, kernel_shape, x_shape, kernel_shape)
    ours = jax.jit(lambda *a: everything(lambda x, k: convolve(x, k, stride=stride), *a))(*arguments)
    assert_equal(ours, jax.jit(lambda *a: everything(lambda x, k: reference(x, k, stride), *a))(*arguments))


@pytest.mark.parametrize("spelled", [_doubled_by_contraction, _doubled_on_cpu])
@pytest.mark.parametrize(("shape", "channels"), [((4, 4, 3), 2), ((7, 5, 2), 9)])
def test_convolve_doubled_is_the_convolution_of_the_doubled_image(
    shape: tuple[int, ...], channels: int, spelled: Callable[[Any, Any], Any]
) -> None:
    kernel = (3, 3, shape[-1], channels)
    arguments = draw(shape, kernel, shape, kernel)
    ours, wanted = jax.jit(lambda *a: (everything(spelled, *a), everything(reference_doubled, *a)))(*arguments)
    assert_equal(ours, wanted)


@pytest.mark.parametrize("side", [4, 7])
def test_doubling_is_linear_interpolation_between_pixel_centres(side: int) -> None:
    image = np.random.default_rng(0).standard_normal((side, side, 2)).astype(np.float32)
    # Half the pixel size moves the centres by a quarter; beyond the outer centres the edge is repeated.
    wanted = (np.arange(2 * side) + 0.5) / 2 - 0.5
    expected = image
    for axis in (0, 1):
        expected = np.apply_along_axis(lambda row: np.interp(wanted, np.arange(side), row), axis, expected)
    middle = jnp.zeros((3, 3, 2, 2)).at[1, 1].set(jnp.eye(2))
    np.testing.assert_allclose(convolve_doubled(jnp.asarray(image), middle), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (convolve, reference),
        (_doubled_by_contraction, reference_doubled),
        (_doubled_on_cpu, reference_doubled),
    ],
)
def test_batches_of_images_and_of_kernels(
    function: Callable[[Any, Any], Any], wanted: Callable[[Any, Any], Any]
) -> None:
    """One kernel for each seed, many images for each."""
    x, kernel = draw((2, 3, 6, 6, 2), (2, 3, 3, 2, 8))

    def gradient(function: Callable[[Any, Any], Any]) -> Any:
        over_images = jax.vmap(function, in_axes=(0, None))
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(jax.vmap(over_images)(x, k))), argnums=(0, 1))(x, kernel)

    assert_equal(*jax.jit(lambda: (gradient(function), gradient(wanted)))())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the spelling is for CPUs")
def test_doubled_images_are_multiplied_where_they_lie() -> None:
    """A product of one matrix with every image would be one of a copy with all images side by side."""
    images, kernel = draw((40, 6, 6, 4), (3, 3, 4, 8))

    def cost(function: Callable[[Any, Any], Any]) -> tuple[float, int]:
        loss = lambda images, kernel: jnp.sum(jax.vmap(function, in_axes=(0, None))(images, kernel) ** 2)
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(images, kernel).compile()
        return compiled.cost_analysis()["bytes accessed"], compiled.memory_analysis().temp_size_in_bytes

    (moved, kept), (moved_by_contraction, kept_by_contraction) = map(cost, (_doubled_on_cpu, _doubled_by_contraction))
    assert moved < 0.9 * moved_by_contraction
    assert kept < 0.8 * kept_by_contraction


def test_an_image_that_is_not_a_number_spoils_no_other() -> None:
    images, kernel = draw((2, 4, 4, 3), (3, 3, 3, 8))
    both = jax.vmap(_doubled_on_cpu, in_axes=(0, None))(images.at[0, 0, 0, 0].set(jnp.nan), kernel)
    np.testing.assert_allclose(both[1], reference_doubled(images[1], kernel), rtol=1e-4, atol=1e-4)


def test_narrow_floats_stay_narrow() -> None:
    x, kernel = (array.astype(jnp.bfloat16) for array in draw((4, 4, 2), (3, 3, 2, 3)))
    for function in (convolve, convolve_doubled):
        y, gradient = jax.eval_shape(
            lambda x, k, f=function: (f(x, k), jax.grad(lambda k: f(x, k).sum())(k)), x, kernel
        )
        assert y.dtype == gradient.dtype == jnp.bfloat16


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the spelling is for CPUs")
@pytest.mark.parametrize("stride", [1, 2])
def test_a_backward_pass_has_the_labels_that_are_fast_in_loops(stride: int) -> None:
    images, kernel = draw((5, 8, 8, 2), (3, 3, 2, 4))

    def loss(images: Any, kernel: Any) -> Any:
        return jnp.sum(jax.vmap(lambda x: convolve(x, kernel, stride=stride))(images) ** 2)

    jaxpr = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(images, kernel))
    labels = re.findall(r"dimension_numbers=(ConvDimensionNumbers\(.*?\)\))", jaxpr, re.DOTALL)
    fast = jax.lax.conv_dimension_numbers((1, 8, 8, 2), (3, 3, 2, 4), ("NHWC", "HWIO", "NHWC"))
    assert [re.sub(r"\s+", " ", found) for found in labels] == [str(fast)] * 3


def test_elu_has_all_derivatives_of_jax_elu() -> None:
    x = jnp.array([-200.0, -2.0, -1e-9, 0.0, 1e-9, 3.0])
    for function in (lambda f: f, jax.grad, lambda f: jax.grad(jax.grad(f))):
        ours, theirs = (jax.vmap(function(one))(x) for one in (elu, jax.nn.elu))
        np.testing.assert_array_max_ulp(ours, theirs, maxulp=2)
