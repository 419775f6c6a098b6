"""3x3 convolutions of one image, in the forms that compile to fast code wherever they are used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Image = Float[Array, "H W I"]
Kernel = Float[Array, "3 3 I O"]
Convolved = Float[Array, "H2 W2 O"]

# Channels from which, on a CPU, a product for each row of pixels is faster than one with all rows side by side.
_MANY = 8


def convolve(x: Float[Array, "H W I"], kernel: Float[Array, "3 3 I O"], *, stride: int = 1) -> Float[Array, "H2 W2 O"]:
    """Convolve with zero padding of one pixel; a stride of 2 halves the image, rounding up."""
    # Accelerators have code of their own for the derivatives as JAX spells them. The choice is made while tracing.
    # Where it is wrong the program is only slower. A program with both branches would take longer to compile
    # everywhere.
    if jax.default_backend() != "cpu":
        y = _spelled(x, kernel, stride, "NHWC", "HWIO", "NHWC")
    elif kernel.shape[2:] == (1, 1) and stride == 1:
        y = _of_one_channel(x, kernel)
    else:
        y = _convolve(x, kernel, stride)
    convolved: jax.Array = y
    return convolved


def _spelled(x: Image, kernel: Kernel, stride: int, lhs: str, rhs: str, out: str) -> Convolved:
    """The same convolution, its operands and its result transposed to the dimension labels given and back."""

    def order(have: str, want: str) -> tuple[int, ...]:
        return tuple(have.index(label) for label in want)

    y = jax.lax.conv_general_dilated(
        x[None].transpose(order("NHWC", lhs)),
        kernel.transpose(order("HWIO", rhs)),
        window_strides=(stride, stride),
        padding=((1, 1), (1, 1)),
        dimension_numbers=(lhs, rhs, out),
    )
    return y.transpose(order(out, "NHWC"))[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _convolve(x: Image, kernel: Kernel, stride: int) -> Convolved:
    """A convolution whose derivatives are spelled for CPUs.

    XLA's CPU compiler has fast code for the labels NHWC, HWIO, NHWC. It brings others into this form at the top of a
    program, but inside of a loop it falls back on plain nested ones, which take tens of times as long. The tangents
    below are spelled so that their transposes, the convolutions of the backward pass, have the fast labels.
    """
    return _spelled(x, kernel, stride, "NHWC", "HWIO", "NHWC")


def _convolve_jvp(
    stride: int, primals: tuple[Image, Kernel], tangents: tuple[Image | SymbolicZero, Kernel | SymbolicZero]
) -> tuple[Convolved, Convolved]:
    x, kernel = primals
    y = _convolve(x, kernel, stride)
    along = []
    if not isinstance(tangents[0], SymbolicZero):
        along.append(_spelled(tangents[0], kernel, stride, "NHWC", "HWOI", "NHWC"))
    if not isinstance(tangents[1], SymbolicZero):
        along.append(_spelled(x, tangents[1], stride, "CHWN", "IHWO", "HWNC"))
    return y, functools.reduce(jnp.add, along) if along else jnp.zeros_like(y)


_convolve.defjvp(_convolve_jvp, symbolic_zeros=True)


def _of_one_channel(x: Float[Array, "H W 1"], kernel: Float[Array, "3 3 1 1"]) -> Float[Array, "H W 1"]:
    """The convolution of one channel in and one out: a product with the kernel's rows as banded matrices.

    There are no channels to multiply.
    """
    height, width, _ = x.shape
    bands = jnp.einsum("bjw,ab->awj", _shifted(np.eye(width), x.dtype), kernel[:, :, 0, 0])
    rows = jnp.pad(jnp.einsum("hw,awj->haj", x[:, :, 0], bands), ((1, 1), (0, 0), (0, 0)))
    return sum(rows[tap : tap + height, tap] for tap in range(3))[:, :, None]  # type: ignore[index]  # three arrays


def convolve_doubled(x: Float[Array, "H W I"], kernel: Float[Array, "3 3 I O"]) -> Float[Array, "2*H 2*W O"]:
    """Double the image by bilinear interpolation, then `convolve`; the doubled image is never formed.

    Mixing channels and moving pixels commute. So the nine taps of the kernel mix the channels of the small image, which
    has a quarter of the pixels. Two fixed matrices, one for each direction, then double and shift the taps' images and
    add them up. This takes less than half of the arithmetic for the decoder's channels, and matrix products alone.
    """
    doubled = _doubled_on_cpu if jax.default_backend() == "cpu" else _doubled_by_contraction
    y: jax.Array = doubled(x, kernel)
    return y


def _doubled_by_contraction(x: Image, kernel: Kernel) -> Float[Array, "2*H 2*W O"]:
    """`convolve_doubled` as three contractions."""
    height, width, _ = x.shape
    taps = jnp.einsum("hwi,abio->ahbwo", x, kernel)
    rows = jnp.einsum("bjw,ahbwo->ahjo", _shifted(_doubled(width), x.dtype), taps)
    return jnp.einsum("akh,ahjo->kjo", _shifted(_doubled(height), x.dtype), rows)


def _doubled_on_cpu(x: Image, kernel: Kernel) -> Float[Array, "2*H 2*W O"]:
    """`convolve_doubled`, spelled so that an image's numbers are transposed once instead of at each product."""
    height, width, _ = x.shape
    channels = kernel.shape[3]

    def along(size: int) -> Float[Array, "2*size 3*size"]:
        return _shifted(_doubled(size), x.dtype).transpose(1, 2, 0).reshape(2 * size, 3 * size)

    across, down = along(width), along(height)
    taps = jnp.einsum("hwi,ibao->hwbao", x, kernel.transpose(2, 1, 0, 3)).reshape(height, width * 3, 3 * channels)
    if channels >= _MANY:
        wide = jnp.broadcast_to(_one_for_each(across, x), (height, *across.shape)) @ taps
    else:
        wide = jnp.einsum("jm,hmn->hjn", across, taps)
    rows = wide.reshape(height, 2 * width, 3, channels).transpose(0, 2, 1, 3).reshape(height * 3, -1)
    return (_one_for_each(down, x) @ rows).reshape(2 * height, 2 * width, channels)


def _one_for_each(matrix: Float[Array, "M N"], x: Image) -> Float[Array, "M N"]:
    """`matrix`, which `vmap` takes for a function of `x`.

    XLA's CPU compiler turns the products of one matrix with many images into a single product with all images side by
    side, and copies the images there and back. With a matrix for each image, though all are equal, it multiplies the
    images where they lie. A zero that is made from `x` is added: the compiler knows that it is zero, `vmap` does not.
    """
    return matrix + (x.ravel()[0].astype(jnp.int32) * 0).astype(matrix.dtype)


def _doubled(size: int) -> Float[np.ndarray, "2*size size"]:
    """The matrix [2 * size, size] of linear interpolation; each new pixel lies a quarter from the nearest old one."""
    matrix = np.zeros((2 * size, size))
    for i in range(size):
        matrix[2 * i : 2 * i + 2, i] += 0.75
        matrix[2 * i, max(i - 1, 0)] += 0.25
        matrix[2 * i + 1, min(i + 1, size - 1)] += 0.25
    return matrix


def _shifted(matrix: Float[np.ndarray, "M N"], dtype: DTypeLike) -> Float[Array, "3 M N"]:
    """The rows that each of the three taps reads: one before, the same, one after; zero beyond the ends."""
    padded = np.pad(matrix, ((1, 1), (0, 0)))
    return jnp.asarray(np.stack([padded[tap : tap + len(matrix)] for tap in range(3)]), dtype)
