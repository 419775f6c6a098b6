"""Checks that functions of the user's which belong together agree: those of a family and those of a bijection."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from hiwae_jax import _checks
from hiwae_jax._families.bijection import Bijection
from hiwae_jax._families.disagreement import Trial, density_tolerance, of_the_worst, quick_jit, shown, try_map
from hiwae_jax._families.distribution import distribution
from hiwae_jax._families.draws_density import check_draws
from hiwae_jax._families.family import (
    Family,
    draw_noise,
    noise_structure,
    require_family,
    standard_normal,
)
from hiwae_jax._families.noise_density import check_against_unknown_noise
from hiwae_jax._types import Example, Parameters, Params, Scalar, Unchecked

_NUMBERS_AT_ONCE = 1_000_000  # of all derivatives that are in memory together
_MANY = 40_000  # draws, where the density of the noise is not known
_MOST_AT_EDGE = 0.1  # the part of the draws that may be held at an edge, as those of heavy tails are


def check_family(family: Family, parameters: Parameters, key: PRNGKeyArray) -> None:
    """Raise if the functions of a family contradict each other at these parameters.

    Some noise e is drawn by the family's sampler, and it is checked that `inverse(forward(e)) = e`, and that
    `log_prob(forward(e)) = log n(e) - log|det d forward / d e|`, n being the density of the noise. A wrong inverse
    makes the doubly reparameterized gradients wrong, a wrong density makes the bound no bound, and neither fails by
    itself.

    Where the sampler is `hj.standard_normal`, n is known, and an error of 1e-2 nats is seen at every draw. Otherwise n
    is what the other functions say it is, `log n(e) = log_prob(forward(e)) + log|det d forward / d e|`. Then it is
    checked that n does not change with the parameters (all of them times 1.25; to 1e-2 nats), that it integrates to one
    (to 0.01 (1 + D) nats; entries of the noise are taken to be independent), and that 40,000 draws of the sampler
    follow it (by their distribution function: an error of 8 % in the scale is seen, one of 2 % is not). This takes
    some seconds in few dimensions and grows as D^4.

    A family without an inverse is checked by 40,000 draws alone: over a box between quantiles of each dimension, the
    mean of `1 / exp(log_prob(z))` must be the volume. An error of 10 % in a scale is seen, in few dimensions.

    What cannot be seen: an error at other parameters, or where no draw fell; entries of the noise that depend on one
    another; a derivative of `forward` that a `custom_jvp` of yours gives wrongly. Next to an edge, or far from zero,
    rounding hides errors as large as itself; float64 shows them. Give parameters in which no two numbers are equal, of
    few dimensions, and call it in a test: no bound calls it.

    Args:
      family: the family, `hj.Family(forward, inverse, log_prob, sampler, noise_like)`.
      parameters: of one distribution, as the callable of a proposal returns them: no axis of samples or examples.
      key: one typed key for the sampler.

    Raises:
      ValueError: if two functions disagree, or one gives arrays of a wrong shape. The message names the function, and
        has what was expected and what was found.
      TypeError: if `family` is no `hj.Family`, or the parameters are no floating-point arrays.

    >>> import hiwae_jax as hj
    >>> parameters = jnp.array([0.3, -1.0]), jnp.array([0.5, 2.0])
    >>> hj.check_family(hj.diagonal_gaussian, parameters, jax.random.key(0))
    >>> wrong = hj.diagonal_gaussian._replace(inverse=lambda parameters, z: z)
    >>> hj.check_family(wrong, parameters, jax.random.key(0))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: family.inverse: expected the noise [...], of which family.forward made z = [...], got [...]
    """
    require_family("family", family)
    parameters, structure = distribution("parameters", parameters, family)
    D, dtype = structure.size, structure.dtype
    _check_shapes(family, parameters, structure.abstract_vector)
    if family.inverse is None:
        check_draws(family, parameters, key)
        return
    num_draws = int(np.clip(_NUMBERS_AT_ONCE // D**2, 4, 64))
    is_normal = family.sampler is standard_normal
    draws = draw_noise(family.sampler, key, (num_draws if is_normal else _MANY, D), dtype)
    noise = draws[:num_draws]
    if not np.all(np.isfinite(noise)):
        raise ValueError(f"family.sampler: expected finite noise, got {shown(noise)}")
    trial = try_map("family.forward", family.forward, parameters, noise)
    undone = _undone(family, parameters, jnp.asarray(trial.image, dtype))
    is_known = _check_inverse(family, parameters, trial, undone)
    if is_normal:
        _check_against_normal_noise(trial, undone.log_prob, is_known)
    else:
        check_against_unknown_noise(family, parameters, np.asarray(draws), trial, undone.log_prob, is_known)


class _Undone(NamedTuple):
    """What the functions of a family say of N draws z, in float64.

    Attributes:
      back: `inverse(z)` [N, D].
      again: `forward(inverse(z))` [N, D'].
      log_prob: `log_prob(z)` [N].
    """

    back: Float[np.ndarray, "N D"]
    again: Float[np.ndarray, "N D2"]
    log_prob: Float[np.ndarray, " N"]


def _undone(family: Family, parameters: Parameters, z: Float[Array, "N D2"]) -> _Undone:
    """What the functions of a family say of some draws."""
    inverse = family.inverse
    assert inverse is not None

    @quick_jit
    @jax.vmap
    def at_rows(z: Float[Array, " D2"]) -> tuple[Array, Array, Array]:
        back = inverse(parameters, z)
        return back, family.forward(parameters, back), family.log_prob(parameters, z)

    return _Undone(*(np.asarray(array, np.float64) for array in at_rows(z)))


def _check_against_normal_noise(
    trial: Trial, log_prob: Float[np.ndarray, " N"], is_known: Bool[np.ndarray, " N"]
) -> None:
    """Raise if the density of a draw is not that of its standard normal noise, less the `log|det|` of `forward`."""
    expected = _log_normal(trial.at) - trial.log_det
    difference = np.where(is_known, log_prob - expected, 0.0)
    worst = of_the_worst(difference, density_tolerance(trial, expected))
    if worst is not None:
        raise ValueError(
            f"family.log_prob: expected {expected[worst]:.4f} at z = {shown(trial.image[worst])}, the density of its "
            f"noise less log|det| of the derivative of family.forward, got {log_prob[worst]:.4f}; "
            f"{_likely_error(difference[is_known])}"
        )


def _log_normal(noise: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """The standard normal log-density of each row."""
    density: np.ndarray = -0.5 * np.sum(noise**2, axis=-1) - 0.5 * noise.shape[-1] * math.log(2.0 * math.pi)
    return density


def _likely_error(difference: Float[np.ndarray, " N"]) -> str:
    """What the message says about the cause, from the differences of the log-densities."""
    if np.all(np.isfinite(difference)) and np.ptp(difference) < 1e-2 * (1.0 + np.max(np.abs(difference))):
        return f"it is off by {np.mean(difference):.4f} at every draw: a constant, or the log of a scale, is wrong"
    return "look at its terms, and at log|det| of what forward does to the noise"


def _check_shapes(family: Family, parameters: Parameters, noise: jax.ShapeDtypeStruct) -> None:
    """Raise if a function of a family gives an array of a wrong shape."""
    which = "the first leaf of the parameters" if family.noise_like is None else "family.noise_like"
    z = jax.eval_shape(family.forward, parameters, noise)
    if jnp.shape(z) < noise.shape or jnp.ndim(z) != 1:
        raise ValueError(
            f"family.forward: expected one z of the shape of {which}, {noise.shape}, or with more entries, got shape "
            f"{jnp.shape(z)}"
        )
    undone = noise if family.inverse is None else jax.eval_shape(family.inverse, parameters, z)
    if jnp.shape(undone) != noise.shape:
        raise ValueError(
            f"family.inverse: expected noise of the shape of {which}, {noise.shape}, got shape {jnp.shape(undone)}"
        )
    density = jax.eval_shape(family.log_prob, parameters, z)
    if jnp.shape(density) != ():
        raise ValueError(
            f"family.log_prob: expected a scalar for one z of shape {z.shape}, got shape {jnp.shape(density)}; sum "
            "over its dimensions"
        )


def _check_inverse(family: Family, parameters: Parameters, trial: Trial, undone: _Undone) -> Bool[np.ndarray, " N"]:
    """Raise if the noise does not come back; return for which draws it did.

    A draw may come back as other noise that makes the same z, where z is held at an edge.
    """
    back, again, log_prob = undone
    came_back: np.ndarray = np.all(np.abs(back - trial.at) <= trial.tolerance, axis=1)
    same_image = np.all(np.abs(again - trial.image) <= trial.reach, axis=1)
    lost = np.flatnonzero(~came_back & ~same_image)
    if len(lost):
        row = lost[0]
        if _forward_stands_alone(family, parameters, trial, back, log_prob):
            raise ValueError(
                f"family.forward: expected {shown(trial.at[row])} to be the noise of z = {shown(trial.image[row])}, "
                f"but family.inverse finds {shown(back[row])}, with which family.log_prob agrees"
            )
        raise ValueError(
            f"family.inverse: expected the noise {shown(trial.at[row])}, of which family.forward made z = "
            f"{shown(trial.image[row])}, got {shown(back[row])}"
        )
    at_edge = np.flatnonzero(~came_back)
    if len(at_edge) > _MOST_AT_EDGE * len(back):
        row = at_edge[0]
        raise ValueError(
            f"family.forward: expected different z of different noise, got {shown(trial.image[row])} of both "
            f"{shown(trial.at[row])} and {shown(back[row])}; choose parameters at which z is not rounded to an edge"
        )
    return came_back


def _forward_stands_alone(
    family: Family,
    parameters: Parameters,
    trial: Trial,
    back: Float[np.ndarray, "N D"],
    log_prob: Float[np.ndarray, " N"],
) -> bool:
    """Whether `log_prob` agrees with `inverse` and not with `forward`, where these two disagree."""
    D, inverse = trial.at.shape[1], family.inverse
    if family.sampler is not standard_normal or trial.image.shape[1] != D or inverse is None:
        return False
    z = jnp.asarray(trial.image, noise_structure(family, parameters).dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        volume = np.linalg.slogdet(jax.vmap(jax.jacfwd(lambda z: inverse(parameters, z)))(z))[1]
        by_inverse, by_forward = _log_normal(back) + volume, _log_normal(trial.at) - trial.log_det
    agree = [of_the_worst(log_prob - one, density_tolerance(trial, one)) is None for one in (by_inverse, by_forward)]
    return agree == [True, False]


def check_bijection(bijection: Bijection, params: Params, x: Example, z: Float[Array, " D"]) -> None:
    """Raise if the functions of a bijection contradict each other at this point.

    It is checked that the inverse of `forward(z)` is z, that the `log|det|` of `forward` is that of its derivative, and
    that the `log|det|` of the inverse is its negative. An error of 1e-2 is seen; an error at other points or parameters
    is not. Where a bijection gives more entries than it takes, `log|det|` is that of the first entries, as many as it
    takes.

    Args:
      bijection: `hj.Bijection(forward, inverse)`, a map of `hj.flow_chain` or of `hj.transformed`.
      params: the parameters that the map is given; None for a fixed map.
      x: the example that the map is given; None for a fixed map.
      z: the point, floating-point numbers [D].

    Raises:
      ValueError: if they disagree, or give arrays of a wrong shape. The message names the function, and has what was
        expected and what was found.
      TypeError: if `bijection` is no `hj.Bijection`, or z no floating-point array.

    >>> import hiwae_jax as hj
    >>> hj.check_bijection(hj.positive, None, None, jnp.array([0.5, -2.0]))
    >>> wrong = hj.positive._replace(inverse=lambda params, x, y: (jnp.log(y), jnp.sum(jnp.log(y))))
    >>> hj.check_bijection(wrong, None, None, jnp.array([0.5, -2.0]))
    Traceback (most recent call last):
    ValueError: bijection.inverse: expected log|det| = 1.5000, minus that of forward, at [1.6487, 0.1353], got -1.5000
    """
    if not isinstance(bijection, Bijection):
        got = type(bijection).__name__
        raise TypeError(f"bijection: expected hj.Bijection(forward, inverse), got {got}")
    z = _checks.float_array("z", z)
    if z.ndim != 1 or not np.all(np.isfinite(z)):
        raise ValueError(f"z: expected one point [D] of finite numbers, got {shown(z)}")
    image, _ = _pair("forward", jax.eval_shape(lambda z: bijection.forward(params, x, z), z))
    if image.ndim != 1 or image.shape < z.shape:
        raise ValueError(f"bijection.forward: expected a point of shape {z.shape}, or more entries, got {image.shape}")
    preimage, _ = _pair("inverse", jax.eval_shape(lambda y: bijection.inverse(params, x, y), image))
    if preimage.shape != z.shape:
        raise ValueError(f"bijection.inverse: expected a point of shape {z.shape}, got {preimage.shape}")
    trial = try_map(
        "bijection.forward", lambda given, z: bijection.forward(given[0], given[1], z)[0], (params, x), z[None]
    )
    y, found = bijection.forward(params, x, z)
    _check_volume("forward", trial.log_det, "that of its derivative, at", z, found, trial)
    back, found = bijection.inverse(params, x, y)
    if of_the_worst(np.asarray(back, np.float64)[None] - trial.at, trial.tolerance) is not None:
        raise ValueError(f"bijection.inverse: expected {shown(z)}, of which forward made {shown(y)}, got {shown(back)}")
    _check_volume("inverse", -trial.log_det, "minus that of forward, at", y, found, trial)


def _pair(name: str, result: Unchecked) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """What a function of a bijection gave, if it is a pair of a point and a scalar; or what is wrong with it."""
    if not (isinstance(result, tuple) and len(result) == 2 and jnp.shape(result[1]) == ()):
        got = jax.tree.map(jnp.shape, result)
        raise ValueError(f"bijection.{name}: expected a pair (point [D], scalar log|det|), got shapes {got}")
    point, log_det = result
    return point, log_det


def _check_volume(
    name: str,
    expected: Float[np.ndarray, " 1"],
    which: str,
    at: Float[Array, " D"],
    found: Scalar,
    trial: Trial,
) -> None:
    """Raise if the `log|det|` that a function of a bijection gave is not what is expected."""
    if of_the_worst(np.asarray(found, np.float64)[None] - expected, density_tolerance(trial, expected)) is not None:
        raise ValueError(
            f"bijection.{name}: expected log|det| = {expected[0]:.4f}, {which} {shown(at)}, got {float(found):.4f}"
        )
