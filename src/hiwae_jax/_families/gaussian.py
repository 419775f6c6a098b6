"""Gaussian families, with a diagonal or a full covariance."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hiwae_jax._families.family import Family, like_loc, log_volume, require_value
from hiwae_jax._families.standardize import residual_limit, standardized
from hiwae_jax._types import Parameters, Scalar


def location_and_scale(parameters: Parameters, *, scale_ndim: int | None = None) -> tuple[Array, Array]:
    """Return the pair of arrays, or raise: a single array with two rows would unpack like a pair."""
    is_pair = isinstance(parameters, (tuple, list)) and len(parameters) == 2
    if not is_pair or scale_ndim not in (None, jnp.ndim(parameters[1])):
        expected = "(loc [D], scale_tril [D, D])" if scale_ndim == 2 else "(loc [D], scale [D])"
        raise ValueError(
            f"parameters: expected a pair {expected} for this family, got shapes {jax.tree.map(jnp.shape, parameters)}"
        )
    return parameters[0], parameters[1]


def _gaussian_forward(parameters: Parameters, noise: Float[Array, "..."]) -> Float[Array, "..."]:
    loc, scale = location_and_scale(parameters)
    return loc + scale * noise


def _gaussian_inverse(parameters: Parameters, z: Float[Array, "..."]) -> Float[Array, "..."]:
    return standardized(z, *location_and_scale(parameters))


def _gaussian_log_prob(parameters: Parameters, z: Float[Array, "..."]) -> Scalar:
    loc, scale = location_and_scale(parameters)
    residual = standardized(z, loc, scale)
    require_value("diagonal_gaussian", z, residual)
    return -0.5 * jnp.sum(residual**2) - log_volume(scale, residual) - 0.5 * residual.size * math.log(2.0 * math.pi)


diagonal_gaussian = Family(_gaussian_forward, _gaussian_inverse, _gaussian_log_prob, noise_like=like_loc)
"""Gaussian with diagonal covariance; parameters are `(loc [D], scale [D])`, scale being the standard deviation. In a
proposal both may be scalars, arrays of any shape or pytrees, of the structure and the shapes of z.

Values and gradients are finite in float32 for scales from 1e-30 to 1e30. The log-density of a point that is more than
1e18 standard deviations from `loc` (fewer for a scale below one) is that of a point at this distance."""


@jax.custom_jvp
def forward_substitution(tril: Float[Array, "N N"], right: Float[Array, " N"]) -> Float[Array, " N"]:
    """The solution y of `tril y = right`, where the lower triangle of `tril` is read. It is limited as `standardized`
    is.

    This replaces LAPACK's routine. On a CPU, its calls for many thousand vmapped systems were seen to block each other
    for ever.
    """
    limit = residual_limit(jnp.min(jnp.abs(jnp.diagonal(tril))))
    return jnp.clip(_substituted(tril, right), -limit, limit)


@forward_substitution.defjvp
def _forward_substitution_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    tril, _ = primals
    solution = forward_substitution(*primals)
    # The derivative of each division would contain the square of a small diagonal. This form does not.
    return solution, _substituted(tril, tangents[1] - jnp.tril(tangents[0]) @ solution)


def _substituted(tril: Float[Array, "N N"], right: Float[Array, " N"]) -> Float[Array, " N"]:

    def next_entry(known: Float[Array, " N"], place: Int[Array, ""]) -> tuple[Float[Array, " N"], None]:
        row = tril[place]
        entry = (right[place] - jnp.sum(row * known)) / row[place]
        return known.at[place].set(entry), None

    # Entries that are not known yet are zero, so nothing above the diagonal is read, unless it is NaN or infinite.
    tril = jnp.tril(tril)
    solution, _ = jax.lax.scan(next_entry, jnp.zeros_like(right), jnp.arange(len(right)))
    return solution


def _full_rank_forward(parameters: Parameters, noise: Float[Array, " D"]) -> Float[Array, " D"]:
    loc, scale_tril = location_and_scale(parameters, scale_ndim=2)
    return loc + jnp.tril(scale_tril) @ noise


def _full_rank_inverse(parameters: Parameters, z: Float[Array, " D"]) -> Float[Array, " D"]:
    loc, scale_tril = location_and_scale(parameters, scale_ndim=2)
    return forward_substitution(scale_tril, z - loc)


def _full_rank_log_prob(parameters: Parameters, z: Float[Array, " D"]) -> Scalar:
    residual = _full_rank_inverse(parameters, z)
    require_value("full_rank_gaussian", z, residual)
    log_determinant = jnp.sum(jnp.log(jnp.diagonal(parameters[1])))
    return -0.5 * jnp.sum(residual**2) - log_determinant - 0.5 * residual.size * math.log(2.0 * math.pi)


full_rank_gaussian = Family(_full_rank_forward, _full_rank_inverse, _full_rank_log_prob)
"""Gaussian with any covariance `scale_tril scale_tril^T`; parameters are `(loc [D], scale_tril [D, D])`, of which the
lower triangle is used, and whose diagonal must be positive."""
