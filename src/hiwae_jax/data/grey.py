"""A set of grey images in memory, and its dynamic binarization."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8


class GreyDataset(NamedTuple):
    """Three splits of grey images, each one array of levels 0 to 255, a byte a pixel (see `binarize`).

    `prod(shape)` is the number of pixels P.

    Attributes:
        train: uint8 [N_train, P].
        validation: uint8 [N_validation, P].
        test: uint8 [N_test, P].
        shape: height and width of an image; pixels run row by row.
        name: the set's name, for file names and tables.
        checksum: sha256 (hex) over the bytes of train, validation and test in this order. Put it into result
            files: equal checksums mean equal data.
    """

    train: UInt8[np.ndarray, "train pixels"]
    validation: UInt8[np.ndarray, "validation pixels"]
    test: UInt8[np.ndarray, "test pixels"]
    shape: tuple[int, int]
    name: str
    checksum: str


def binarize(key: PRNGKeyArray, levels: UInt8[Array | np.ndarray, "... pixels"]) -> Float[Array, "... pixels"]:
    """Draws binary images from grey ones on the device, under `jit` and `vmap` as well.

    Each pixel is 1 with probability level / 255, independently of all others: never at level 0, always at
    level 255. Dynamic binarization draws each batch anew, with a key of its own; an evaluation that is to be
    repeated keeps the key. The probability is exact to 2^-23, the step of uniform float32 numbers.

    Args:
        key: used once.
        levels: uint8 [..., P].

    Returns:
        float32 [..., P] of 0 and 1.

    Raises:
        ValueError: levels is not uint8.

    Source: Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks", ICML 2008; drawn
    anew for each batch in Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.

    >>> binarize(jax.random.key(0), np.array([[0, 255, 255, 0]], np.uint8))
    Array([[0., 1., 1., 0.]], dtype=float32)
    """
    if levels.dtype != jnp.uint8:
        raise ValueError(f"binarize expects grey levels 0 to 255 as uint8 [..., P], got {levels.dtype}")
    # Levels are not divided by 255: compilers may multiply by 1 / 255, and then level 255 might not always give 1.
    return (255 * jax.random.uniform(key, levels.shape, jnp.float32) < jnp.asarray(levels, jnp.float32)).astype(
        jnp.float32
    )
