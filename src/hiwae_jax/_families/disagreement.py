"""How far two numbers that should agree may be apart: what floating point and generous tolerances allow."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hiwae_jax import _checks

# What runs once takes longer to optimize than to run.
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

    at: np.ndarray
    image: np.ndarray
    log_det: np.ndarray
    rounding: np.ndarray
    reach: np.ndarray

    @property
    def tolerance(self) -> np.ndarray:
        """Of a point that comes back [N, D]."""
        tolerance: np.ndarray = RELATIVE * (1.0 + np.abs(self.at)) + self.rounding
        return tolerance


def try_map(name: str, forward: Callable[[Any, Any], Any], arrays: Any, points: Any) -> Trial:
    """`forward(arrays, point)` at every point with its derivative; raise if they are not those of an invertible map.

    Args:
      name: what the user calls `forward`.
      forward: `(arrays, point [D]) -> [D']`, D' >= D.
      arrays: a pytree of what else it depends on, such as parameters.
      points: [N, D].
    """
    random = np.random.default_rng(0)
    leaves, structure = jax.tree.flatten(arrays)
    live = [jnp.asarray(leaf) for leaf in leaves if _is_real(leaf)]
    # Rounding changes every number by a random part of its last bit; some patterns of signs stand for all.
    signs = [random.choice([-1.0, 1.0], size=(_PATTERNS, *leaf.shape)).astype(leaf.dtype) for leaf in live]

    def at_point(live: Any, point: Any) -> Any:
        def image(live: Any, point: Any) -> Any:
            given = iter(live)
            full = [next(given) if _is_real(leaf) else leaf for leaf in leaves]
            return forward(jax.tree.unflatten(structure, full), point)

        def moved(pattern: Any) -> Any:
            along = jax.tree.map(jnp.multiply, pattern, live)
            return jax.jvp(lambda live: image(live, point), (live,), (along,))[1]

        return (
            image(live, point),
            jax.jacfwd(image, argnums=1)(live, point),
            jax.vmap(moved, axis_size=_PATTERNS)(signs),
        )

    image, jacobian, moved = (np.asarray(a, np.float64) for a in quick_jit(jax.vmap(at_point, (None, 0)))(live, points))
    at, D = np.asarray(points, np.float64), points.shape[1]
    for row in range(len(at)):
        if not np.all(np.isfinite(image[row])):
            raise ValueError(f"{name}: expected finite numbers at {shown(at[row])}, got {shown(image[row])}")
    with np.errstate(divide="ignore"):
        log_det = np.linalg.slogdet(jacobian[:, :D])[1]
    broken = np.flatnonzero(~np.isfinite(log_det))
    if len(broken):
        raise ValueError(
            f"{name}: expected an invertible derivative at {shown(at[broken[0]])}, got log|det| = {log_det[broken[0]]}"
        )
    back = np.linalg.inv(jacobian[:, :D])
    eps = float(np.finfo(points.dtype).eps)
    rounding = np.einsum("nij,nj->ni", np.abs(back), np.abs(image[:, :D]))
    rounding += np.sum(np.abs(np.einsum("nij,nsj->nsi", back, moved[:, :, :D])), axis=1)
    reach = np.einsum("nij,nj->ni", np.abs(jacobian), RELATIVE * (1.0 + np.abs(at)))
    return Trial(at, image, log_det, 16.0 * eps * rounding, reach + 32.0 * eps * np.abs(image))


def _is_real(leaf: Any) -> bool:
    return _checks.is_array(leaf) and bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def density_tolerance(trial: Trial, expected: np.ndarray) -> np.ndarray:
    """Of a log-density at the image, or of `log|det|` [N]."""
    of_rounding = np.sum((1.0 + np.abs(trial.at)) * trial.rounding, axis=1)
    D = trial.at.shape[1]
    tolerance: np.ndarray = 2.0 * RELATIVE + 1e-5 * (np.abs(expected) + np.abs(trial.log_det) + D) + of_rounding
    return tolerance


def shown(array: Any) -> str:
    """An array in a message: four digits, and not more than fits on a line."""
    return np.array2string(np.asarray(array), precision=4, threshold=6, edgeitems=3, separator=", ")


def of_the_worst(difference: np.ndarray, tolerance: np.ndarray) -> int | None:
    """The row that is furthest beyond its tolerance, None if there is none; what is no number is beyond."""
    with np.errstate(invalid="ignore"):
        excess = np.abs(difference) / tolerance
    excess = np.where(np.isnan(excess), np.inf, excess).reshape(len(excess), -1).max(axis=1)
    row = int(np.argmax(excess))
    return row if excess[row] > 1.0 else None
