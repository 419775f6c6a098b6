r"""Many members at one point: their densities, and how each would move it. For K points these are K^2 pairs.

Differentiated pair by pair, as `one_by_one` does it, `K^2 D` numbers are kept and read again several times. For
diagonal Gaussians what depends on a pair is a polynomial in z, so that every derivative is a matrix product of `[K, K]`
weights with `[K, D]` powers of z or coefficients of the members:

    grad log q_i(z) = -(z - mu_i) / sigma_i^2,    J_i(z) d eta_i = d mu_i + (z - mu_i) d sigma_i / sigma_i.

The values stay sums of squares. Multiplied out about the members' mean c, a derivative has a rounding error of the
order of `eps |z - c| / sigma_i` of itself, that of a scale `eps |z - c|^2 / sigma_i^2`. A sample's own member, the one
that counts where members are far from one another, is left out of the products and differentiated as it stands.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from hiwae_jax._families.family import Family, Parameters, log_volume
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._families.standardize import RESIDUAL_LIMIT


class Own(NamedTuple):
    """The member that drew a sample.

    Attributes:
      index: its index.
      parameters: its own, which are also at this index among those of all members.
    """

    index: Any
    parameters: Parameters


class PathWeights(NamedTuple):
    """What a rule makes of all members' moves `m_i = J_i(z) d eta_i` and slopes `s_i = grad log q_i(z)`, [K] each.

    The sample goes to `sum_i direction_i m_i`. The scores are `sum_i c_i . m_i` with `c_i = from_member_i s_i +
    from_own_i s + from_mean_i sum_k partition_k s_k`, s being the slope of the density drawn from, and for the own
    member `sum_k along_own_k s_k` besides.
    """

    direction: Float[Array, " K"]
    from_member: Float[Array, " K"]
    from_own: Float[Array, " K"]
    from_mean: Float[Array, " K"]
    partition: Float[Array, " K"]
    along_own: Float[Array, " K"]


class Pairs(NamedTuple):
    """What a family knows of K members at one point z [D]; `parameters` and `tangents` have K rows.

    Attributes:
      log_prob: `(parameters, z, own) -> [K]`; `own` may be None.
      paths: `(weights, parameters, tangents, z, drawn_slope, own, own_tangent) -> ([D], scalar)`: where the sample
        goes, and the scores.
    """

    log_prob: Callable[[Parameters, Any, Own | None], Float[Array, " K"]]
    paths: Callable[..., tuple[Float[Array, " D"], Float[Array, ""]]]


def _move(family: Family, member: Parameters, tangent: Any, z: Float[Array, " D"]) -> Float[Array, " D"]:
    """How z would move with the parameters of this member if it had drawn z."""
    noise = family.inverse(member, z)
    moved: jax.Array = jax.jvp(lambda parameters: family.forward(parameters, noise), (member,), (tangent,))[1]
    return moved


def one_by_one(family: Family) -> Pairs:
    """Of any family."""
    slope_of_one = jax.grad(family.log_prob, argnums=1)

    def log_prob(parameters: Parameters, z: Any, own: Own | None) -> Float[Array, " K"]:
        densities: jax.Array = jax.vmap(family.log_prob, in_axes=(0, None))(parameters, z)
        return densities

    def total(weights: Float[Array, " K"], rows: Float[Array, "K D"]) -> Float[Array, " D"]:
        # Not a matrix product: as a sum it is fused with what makes the rows, and no [K, K, D] is formed.
        return jnp.sum(weights[:, None] * rows, axis=0)

    def paths(
        weights: PathWeights,
        parameters: Parameters,
        tangents: Any,
        z: Any,
        drawn_slope: Any,
        own: Own,
        own_tangent: Any,
    ) -> tuple[Float[Array, " D"], Float[Array, ""]]:
        moves = jax.vmap(lambda member, tangent: _move(family, member, tangent, z))(parameters, tangents)
        slopes = jax.vmap(slope_of_one, in_axes=(0, None))(parameters, z)
        of_own = (jnp.arange(len(weights.direction)) == own.index).astype(z.dtype)
        correction = weights.from_member[:, None] * slopes + jnp.outer(weights.from_own, drawn_slope)
        correction += jnp.outer(weights.from_mean, total(weights.partition, slopes))
        correction += jnp.outer(of_own, total(weights.along_own, slopes))
        return total(weights.direction, moves), jnp.sum(correction * moves)

    return Pairs(log_prob, paths)


def _product(a: Any, b: Any) -> Any:
    # Differences of large numbers: not to be rounded to fewer bits, as accelerators do unless told.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


class _Centered(NamedTuple):
    """Members and a point relative to the members' mean, in units in which all of them are of the size of one.

    Nothing depends on the mean and the unit but the rounding, and that squares of scales are finite.

    Attributes:
      loc: [K, D].
      inverse: `1 / scale` [K, D], no larger than `1 / _NARROWEST`.
      precision: its square.
      z: [D].
      unit: [D], what loc, scale and z are divided by.
    """

    loc: Any
    inverse: Any
    precision: Any
    z: Any
    unit: Any


# Members narrower than this, beside the widest of them and their distances, do not move the samples of others: in
# float32 such a sample lies at their location or has no density.
_NARROWEST = 1e-9


def _centered(parameters: Parameters, z: Any) -> _Centered:
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
def _gaussian_log_prob(parameters: Parameters, z: Any, own: Own | None) -> Float[Array, " K"]:
    loc, scale = parameters
    # Held after the sum over dimensions, and not before as `standardized` is, or XLA would keep the limits as
    # [K, K, D] arrays. For any residual within its limit the numbers are the same.
    squares = ((z[None, :] - loc) * (1.0 / scale)) ** 2
    log_volumes = jax.vmap(log_volume, in_axes=(0, None))(scale, z)
    densities = -0.5 * jnp.sum(squares, axis=1) - log_volumes - 0.5 * z.size * math.log(2.0 * math.pi)
    return jnp.maximum(densities, -(RESIDUAL_LIMIT**2))


def _gaussian_log_prob_jvp(primals: Any, tangents: Any) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    parameters, z, own = primals
    (d_loc, d_scale), d_z, d_own = tangents
    at = _centered(parameters, z)
    weighted = at.precision * at.loc
    moved = jnp.zeros_like(z, shape=len(at.loc))
    linear = jnp.zeros_like(at.loc)  # the coefficient of z
    per_unit = 1.0 / at.unit
    if not isinstance(d_z, SymbolicZero):
        d_z_in_units = d_z * per_unit
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
    if own is not None:
        leaves = (*own.parameters, z)
        along = [
            jnp.zeros_like(p) if isinstance(t, SymbolicZero) else t
            for p, t in zip(leaves, (*d_own.parameters, d_z), strict=True)
        ]
        of_own = jax.jvp(lambda *leaves: diagonal_gaussian.log_prob(leaves[:2], leaves[2]), leaves, tuple(along))[1]
        moved = jnp.where(jnp.arange(len(moved)) == own.index, of_own, moved)
    return _gaussian_log_prob(parameters, z, own), moved


_gaussian_log_prob.defjvp(_gaussian_log_prob_jvp, symbolic_zeros=True)


def _gaussian_paths(
    weights: PathWeights, parameters: Parameters, tangents: Any, z: Any, drawn_slope: Any, own: Own, own_tangent: Any
) -> tuple[Float[Array, " D"], Float[Array, ""]]:
    at, (d_loc, d_scale) = _centered(parameters, z), tangents
    unit, per_unit = at.unit[None, :], 1.0 / at.unit[None, :]
    growth = at.inverse * (d_scale * per_unit)
    of_own = (jnp.arange(len(at.loc)) == own.index).astype(z.dtype)
    others = 1.0 - of_own
    own_move = _move(diagonal_gaussian, own.parameters, own_tangent, z)
    own_slope = jax.grad(diagonal_gaussian.log_prob, argnums=1)(own.parameters, z)

    def sums(rows: list[Float[Array, " K"]], constant: Any, linear: Any, own_term: Any) -> Any:
        """Of `constant_i + z linear_i` with each of these weights, the own term apart."""
        stacked = jnp.stack(rows)
        others_alone = others[None, :] * stacked
        total = _product(others_alone, constant) + at.z[None, :] * _product(others_alone, linear)
        return total + jnp.outer(stacked @ of_own, own_term)

    precision = at.precision * per_unit
    slopes = sums([weights.partition, weights.along_own], precision * at.loc, -precision, own_slope)
    moving = [weights.direction, weights.from_own, weights.from_mean]
    moves = sums(moving, d_loc - unit * at.loc * growth, unit * growth, own_move)
    # Along its path the density of a member falls as the volume grows: slope . move + d log q_i = -d log sigma_i.
    of_density = jax.jvp(lambda parameters: _gaussian_log_prob(parameters, z, None), (parameters,), (tangents,))[1]
    scores = -jnp.sum(others * weights.from_member * (of_density + jnp.sum(growth, axis=1)))
    scores += jnp.dot(weights.from_member @ of_own * own_slope + slopes[1], own_move)
    scores += jnp.dot(drawn_slope, moves[1]) + jnp.dot(slopes[0], moves[2])
    return moves[0], scores


gaussian_pairs = Pairs(_gaussian_log_prob, _gaussian_paths)


def pairs_of(family: Family, *, products: bool) -> Pairs:
    """By matrix products where that is asked for and the family has them."""
    return gaussian_pairs if products and family is diagonal_gaussian else one_by_one(family)
