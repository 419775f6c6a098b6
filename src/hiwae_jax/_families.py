"""Families of distributions as pure functions of parameter arrays.

Distributions travel as arrays, never as objects: stopping the gradient of an array stops all of it.
"""

import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from hiwae_jax import _checks
from hiwae_jax._standardize import residual_limit, standardized

Parameters = Any  # a pytree of arrays whose first leaf has the shape of z; for the Gaussian `(loc, scale)`


class Forward(Protocol):
    """`z = T(noise; parameters)`: invertible and differentiable in the noise."""

    def __call__(self, parameters: Parameters, noise: Float[Array, " D"]) -> Float[Array, " D"]: ...


class Inverse(Protocol):
    """`noise = T^-1(z; parameters)`."""

    def __call__(self, parameters: Parameters, z: Float[Array, " D"]) -> Float[Array, " D"]: ...


class LogProb(Protocol):
    """The log-density of one z."""

    def __call__(self, parameters: Parameters, z: Float[Array, " D"]) -> Float[Array, ""]: ...


class Sampler(Protocol):
    """Draws noise. It receives the caller's key untouched, once for each example."""

    def __call__(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]: ...


def standard_normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
    """Draw independent standard normal noise from one typed key.

    Raises:
      TypeError: if the key is not a typed key made by `jax.random.key`.
      ValueError: if it is a batch of keys.
    """
    return jax.random.normal(_checks.one_key(key), shape, dtype)


class Family(NamedTuple):
    """A reparameterizable family on R^D: functions of the parameters of one distribution and one point.

    `forward` must map the noise of `sampler` to a draw whose log-density is `log_prob`; `inverse` undoes it, and is
    what re-expresses a sample through another member. The parameters are a pytree of arrays, of which the first leaf
    (in a dict: by name) must have the shape [D] of z, since it says how much noise is drawn; in a proposal of K members
    every leaf has K leading rows. On a curved support, such as the simplex, z may have more entries than the noise; the
    first leaf then has the shape of the noise, and the density is one of the first entries of z, as many as those.
    `hj.check_family` tries out whether the functions agree.

    Attributes:
      forward: `(parameters, noise [D]) -> z [D]`.
      inverse: `(parameters, z [D]) -> noise [D]`.
      log_prob: `(parameters, z [D]) -> scalar`.
      sampler: `(key, shape, dtype) -> noise`, whose entries are independent; standard normal unless another is given.
    """

    forward: Forward
    inverse: Inverse
    log_prob: LogProb
    sampler: Sampler = standard_normal


def check_family(name: str, family: Any) -> None:
    """Raise if the argument of this name is no family."""
    if not isinstance(family, Family):
        got = type(family).__name__
        raise TypeError(f"{name}: expected hj.diagonal_gaussian, hj.student_t(5.0) or another hj.Family, got {got}")


def check_sampler(sampler: Any) -> None:
    """Raise if a sampler of the caller's is no function of a key, a shape and a dtype."""
    if sampler is not None:
        _checks.function("sampler", sampler, "(key, shape, dtype)", result="noise")


def check_distribution(name: str, family: Family, parameters: Parameters) -> None:
    """Raise if the functions of the family do not fit the parameters of one distribution, given by the callable."""
    if family is diagonal_gaussian:
        return
    first = jax.tree.leaves(parameters)[0]  # in place of the noise
    z = jax.eval_shape(family.forward, parameters, first)
    has_more_entries = z.shape > first.shape and jax.eval_shape(family.inverse, parameters, z).shape == first.shape
    if has_more_entries and name == "base":  # what comes after takes the shape of its parameters for that of z
        raise ValueError(
            f"{name}: expected a family whose z has as many entries as its noise, {first.shape}, got {z.shape}; use a "
            "family like hj.transformed(hj.diagonal_gaussian, hj.simplex) for the members alone"
        )
    if z.shape != first.shape and not has_more_entries:
        raise ValueError(
            f"{name}: the first leaf of its parameters has shape {first.shape}, which is taken for that of z, but "
            f"family.forward gives a z of shape {z.shape}; put an array of the shape of z first"
        )
    density = jax.eval_shape(family.log_prob, parameters, z)
    if density.shape != ():
        raise ValueError(
            f"family.log_prob: expected a scalar for one z of shape {z.shape}, got shape {density.shape}; sum over its "
            "dimensions"
        )


def draw_noise(sampler: Sampler, key: Any, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
    """What the sampler draws, of the shape asked for."""
    noise = sampler(key, shape, dtype)
    if jnp.shape(noise) != shape:
        raise ValueError(f"sampler: expected noise of the shape asked for, {shape}, got {jnp.shape(noise)}")
    return noise


def log_volume(scale: Float[Array, "..."], z: Float[Array, " D"]) -> Float[Array, ""]:
    """`sum_d log scale_d`, where one scale may stand for several dimensions of z."""
    return jnp.sum(jnp.broadcast_to(jnp.log(scale), z.shape))


def _location_and_scale(parameters: Parameters, *, scale_ndim: int | None = None) -> tuple[Any, Any]:
    """The pair of arrays, for which a single array with two rows could be taken."""
    is_pair = isinstance(parameters, (tuple, list)) and len(parameters) == 2
    if not is_pair or scale_ndim not in (None, jnp.ndim(parameters[1])):
        expected = "(loc [D], scale_tril [D, D])" if scale_ndim == 2 else "(loc [D], scale [D])"
        raise ValueError(
            f"parameters: expected a pair {expected} for this family, got shapes {jax.tree.map(jnp.shape, parameters)}"
        )
    return parameters[0], parameters[1]


def _gaussian_forward(parameters: Parameters, noise: Float[Array, " D"]) -> Float[Array, " D"]:
    loc, scale = _location_and_scale(parameters)
    z: jax.Array = loc + scale * noise
    return z


def _gaussian_inverse(parameters: Parameters, z: Float[Array, " D"]) -> Float[Array, " D"]:
    noise: jax.Array = standardized(z, *_location_and_scale(parameters))
    return noise


def _gaussian_log_prob(parameters: Parameters, z: Float[Array, " D"]) -> Float[Array, ""]:
    loc, scale = _location_and_scale(parameters)
    residual = standardized(z, loc, scale)
    return -0.5 * jnp.sum(residual**2) - log_volume(scale, z) - 0.5 * z.size * math.log(2.0 * math.pi)


diagonal_gaussian = Family(_gaussian_forward, _gaussian_inverse, _gaussian_log_prob)
"""Gaussian with diagonal covariance; parameters are `(loc [D], scale [D])`, scale being the standard deviation.

Values and gradients are finite in float32 for scales from 1e-30 to 1e30. The log-density of a point that is more than
1e18 standard deviations from `loc` (fewer for a scale below one) is that of a point at this distance."""


@jax.custom_jvp
def forward_substitution(tril: Float[Array, "N N"], right: Float[Array, " N"]) -> Float[Array, " N"]:
    """The solution y of `tril y = right`, of whose matrix the lower triangle is read; held as `standardized` is.

    In place of LAPACK's routine, whose calls for many thousand vmapped systems were seen to wait for each other for
    ever on a CPU.
    """
    limit = residual_limit(jnp.min(jnp.abs(jnp.diagonal(tril))))
    return jnp.clip(_substituted(tril, right), -limit, limit)


@forward_substitution.defjvp
def _forward_substitution_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    tril, _ = primals
    solution = forward_substitution(*primals)
    # Without the square of a small diagonal, which the derivative of each division would have.
    return solution, _substituted(tril, tangents[1] - jnp.tril(tangents[0]) @ solution)


def _substituted(tril: Float[Array, "N N"], right: Float[Array, " N"]) -> Float[Array, " N"]:

    def next_entry(known: Float[Array, " N"], place: Any) -> tuple[Float[Array, " N"], None]:
        row = tril[place]
        entry = (right[place] - jnp.sum(row * known)) / row[place]
        return known.at[place].set(entry), None

    # Entries still to come are zero, so what stands above the diagonal is not seen unless it is no number.
    tril = jnp.tril(tril)
    solution, _ = jax.lax.scan(next_entry, jnp.zeros_like(right), jnp.arange(len(right)))
    return solution


def _full_rank_forward(parameters: Parameters, noise: Float[Array, " D"]) -> Float[Array, " D"]:
    loc, scale_tril = _location_and_scale(parameters, scale_ndim=2)
    z: jax.Array = loc + jnp.tril(scale_tril) @ noise
    return z


def _full_rank_inverse(parameters: Parameters, z: Float[Array, " D"]) -> Float[Array, " D"]:
    loc, scale_tril = _location_and_scale(parameters, scale_ndim=2)
    return forward_substitution(scale_tril, z - loc)


def _full_rank_log_prob(parameters: Parameters, z: Float[Array, " D"]) -> Float[Array, ""]:
    residual = _full_rank_inverse(parameters, z)
    log_determinant = jnp.sum(jnp.log(jnp.diagonal(parameters[1])))
    return -0.5 * jnp.sum(residual**2) - log_determinant - 0.5 * z.size * math.log(2.0 * math.pi)


full_rank_gaussian = Family(_full_rank_forward, _full_rank_inverse, _full_rank_log_prob)
"""Gaussian with any covariance `scale_tril scale_tril^T`; parameters are `(loc [D], scale_tril [D, D])`, of which the
lower triangle is used, and whose diagonal must be positive."""


def student_t(df: float) -> Family:
    """Independent Student t dimensions of location and scale: the heavy-tailed family of defensive proposals.

    Args:
      df: degrees of freedom, more than 0; the smaller, the heavier the tails. The variance is finite from 2 on.

    Returns:
      A family; parameters are `(loc [D], scale [D])`.

    Reference: Domke and Sheldon (2018), "Importance weighting and variational inference", section 5.

    >>> family = student_t(5.0)
    >>> round(float(family.log_prob((jnp.zeros(1), jnp.ones(1)), jnp.zeros(1))), 4)
    -0.9686
    """
    df = _checks.number("df", df, above=0.0, remark="; for a Gaussian leave the family out")
    log_constant = math.lgamma((df + 1.0) / 2.0) - math.lgamma(df / 2.0) - 0.5 * math.log(df * math.pi)

    def log_prob(parameters: Parameters, z: Float[Array, " D"]) -> Float[Array, ""]:
        _, scale = parameters
        residual = _gaussian_inverse(parameters, z)
        tails = -0.5 * (df + 1.0) * jnp.sum(jnp.log1p(residual**2 / df))
        return tails - log_volume(scale, z) + z.size * log_constant

    def noise(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
        return jax.random.t(_checks.one_key(key), df, shape, dtype)

    return Family(_gaussian_forward, _gaussian_inverse, log_prob, noise)
