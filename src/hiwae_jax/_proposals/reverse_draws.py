r"""Estimates of the members' marginal densities, from further draws of the reverse model.

The log-weight of a hierarchical proposal contains `q_0(z_0) q_j(z_j | z_0) / r(z_0 | z_j)` in place of the marginal
density `q_j(z_j)`. With S further draws `psi_1, ..., psi_S ~ r(. | z_j)` and `psi_0 = z_0`, the mean

    s_i(z_j) = 1/(S + 1) sum_s q_0(psi_s) q_i(z_j | psi_s) / r(psi_s | z_j)

takes its place, in the weighting too. The bound stays valid for every S, and tends to that of the marginal densities as
S grows. The generative model is not evaluated again. docs/gradients.md has the derivation.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax._families.family import Parameters
from hiwae_jax._proposals.proposal import Members
from hiwae_jax._types import Context, Params


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
      params: the parameters of the members' networks, at the other psi.
      context: what these networks receive in place of x.
    """

    members: Members
    at_z0: Parameters
    base: Parameters
    params: Params
    context: Context


def log_marginals(one: OneSample, densities: Densities, index: Any | None) -> Float[Array, "..."]:
    """`log s_i(z)` of all members [K], or of the member `index` alone if it is given: a scalar.

    Members that are all one distribution have no index, and their density is a scalar.
    """
    members = densities.members
    base_family = members.base_family
    assert base_family is not None  # there is a z_0
    psi = jax.vmap(base_family.forward, in_axes=(None, 0))(one.reverse, one.noise)
    later = jax.vmap(lambda psi: _members_at(densities, psi))(psi)
    parameters = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), densities.at_z0, later)
    psi = jnp.concatenate([one.z0[None], psi])

    def of_one(psi: Float[Array, " D0"], parameters: Parameters) -> Float[Array, "..."]:
        log_ratio = base_family.log_prob(densities.base, psi) - base_family.log_prob(one.reverse, psi)
        if members.equal:
            return log_ratio + members.family.log_prob(parameters, one.z)
        if index is not None:
            own = jax.tree.map(lambda rows: rows[index], parameters)
            return log_ratio + members.family.log_prob(own, one.z)
        of_all: jax.Array = jax.vmap(members.family.log_prob, in_axes=(0, None))(parameters, one.z)
        return log_ratio + of_all

    log_ratios: jax.Array = jax.vmap(of_one)(psi, parameters)
    return jax.nn.logsumexp(log_ratios, axis=0) - jnp.log(jnp.asarray(len(psi), log_ratios.dtype))


def _members_at(densities: Densities, psi: Float[Array, " D0"]) -> Parameters:
    """The members' parameters given one value of the auxiliary variable."""
    members = densities.members
    assert members.at is not None  # there is a z_0
    parameters = members.at(densities.params, densities.context, psi[None])
    return jax.tree.map(lambda rows: rows[0], parameters) if members.own_z0 else parameters
