r"""A family's density against noise whose own density nobody says.

The functions of a family imply a density of the noise, `log n(e) = log_prob(forward(e)) + log|det d forward / d e|`. It
must be the same at all parameters, integrate to one, and be that of the sampler's draws.

The entries of the noise are independent, so that along one entry, the others fixed at some e, n is the density of this
entry times a constant: `int n(e with e_d = t) dt = prod_{i != d} n_i(e_i)`. The product of all D such integrals is
`n(e)^{D-1}` if, and only if, n integrates to one: D integrals over one variable in place of one over D.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hiwae_jax._families.disagreement import Trial, density_tolerance, of_the_worst, quick_jit, shown, try_map
from hiwae_jax._families.family import Family, Parameters

_OTHER_PARAMETERS = 1.25  # as a factor it keeps positive what is positive, and triangular what is triangular
_NUMBERS_AT_ONCE = 10_000_000
_NODES = 4_001
_REACH = 20.0  # in the arsinh of standardized noise: five hundred million interquartile ranges
_FURTHER = 1.3  # next to a limit the density of `transformed` is that of all that is held there
_GAP = 0.0145  # of distribution functions; with 40,000 draws beyond it by chance once in ten million


def check_against_unknown_noise(
    family: Family, parameters: Parameters, draws: np.ndarray, trial: Trial, log_prob: np.ndarray, is_known: np.ndarray
) -> None:
    """Raise if the implied density of the noise is not one, or not that of the sampler.

    Args:
      family: the family.
      parameters: of one distribution.
      draws: noise of the sampler [many, D].
      trial: `family.forward` at some noise [N, D].
      log_prob: the density of what it gave [N].
      is_known: which of the noise came back through `family.inverse` [N].
    """
    _check_other_parameters(family, parameters, trial, log_prob + trial.log_det, is_known)
    draws, centre = draws.astype(np.float64), np.median(draws, axis=0).astype(np.float64)
    spread = np.subtract(*np.quantile(draws, [0.75, 0.25], axis=0))
    if not np.all(spread > 0.0):
        raise ValueError(
            f"family.sampler: expected noise with a density, got draws whose quartiles are {shown(spread)} apart"
        )
    implied, comes_back = _implied(family, parameters), _comes_back(family, parameters, centre)
    returned, log_centre = comes_back(draws), implied(centre[None])[0]
    u, log_totals = np.linspace(-_REACH, _REACH, _NODES), []
    for entry in range(len(centre)):
        points = np.repeat(centre[None], _NODES, axis=0)
        points[:, entry] += spread[entry] * np.sinh(u)
        log_density = np.where(comes_back(points)[:, entry], implied(points), -np.inf)
        mass = np.exp(log_density - log_centre) * spread[entry] * np.cosh(u) * (u[1] - u[0])
        held = 1.0 - np.mean(returned[:, entry])  # what is held at an edge is not on the slice
        log_totals.append(np.log(np.sum(mass)) - np.log1p(-held))
        standardized = np.arcsinh((draws[returned[:, entry], entry] - centre[entry]) / spread[entry])
        _check_distribution(entry, u, np.cumsum(mass) - 0.5 * mass, np.sum(mass), standardized)
    # log prod_d int n(e with e_d = t) dt - (D - 1) log n(e)
    off = sum(log_totals) + log_centre
    if not abs(off) < 0.01 * (1.0 + len(centre)):
        raise ValueError(
            f"family.log_prob: expected a density that integrates to 1, got one that integrates to exp({off:.4f}); "
            "look at its constant, and at log|det| of what forward does to the noise"
        )


Rows = Callable[[np.ndarray], np.ndarray]


def _implied(family: Family, parameters: Parameters) -> Rows:
    """`log n(e)` at each row of noise; what is no number is no density."""
    first = jax.tree.leaves(parameters)[0]
    D = len(first)

    def at(noise: Any) -> tuple[Any, Any]:
        forward = lambda noise: family.forward(parameters, noise)
        jacobian = jax.jacfwd(forward)(noise)
        return family.log_prob(parameters, forward(noise)), jacobian[:D]  # type: ignore[no-untyped-call]

    at_rows = quick_jit(jax.vmap(at))

    def log_density(noise: np.ndarray) -> np.ndarray:
        parts = np.array_split(noise, max(1, D * D * len(noise) // _NUMBERS_AT_ONCE))
        found = [at_rows(jnp.asarray(rows, first.dtype)) for rows in parts]
        with np.errstate(divide="ignore", invalid="ignore"):
            density = np.concatenate([np.asarray(p, np.float64) + np.linalg.slogdet(j)[1] for p, j in found])
        return np.where(np.isnan(density), -np.inf, density)

    return log_density


def _comes_back(family: Family, parameters: Parameters, centre: np.ndarray) -> Rows:
    """Which entries of the noise come back, even from somewhat further out: what is held at an edge does not."""
    dtype = jax.tree.leaves(parameters)[0].dtype
    undo = quick_jit(jax.vmap(lambda noise: family.inverse(parameters, family.forward(parameters, noise))))

    def returned(noise: np.ndarray) -> np.ndarray:
        further = centre + _FURTHER * (noise - centre)
        back = np.asarray(undo(jnp.asarray(further, dtype)), np.float64)
        with np.errstate(invalid="ignore"):
            came: np.ndarray = np.abs(back - further) <= 0.05 * (1.0 + np.abs(further))
        return came

    return returned


def _check_other_parameters(
    family: Family, parameters: Parameters, trial: Trial, log_noise: np.ndarray, is_known: np.ndarray
) -> None:
    """Raise if the density that the noise seems to have depends on the parameters."""
    others = jax.tree.map(lambda leaf: leaf * _OTHER_PARAMETERS, parameters)
    dtype = jax.tree.leaves(parameters)[0].dtype
    there = try_map("family.forward", family.forward, others, jnp.asarray(trial.at, dtype))
    log_prob = quick_jit(jax.vmap(family.log_prob, in_axes=(None, 0)))(others, jnp.asarray(there.image, dtype))
    implied = np.asarray(log_prob, np.float64) + there.log_det
    tolerance = density_tolerance(trial, log_noise) + density_tolerance(there, implied)
    is_known = is_known & np.isfinite(implied)
    worst = of_the_worst(np.where(is_known, implied - log_noise, 0.0), tolerance)
    if worst is not None:
        raise ValueError(
            f"family.log_prob: expected the noise {shown(trial.at[worst])} to have one log-density at all parameters, "
            f"got {log_noise[worst]:.4f} at those given and {implied[worst]:.4f} at {_OTHER_PARAMETERS} times those, "
            "as log_prob of family.forward plus log|det| of its derivative; look at how log_prob depends on them"
        )


def _check_distribution(entry: int, u: np.ndarray, below: np.ndarray, total: float, draws: np.ndarray) -> None:
    """Raise if the draws, in the variable u, are not distributed as the mass below each node says."""
    draws = np.sort(draws)
    expected = np.interp(draws, u, below / total)
    found = (np.arange(len(draws)) + 0.5) / len(draws)
    worst = int(np.argmax(np.where(np.isnan(expected), np.inf, np.abs(expected - found))))
    if not abs(expected[worst] - found[worst]) < _GAP:
        raise ValueError(
            f"family.log_prob: expected the density of what family.sampler and family.forward draw, got another: "
            f"{found[worst]:.1%} of the noise at entry {entry} is below a point where log_prob expects "
            f"{expected[worst]:.1%}"
        )
