r"""The check of a family's density where the density of its noise is not known.

The functions of a family imply a density of the noise, `log n(e) = log_prob(forward(e)) + log|det d forward / d e|`. It
must be the same at all parameters, integrate to one, and be that of the sampler's draws.

The entries of the noise are independent. So along one entry, with the others fixed at some e, n is the density of this
entry times a constant: `int n(e with e_d = t) dt = prod_{i != d} n_i(e_i)`. The product of all D such integrals is
`n(e)^{D-1}` if, and only if, n integrates to one. This takes D integrals over one variable in place of one integral
over D variables.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hiwae_jax._families.disagreement import Trial, density_tolerance, of_the_worst, quick_jit, shown, try_map
from hiwae_jax._families.family import Family, noise_structure
from hiwae_jax._types import Parameters

_OTHER_PARAMETERS = 1.25  # as a factor it keeps positive what is positive, and triangular what is triangular
_NUMBERS_AT_ONCE = 10_000_000  # of all derivatives that are in memory together
_NODES = 4_001  # of the integral along one entry
_REACH = 20.0  # of the integral, in the arsinh of standardized noise: five hundred million interquartile ranges
_FURTHER = 1.3  # next to a limit the density of `transformed` is that of all that is held there
_GAP = 0.0145  # between distribution functions; with 40,000 draws a larger one comes by chance once in ten million


Noise = Float[np.ndarray, "N D"]
LogDensity = Callable[[Noise], Float[np.ndarray, " N"]]


def check_against_unknown_noise(
    family: Family,
    parameters: Parameters,
    draws: Float[np.ndarray, "many D"],
    trial: Trial,
    log_prob: Float[np.ndarray, " N"],
    is_known: Bool[np.ndarray, " N"],
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
    measured = _measured(family, parameters, draws)
    entries = range(len(measured.centre))
    # log prod_d int n(e with e_d = t) dt - (D - 1) log n(e)
    off = sum(_log_integral_along(entry, measured) for entry in entries) + measured.log_density_at_centre
    if not abs(off) < 0.01 * (1.0 + len(entries)):
        raise ValueError(
            f"family.log_prob: expected a density that integrates to 1, got one that integrates to exp({off:.4f}); "
            "look at its constant, and at log|det| of what forward does to the noise"
        )


class _Measured(NamedTuple):
    """Draws of the sampler, and the functions that tell the implied density at any noise.

    Attributes:
      draws: [many, D].
      comes_back: which entries of the draws come back [many, D].
      centre: the medians [D].
      spread: the interquartile ranges [D].
      log_density: the implied log-density at each row of noise.
      entries_that_come_back: which entries come back of each row of noise.
      log_density_at_centre: the implied log-density at the medians.
    """

    draws: Noise
    comes_back: Bool[np.ndarray, "N D"]
    centre: Float[np.ndarray, " D"]
    spread: Float[np.ndarray, " D"]
    log_density: LogDensity
    entries_that_come_back: Callable[[Noise], Bool[np.ndarray, "N D"]]
    log_density_at_centre: float


def _measured(family: Family, parameters: Parameters, draws: Noise) -> _Measured:
    """The draws in float64 with what is measured of them; raise if their quartiles are equal."""
    wide = draws.astype(np.float64)
    centre = np.median(draws, axis=0).astype(np.float64)
    spread = np.subtract(*np.quantile(wide, [0.75, 0.25], axis=0))
    if not np.all(spread > 0.0):
        raise ValueError(
            f"family.sampler: expected noise with a density, got draws whose quartiles are {shown(spread)} apart"
        )
    log_density = _implied(family, parameters)
    entries_that_come_back = _comes_back(family, parameters, centre)
    comes_back, at_centre = entries_that_come_back(wide), log_density(centre[None])[0]
    return _Measured(wide, comes_back, centre, spread, log_density, entries_that_come_back, at_centre)


def _log_integral_along(entry: int, measured: _Measured) -> float:
    """The log of the integral of the implied density along one entry, in units of the density at the centre.

    Raises if the draws of this entry are not distributed as the implied density says.
    """
    centre, spread = measured.centre[entry], measured.spread[entry]
    u = np.linspace(-_REACH, _REACH, _NODES)
    mass = _mass_along(entry, u, measured)
    comes_back = measured.comes_back[:, entry]
    standardized = np.arcsinh((measured.draws[comes_back, entry] - centre) / spread)
    _check_distribution(entry, u, np.cumsum(mass) - 0.5 * mass, np.sum(mass), standardized)
    held = 1.0 - np.mean(comes_back)  # what is held at an edge is not on the slice
    log_integral: float = np.log(np.sum(mass)) - np.log1p(-held)
    return log_integral


def _mass_along(entry: int, u: Float[np.ndarray, " nodes"], measured: _Measured) -> Float[np.ndarray, " nodes"]:
    """The mass of the implied density at each node along one entry, in units of the density at the centre."""
    spread = measured.spread[entry]
    points = np.repeat(measured.centre[None], len(u), axis=0)
    points[:, entry] += spread * np.sinh(u)
    is_on_slice = measured.entries_that_come_back(points)[:, entry]
    log_density = np.where(is_on_slice, measured.log_density(points), -np.inf)
    mass: np.ndarray = np.exp(log_density - measured.log_density_at_centre) * spread * np.cosh(u) * (u[1] - u[0])
    return mass


def _implied(family: Family, parameters: Parameters) -> LogDensity:
    """The function `log n(e)` of rows of noise; where it would be NaN the density is zero."""
    structure = noise_structure(family, parameters)
    D = structure.size

    def at(noise: Float[Array, " D"]) -> tuple[Float[Array, ""], Float[Array, "D D"]]:
        forward = lambda noise: family.forward(parameters, noise)
        jacobian = jax.jacfwd(forward)(noise)
        return family.log_prob(parameters, forward(noise)), jacobian[:D]  # type: ignore[no-untyped-call]

    at_rows = quick_jit(jax.vmap(at))

    def log_density(noise: Noise) -> Float[np.ndarray, " N"]:
        parts = np.array_split(noise, max(1, D * D * len(noise) // _NUMBERS_AT_ONCE))
        found = [at_rows(jnp.asarray(rows, structure.dtype)) for rows in parts]
        with np.errstate(divide="ignore", invalid="ignore"):
            density = np.concatenate([np.asarray(p, np.float64) + np.linalg.slogdet(j)[1] for p, j in found])
        return np.where(np.isnan(density), -np.inf, density)

    return log_density


def _comes_back(
    family: Family, parameters: Parameters, centre: Float[np.ndarray, " D"]
) -> Callable[[Noise], Bool[np.ndarray, "N D"]]:
    """The function of rows of noise that says which entries come back from `family.inverse`.

    They have to come back even from somewhat further out, as what is held at an edge does not.
    """
    dtype = noise_structure(family, parameters).dtype
    inverse = family.inverse
    assert inverse is not None  # `check_draws` checks families without one
    undo = quick_jit(jax.vmap(lambda noise: inverse(parameters, family.forward(parameters, noise))))

    def returned(noise: Noise) -> Bool[np.ndarray, "N D"]:
        further = centre + _FURTHER * (noise - centre)
        back = np.asarray(undo(jnp.asarray(further, dtype)), np.float64)
        with np.errstate(invalid="ignore"):
            came: np.ndarray = np.abs(back - further) <= 0.05 * (1.0 + np.abs(further))
        return came

    return returned


def _check_other_parameters(
    family: Family,
    parameters: Parameters,
    trial: Trial,
    log_noise: Float[np.ndarray, " N"],
    is_known: Bool[np.ndarray, " N"],
) -> None:
    """Raise if the density that the noise seems to have depends on the parameters."""
    others = jax.tree.map(lambda leaf: leaf * _OTHER_PARAMETERS, parameters)
    dtype = noise_structure(family, parameters).dtype
    there = try_map("family.forward", family.forward, others, jnp.asarray(trial.at, dtype))
    log_prob = quick_jit(jax.vmap(family.log_prob, in_axes=(None, 0)))(others, jnp.asarray(there.image, dtype))
    implied = np.asarray(log_prob, np.float64) + there.log_det
    tolerance = density_tolerance(trial, log_noise) + density_tolerance(there, implied)
    is_compared = is_known & np.isfinite(implied)
    worst = of_the_worst(np.where(is_compared, implied - log_noise, 0.0), tolerance)
    if worst is not None:
        raise ValueError(
            f"family.log_prob: expected the noise {shown(trial.at[worst])} to have one log-density at all parameters, "
            f"got {log_noise[worst]:.4f} at those given and {implied[worst]:.4f} at {_OTHER_PARAMETERS} times those, "
            "as log_prob of family.forward plus log|det| of its derivative; look at how log_prob depends on them"
        )


def _check_distribution(
    entry: int,
    u: Float[np.ndarray, " nodes"],
    below: Float[np.ndarray, " nodes"],
    total: float,
    draws: Float[np.ndarray, " N"],
) -> None:
    """Raise if the draws of one entry, in the variable u, are not distributed as the mass below each node says."""
    expected = np.interp(np.sort(draws), u, below / total)
    found = (np.arange(len(draws)) + 0.5) / len(draws)
    worst = int(np.argmax(np.where(np.isnan(expected), np.inf, np.abs(expected - found))))
    if not abs(expected[worst] - found[worst]) < _GAP:
        raise ValueError(
            f"family.log_prob: expected the density of what family.sampler and family.forward draw, got another: "
            f"{found[worst]:.1%} of the noise at entry {entry} is below a point where log_prob expects "
            f"{expected[worst]:.1%}"
        )
