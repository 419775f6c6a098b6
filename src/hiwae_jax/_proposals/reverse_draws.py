r"""Estimates of the members' marginal densities, from further draws of the reverse model.

The log-weight of a hierarchical proposal contains `q_0(z_0) q_j(z_j | z_0) / r(z_0 | z_j)` in place of the marginal
density `q_j(z_j)`. With S further draws `psi_1, ..., psi_S ~ r(. | z_j)` and `psi_0 = z_0`, the mean

    s_i(z_j) = 1/(S + 1) sum_s q_0(psi_s) q_i(z_j | psi_s) / r(psi_s | z_j)

takes its place, in the weighting too. The bound stays valid for every S, and tends to that of the marginal densities as
S grows. The generative model is not evaluated again. docs/gradients.md has the derivation.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hiwae_jax._families.distribution import first_row
from hiwae_jax._families.shared import is_shared, over_members, unwrapped
from hiwae_jax._proposals.members import Members
from hiwae_jax._types import Parameters


class OneSample(NamedTuple):
    """A sample, and what its auxiliary variables are drawn from.

    Attributes:
      z: the sample [D].
      z0: its z_0 [D0], which is psi_0.
      reverse: the parameters of `r(. | z)`.
      noise: the noise [S, D0] of the other psi.
    """

    z: Float[Array, " D"]
    z0: Float[Array, " D0"]
    reverse: Parameters
    noise: Float[Array, "S D0"]


class Densities(NamedTuple):
    """The densities besides the reverse model.

    Attributes:
      members: the members.
      at_z0: the members' parameters at psi_0, as the draw has them for this sample.
      base: the parameters of q_0.
      at: `(psi [1, D0]) -> parameters`, the members' parameters at another value of z_0.
    """

    members: Members
    at_z0: Parameters
    base: Parameters
    at: Callable[[Float[Array, "1 D0"]], Parameters]


def log_marginals(one: OneSample, densities: Densities, index: Int[Array, ""] | None) -> Float[Array, "..."]:
    """`log s_i(z)` of all members [K], or of the member `index` alone if it is given: a scalar.

    Members that are all one distribution have no index, and their density is a scalar.
    """
    members, reverse = densities.members, unwrapped(one.reverse)
    base_family = members.base_family
    assert base_family is not None  # there is a z_0

    def log_ratio(psi: Float[Array, " D0"], parameters: Parameters) -> Float[Array, "..."]:
        of_psi = base_family.log_prob(densities.base, psi) - base_family.log_prob(reverse, psi)
        return of_psi + _log_densities(members, parameters, one.z, index)

    def at_further_draw(noise: Float[Array, " D0"]) -> Float[Array, "..."]:
        psi = base_family.forward(reverse, noise)
        parameters = densities.at(psi[None])
        return log_ratio(psi, first_row(parameters) if members.own_z0 else parameters)

    first = log_ratio(one.z0, densities.at_z0)
    ratios = jnp.concatenate([first[None], jax.vmap(at_further_draw)(one.noise)])
    return jax.nn.logsumexp(ratios, axis=0) - jnp.log(jnp.asarray(len(ratios), ratios.dtype))


def _log_densities(
    members: Members, parameters: Parameters, z: Float[Array, " D"], index: Int[Array, ""] | None
) -> Float[Array, "..."]:
    """`log q_i(z)` of all members [K], or of one member, from the parameters at one z_0."""
    if members.equal:
        return members.family.log_prob(unwrapped(parameters), z)
    if index is not None:
        own = jax.tree.map(lambda node: node if is_shared(node) else node[index], parameters, is_leaf=is_shared)
        return members.family.log_prob(unwrapped(own), z)
    return over_members(lambda row: members.family.log_prob(row, z), parameters)
