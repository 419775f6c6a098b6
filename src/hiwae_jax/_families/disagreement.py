"""A map tried at some points, and how far apart two numbers may be that should agree.

What is allowed is what rounding may do, and generous tolerances on top of it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._types import Leaf

Given = TypeVar("Given")  # what a map depends on besides the point
# Compiles without optimization: for a program that runs once, optimization takes longer than it gains.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
_PATTERNS = 4
RELATIVE = 1e-3  # far above rounding in float32, far below an error that would matter


class Trial(NamedTuple):
    """A map at N points, in float64, with what rounding may do to its inverse there.

    Attributes:
      at: the points e [N, D].
      image: `forward(e)` [N, D'], D' >= D.
      log_det: `log|det|` of the derivative of the first D entries [N].
      rounding: how far rounding of the image and of the parameters may move the point that it came from [N, D].
      reach: how far the image moves when the point moves by its tolerance [N, D'].
    """

    at: Float[np.ndarray, "N D"]
    image: Float[np.ndarray, "N D2"]
    log_det: Float[np.ndarray, " N"]
    rounding: Float[np.ndarray, "N D"]
    reach: Float[np.ndarray, "N D2"]

    @property
    def tolerance(self) -> Float[np.ndarray, "N D"]:
        """How far a point that comes back may be from where it was [N, D]."""
        tolerance: np.ndarray = RELATIVE * (1.0 + np.abs(self.at)) + self.rounding
        return tolerance


def try_map(name: str, forward: Callable[[Given, Array], Array], arrays: Given, points: Float[Array, "N D"]) -> Trial:
    """`forward(arrays, point)` at every point with its derivative; raise if they are not those of an invertible map.

    Args:
      name: what the user calls `forward`.
      forward: `(arrays, point [D]) -> [D']`, D' >= D.
      arrays: a pytree of what else it depends on, such as parameters.
      points: [N, D].
    """
    found = _evaluated(forward, arrays, points)
    at, D = np.asarray(points, np.float64), points.shape[1]
    for point, image in zip(at, found.image, strict=True):
        if not np.all(np.isfinite(image)):
            raise ValueError(f"{name}: expected finite numbers at {shown(point)}, got {shown(image)}")
    with np.errstate(divide="ignore"):
        log_det = np.linalg.slogdet(found.jacobian[:, :D])[1]
    broken = np.flatnonzero(~np.isfinite(log_det))
    if len(broken):
        raise ValueError(
            f"{name}: expected an invertible derivative at {shown(at[broken[0]])}, got log|det| = {log_det[broken[0]]}"
        )
    eps = float(np.finfo(points.dtype).eps)
    reach = np.einsum("nij,nj->ni", np.abs(found.jacobian), RELATIVE * (1.0 + np.abs(at)))
    return Trial(at, found.image, log_det, _rounding(found, D, eps), reach + 32.0 * eps * np.abs(found.image))


class _Evaluated(NamedTuple):
    """A map at N points, in float64.

    Attributes:
      image: `forward(e)` [N, D'].
      jacobian: its derivative in e [N, D', D].
      moved: how far the image moves when each parameter changes by its own size times one or minus one, for some
        patterns of signs [N, patterns, D'].
    """

    image: Float[np.ndarray, "N D2"]
    jacobian: Float[np.ndarray, "N D2 D"]
    moved: Float[np.ndarray, "N patterns D2"]


def _evaluated(forward: Callable[[Given, Array], Array], arrays: Given, points: Float[Array, "N D"]) -> _Evaluated:
    """The map and its derivatives at all points."""
    leaves, structure = jax.tree.flatten(arrays)
    floats = [jnp.asarray(leaf) for leaf in leaves if _is_real(leaf)]
    signs = _patterns_of_signs(floats)

    def image(floats: list[Array], point: Float[Array, " D"]) -> Float[Array, " D2"]:
        given = iter(floats)
        full = [next(given) if _is_real(leaf) else leaf for leaf in leaves]
        result: Array = forward(jax.tree.unflatten(structure, full), point)
        return result

    def at_point(floats: list[Array], point: Float[Array, " D"]) -> tuple[Array, Array, Array]:
        def moved(pattern: Sequence[ArrayLike]) -> Float[Array, " D2"]:
            along = jax.tree.map(jnp.multiply, pattern, floats)
            change: Array = jax.jvp(lambda floats: image(floats, point), (floats,), (along,))[1]
            return change

        return (
            image(floats, point),
            jax.jacfwd(image, argnums=1)(floats, point),
            jax.vmap(moved, axis_size=_PATTERNS)(signs),
        )

    results = quick_jit(jax.vmap(at_point, (None, 0)))(floats, points)
    return _Evaluated(*(np.asarray(array, np.float64) for array in results))


def _patterns_of_signs(floats: list[Array]) -> list[np.ndarray]:
    """Arrays [patterns, ...] of ones and minus ones.

    Rounding changes every number by a random part of its last bit. A few patterns of signs stand for all.
    """
    random = np.random.default_rng(0)
    return [random.choice([-1.0, 1.0], size=(_PATTERNS, *leaf.shape)).astype(leaf.dtype) for leaf in floats]


def _rounding(found: _Evaluated, D: int, eps: float) -> Float[np.ndarray, "N D"]:
    """How far rounding of the image and of the parameters may move the point that the image came from."""
    back = np.linalg.inv(found.jacobian[:, :D])
    of_image = np.einsum("nij,nj->ni", np.abs(back), np.abs(found.image[:, :D]))
    of_parameters = np.sum(np.abs(np.einsum("nij,nsj->nsi", back, found.moved[:, :, :D])), axis=1)
    rounding: np.ndarray = 16.0 * eps * (of_image + of_parameters)
    return rounding


def _is_real(leaf: Leaf) -> bool:
    """Whether a leaf is an array of floating-point numbers."""
    return _checks.is_array(leaf) and bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def density_tolerance(trial: Trial, expected: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """How far a log-density at the image, or `log|det|`, may be from what is expected."""
    of_rounding = np.sum((1.0 + np.abs(trial.at)) * trial.rounding, axis=1)
    D = trial.at.shape[1]
    tolerance: np.ndarray = 2.0 * RELATIVE + 1e-5 * (np.abs(expected) + np.abs(trial.log_det) + D) + of_rounding
    return tolerance


def shown(array: ArrayLike) -> str:
    """An array in a message: four digits, and not more than fits on a line."""
    return np.array2string(np.asarray(array), precision=4, threshold=6, edgeitems=3, separator=", ")


def of_the_worst(difference: np.ndarray, tolerance: np.ndarray) -> int | None:
    """The row that is furthest beyond its tolerance, None if there is none; NaN counts as infinitely far beyond."""
    with np.errstate(invalid="ignore"):
        excess = np.abs(difference) / tolerance
    excess = np.where(np.isnan(excess), np.inf, excess).reshape(len(excess), -1).max(axis=1)
    row = int(np.argmax(excess))
    return row if excess[row] > 1.0 else None
