"""Many members at one point: their densities, and how each would move it. For K points these are K^2 pairs.

Here pairs are differentiated one by one, for any family: `K^2 D` numbers are kept and read again several times.
`gaussian_pairs.py` has matrix products in their place.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hiwae_jax._families.family import Family
from hiwae_jax._families.shared import over_members
from hiwae_jax._types import Parameters, Scalar


class Own(NamedTuple):
    """The member that drew a sample.

    Attributes:
      member: its index among all members.
      parameters: its parameters, which are also at this index among those of all members.
    """

    member: Int[Array, "..."] | int
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


@runtime_checkable
class Paths(Protocol):
    """Where a sample goes with the moves of all members, [D], and the scores."""

    def __call__(
        self,
        weights: PathWeights,
        parameters: Parameters,
        tangents: Parameters,
        z: Float[Array, " D"],
        drawn_slope: Float[Array, " D"],
        own: Own,
        own_tangent: Parameters,
        /,
    ) -> tuple[Float[Array, " D"], Scalar]: ...


class Pairs(NamedTuple):
    """What a family knows of K members at one point z [D]; `parameters` and `tangents` have K rows.

    Attributes:
      log_prob: `(parameters, z, own) -> [K]`; `own` may be None.
      paths: `(weights, parameters, tangents, z, drawn_slope, own, own_tangent) -> ([D], scalar)`: where the sample
        goes, and the scores.
    """

    log_prob: Callable[[Parameters, Float[Array, " D"], Own | None], Float[Array, " K"]]
    paths: Paths


def move(family: Family, member: Parameters, tangent: Parameters, z: Float[Array, " D"]) -> Float[Array, " D"]:
    """How z would move with the parameters of this member if it had drawn z."""
    assert family.inverse is not None  # DOUBLY_REPARAMETERIZED refuses others
    noise = family.inverse(member, z)
    moved: jax.Array = jax.jvp(lambda parameters: family.forward(parameters, noise), (member,), (tangent,))[1]
    return moved


def one_by_one(family: Family) -> Pairs:
    """The pairs of any family, member by member."""
    slope_of_one = jax.grad(family.log_prob, argnums=1)

    def log_prob(parameters: Parameters, z: Float[Array, " D"], own: Own | None) -> Float[Array, " K"]:
        return over_members(lambda member: family.log_prob(member, z), parameters)

    def total(weights: Float[Array, " K"], rows: Float[Array, "K D"]) -> Float[Array, " D"]:
        # Not a matrix product: as a sum it is fused with what makes the rows, and no [K, K, D] is formed.
        return jnp.sum(weights[:, None] * rows, axis=0)

    def paths(
        weights: PathWeights,
        parameters: Parameters,
        tangents: Parameters,
        z: Float[Array, " D"],
        drawn_slope: Float[Array, " D"],
        own: Own,
        own_tangent: Parameters,
    ) -> tuple[Float[Array, " D"], Scalar]:
        moves = over_members(lambda member, tangent: move(family, member, tangent, z), parameters, tangents)
        slopes = over_members(lambda member: slope_of_one(member, z), parameters)
        is_own = (jnp.arange(len(weights.direction)) == own.member).astype(z.dtype)
        correction = weights.from_member[:, None] * slopes + jnp.outer(weights.from_own, drawn_slope)
        correction += jnp.outer(weights.from_mean, total(weights.partition, slopes))
        correction += jnp.outer(is_own, total(weights.along_own, slopes))
        return total(weights.direction, moves), jnp.sum(correction * moves)

    return Pairs(log_prob, paths)
