r"""The pairs of many diagonal Gaussians and one point as matrix products.

What depends on a pair is a polynomial in z. Every derivative is then a matrix product of `[K, K]` weights with `[K, D]`
powers of z or coefficients of the members:

    grad log q_i(z) = -(z - mu_i) / sigma_i^2,    J_i(z) d eta_i = d mu_i + (z - mu_i) d sigma_i / sigma_i.

The values stay sums of squares. Multiplied out about the members' mean c, a derivative has a rounding error of the
order of `eps |z - c| / sigma_i` of itself, that of a scale `eps |z - c|^2 / sigma_i^2`. A sample's own member, the one
that counts where members are far from one another, is left out of the products and differentiated as it stands.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from hiwae_jax._families.family import Family, log_volume
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._families.pairs import Own, Pairs, PathWeights, move, one_by_one
from hiwae_jax._families.standardize import RESIDUAL_LIMIT
from hiwae_jax._types import Parameters, Scalar, Tangent

_Pair = tuple[Float[Array, "K D"], Float[Array, "K D"]]  # loc and scale of all members
_PairTangent = tuple[Tangent, Tangent]


def _product(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """A matrix product with all bits of its inputs: they are differences of large numbers."""
    # Accelerators round the inputs to fewer bits unless told not to.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


class _Centered(NamedTuple):
    """Members and a point relative to the members' mean, in units in which all of them are of the size of one.

    The mean and the unit change nothing but the rounding, and they keep squares of scales finite.

    Attributes:
      loc: [K, D].
      inverse: `1 / scale` [K, D], no larger than `1 / _NARROWEST`.
      precision: its square [K, D].
      z: [D].
      unit: what loc, scale and z are divided by [D].
    """

    loc: Float[Array, "K D"]
    inverse: Float[Array, "K D"]
    precision: Float[Array, "K D"]
    z: Float[Array, " D"]
    unit: Float[Array, " D"]


# Members narrower than this, beside the widest of them and their distances, do not move the samples of others: in
# float32 such a sample lies at their location or has no density.
_NARROWEST = 1e-9


def _centered(parameters: Parameters, z: Float[Array, " D"]) -> _Centered:
    """The members and the point in these units."""
    loc, scale = parameters
    center = jax.lax.stop_gradient(jnp.mean(loc, axis=0, keepdims=True))
    sizes = jax.lax.stop_gradient(jnp.maximum(jnp.abs(loc - center), scale))
    unit = jnp.max(sizes, axis=0, keepdims=True)
    per_unit = 1.0 / unit
    # The second bound keeps the square of `inverse`, divided by the unit, finite in float32.
    largest = jnp.minimum(1.0 / _NARROWEST, RESIDUAL_LIMIT * jnp.sqrt(unit))
    inverse = jnp.minimum(unit * (1.0 / scale), largest)
    return _Centered((loc - center) * per_unit, inverse, inverse**2, (z - center[0]) * per_unit[0], unit[0])


@jax.custom_jvp
def _gaussian_log_prob(parameters: Parameters, z: Float[Array, " D"], own: Own | None) -> Float[Array, " K"]:
    loc, scale = parameters
    # Held after the sum over dimensions, and not before as `standardized` is, or XLA would keep the limits as
    # [K, K, D] arrays. For any residual within its limit the numbers are the same.
    squares = ((z[None, :] - loc) * (1.0 / scale)) ** 2
    log_volumes = jax.vmap(log_volume, in_axes=(0, None))(scale, z)
    densities = -0.5 * jnp.sum(squares, axis=1) - log_volumes - 0.5 * z.size * math.log(2.0 * math.pi)
    return jnp.maximum(densities, -(RESIDUAL_LIMIT**2))


def _gaussian_log_prob_jvp(
    primals: tuple[_Pair, Float[Array, " D"], Own | None], tangents: tuple[_PairTangent, Tangent, Own | None]
) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    parameters, z, own = primals
    along_parameters, along_z, along_own = tangents
    moved = _log_prob_along(_centered(parameters, z), along_parameters, along_z)
    if own is not None and along_own is not None:
        of_own = _own_log_prob_along((*own.parameters, z), (*along_own.parameters, along_z))
        moved = jnp.where(jnp.arange(len(moved)) == own.member, of_own, moved)
    return _gaussian_log_prob(parameters, z, own), moved


def _log_prob_along(at: _Centered, along_parameters: _PairTangent, along_z: Tangent) -> Float[Array, " K"]:
    """How the log-densities of all members move with the parameters and z, by matrix products.

    Tangents that are known to be zero, `SymbolicZero`, are left out.
    """
    d_loc, d_scale = along_parameters
    per_unit = 1.0 / at.unit
    weighted = at.precision * at.loc
    moved = jnp.zeros_like(at.z, shape=len(at.loc))
    linear = jnp.zeros_like(at.loc)  # the coefficient of z
    if not isinstance(along_z, SymbolicZero):
        d_z_in_units = along_z * per_unit
        moved += _product(weighted, d_z_in_units) - _product(at.precision, at.z * d_z_in_units)
    if not isinstance(d_loc, SymbolicZero):
        d_loc_in_units = d_loc * per_unit[None, :]
        linear += at.precision * d_loc_in_units
        moved -= jnp.sum(weighted * d_loc_in_units, axis=1)
    if not isinstance(d_scale, SymbolicZero):
        growth = at.inverse * (d_scale * per_unit[None, :])
        linear -= 2.0 * weighted * growth
        moved += _product(at.precision * growth, at.z**2) + jnp.sum((weighted * at.loc - 1.0) * growth, axis=1)
    if not (isinstance(d_loc, SymbolicZero) and isinstance(d_scale, SymbolicZero)):
        moved += _product(linear, at.z)
    return moved


def _own_log_prob_along(at: tuple[Array, ...], along: tuple[Tangent, ...]) -> Scalar:
    """How the log-density of one member `(loc, scale, z)` moves, differentiated as it stands."""
    tangents = tuple(
        jnp.zeros_like(leaf) if isinstance(tangent, SymbolicZero) else tangent
        for leaf, tangent in zip(at, along, strict=True)
    )
    moved: Array = jax.jvp(lambda *leaves: diagonal_gaussian.log_prob(leaves[:2], leaves[2]), at, tangents)[1]
    return moved


_gaussian_log_prob.defjvp(_gaussian_log_prob_jvp, symbolic_zeros=True)


class _Owner(NamedTuple):
    """Which member drew the sample: ones and zeros."""

    is_own: Float[Array, " K"]
    is_other: Float[Array, " K"]


class _MemberVectors(NamedTuple):
    """A vector [D] for each of K members, which is linear in z in units: `constant_i + z linear_i`.

    Attributes:
      constant: [K, D].
      linear: [K, D].
      own: the vector of the own member, which is not computed from the other two [D].
    """

    constant: Float[Array, "K D"]
    linear: Float[Array, "K D"]
    own: Float[Array, " D"]

    def sums(self, rows: list[Float[Array, " K"]], z: Float[Array, " D"], owner: _Owner) -> Float[Array, "rows D"]:
        """`sum_i row_i vector_i` for each of these rows of weights; `z` is in units."""
        stacked = jnp.stack(rows)
        of_others = owner.is_other[None, :] * stacked
        total = _product(of_others, self.constant) + z[None, :] * _product(of_others, self.linear)
        return total + jnp.outer(stacked @ owner.is_own, self.own)


def _gaussian_paths(
    weights: PathWeights,
    parameters: Parameters,
    tangents: _Pair,
    z: Float[Array, " D"],
    drawn_slope: Float[Array, " D"],
    own: Own,
    own_tangent: Parameters,
) -> tuple[Float[Array, " D"], Scalar]:
    """Where the sample goes, and the scores, by matrix products."""
    at = _centered(parameters, z)
    per_unit = 1.0 / at.unit[None, :]
    growth = at.inverse * (tangents[1] * per_unit)
    is_own = (jnp.arange(len(at.loc)) == own.member).astype(z.dtype)
    owner = _Owner(is_own, 1.0 - is_own)
    slopes, moves = _slopes(at, per_unit, own, z), _moves(at, tangents[0], growth, own, own_tangent, z)
    slope_sums = slopes.sums([weights.partition, weights.along_own], at.z, owner)
    move_sums = moves.sums([weights.direction, weights.from_own, weights.from_mean], at.z, owner)

    # Along its path the density of a member falls as the volume grows: slope . move + d log q_i = -d log sigma_i.
    of_density = jax.jvp(lambda parameters: _gaussian_log_prob(parameters, z, None), (parameters,), (tangents,))[1]
    scores = -jnp.sum(owner.is_other * weights.from_member * (of_density + jnp.sum(growth, axis=1)))
    scores += jnp.dot(weights.from_member @ is_own * slopes.own + slope_sums[1], moves.own)
    scores += jnp.dot(drawn_slope, move_sums[1]) + jnp.dot(slope_sums[0], move_sums[2])
    return move_sums[0], scores


def _slopes(at: _Centered, per_unit: Float[Array, "1 D"], own: Own, z: Float[Array, " D"]) -> _MemberVectors:
    """The slopes `grad log q_i(z)` of all members."""
    precision = at.precision * per_unit
    own_slope = jax.grad(diagonal_gaussian.log_prob, argnums=1)(own.parameters, z)
    return _MemberVectors(precision * at.loc, -precision, own_slope)


def _moves(
    at: _Centered,
    d_loc: Float[Array, "K D"],
    growth: Float[Array, "K D"],
    own: Own,
    own_tangent: Parameters,
    z: Float[Array, " D"],
) -> _MemberVectors:
    """How z would move with the parameters of each member, whose scale grows by the factor `1 + growth`."""
    unit = at.unit[None, :]
    own_move = move(diagonal_gaussian, own.parameters, own_tangent, z)
    return _MemberVectors(d_loc - unit * at.loc * growth, unit * growth, own_move)


gaussian_pairs = Pairs(_gaussian_log_prob, _gaussian_paths)


def pairs_of(family: Family, *, products: bool) -> Pairs:
    """The pairs of a family: by matrix products where they are asked for and the family has them."""
    return gaussian_pairs if products and family is diagonal_gaussian else one_by_one(family)
