"""The members of a proposal: their densities at all samples, and how a sample would move with each of them."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from hiwae_jax._families.family import Family
from hiwae_jax._families.gaussian_pairs import pairs_of
from hiwae_jax._families.pairs import Own, Pairs
from hiwae_jax._families.shared import is_shared, num_rows, over_members, over_samples
from hiwae_jax._proposals.picks import Picked, Slots
from hiwae_jax._proposals.sharding import Placement
from hiwae_jax._types import Context, Latent, Parameters, Params, Samples, Scalar

Layout = Literal["one", "rows", "own", "table", "picked"]  # see `Members.layout`
Result = TypeVar("Result")


class Members(NamedTuple):
    """How a sample would move with the parameters of any member. Estimators that replace scores by paths need this.

    Attributes:
      family: the family of the members.
      layout: how the members' parameters lie. "one": all members are one distribution, and the parameters have no
        member axis. "rows": sample j comes from row j, and every row is a density for every sample. "own": sample j
        comes from row j, and is compared with no other row. "table": row j holds the K members given sample j's own
        z_0. "picked": the parameters are a `Picked` with M rows. Sample j comes from the row that was picked for it,
        and is weighed with the mixture of all rows.
      at: `(params, context, z0 [K, D0]) -> parameters`, the members' parameters as a function of z_0, which has the
        structure that the user gave it; None without z_0.
      base_family: the family of q_0, or None.
      joint_log_prob: `(joint, z [K, D]) -> scalar`, the log-density of all K samples; None where they are independent
        given z_0.
      placement: on which devices the members are compared.
      slots: `(parameters, dtype) -> Slots`, the members that may fill each slot, given the other picks. None in other
        layouts, and where the picks are independent: then every sample has the density of the mixture.
    """

    family: Family
    layout: Layout
    at: Callable[[Params, Context, Latent], Parameters] | None = None
    base_family: Family | None = None
    joint_log_prob: Callable[[Parameters, Samples], Scalar] | None = None
    placement: Placement = Placement(None)
    slots: Callable[[Picked, DTypeLike], Slots] | None = None

    @property
    def own_z0(self) -> bool:
        """Whether each sample has a z_0 of its own."""
        return self.layout in ("own", "table")

    @property
    def equal(self) -> bool:
        """Whether the members are one distribution, so that a power heuristic is uniform."""
        return self.layout in ("one", "own")

    def own(self, parameters: Parameters) -> tuple[Parameters, int | None]:
        """The parameters that made each sample, and the axis of those that are not `Shared`, for `jax.vmap`."""
        if self.layout == "table":
            diagonal = lambda table: table if is_shared(table) else jnp.einsum("jj...->j...", table)
            return jax.tree.map(diagonal, parameters, is_leaf=is_shared), 0
        if self.layout == "picked":
            picked = lambda rows: rows if is_shared(rows) else rows[parameters.picks]
            return jax.tree.map(picked, parameters.rows, is_leaf=is_shared), 0
        return parameters, None if self.layout == "one" else 0

    def over_own(self, function: Callable[..., Result], parameters: Parameters, *samples: object) -> Result:
        """`function(parameters that made sample j, *row j of samples)`, for every sample."""
        own, axis = self.own(parameters)
        if axis is None:
            return jax.vmap(functools.partial(function, own))(*samples)
        return over_members(function, own, *samples)

    def forward(self, parameters: Parameters, noise: Float[Array, "K E"]) -> Samples:
        """Sample j from the member that draws it."""
        return self.over_own(self.family.forward, parameters, noise)

    def own_densities(
        self, parameters: Parameters, z: Float[Array, "K D"], chunk_size: int | None = None
    ) -> Float[Array, " K"]:
        """`log q_j(z_j)`; of picked members, the log-density of the mixture."""
        if self.layout == "picked":
            return self._mixture_densities(parameters, z, parameters.taking_part[None, :], chunk_size)
        return self.over_own(self.family.log_prob, parameters, z)

    def drawn_densities(
        self, parameters: Parameters, z: Float[Array, "K D"], chunk_size: int | None = None
    ) -> Float[Array, " K"]:
        """The log-density of sample j given the others and z_0: the own one, unless picks depend on each other."""
        if self.slots is None:
            return self.own_densities(parameters, z, chunk_size)
        return self._mixture_densities(parameters, z, self.slots(parameters, z.dtype).own, chunk_size)

    def _mixture_densities(
        self,
        parameters: Parameters,
        z: Samples,
        proportions: Float[Array, "rows M"] | Bool[Array, "rows M"],
        chunk_size: int | None,
    ) -> Float[Array, " K"]:
        """`log sum_i c_i q_i(z_j)`, where each row c of the proportions [K, M] or [1, M] is divided by its sum."""
        of_each = jnp.broadcast_to(proportions.astype(z.dtype), (len(z), proportions.shape[1]))
        log_prob = self.pairs().log_prob

        def of_one(rows: Parameters, own: Own, c: Float[Array, " M"], z: Float[Array, " D"]) -> Float[Array, ""]:
            # Without any member there is no density. An infinite one makes every weight zero.
            total = jnp.sum(c)
            safe = jnp.where(total > 0.0, c, 1.0)
            density = jax.nn.logsumexp(log_prob(rows, z, own), b=safe) - jnp.log(jnp.sum(safe))
            return jnp.where(total > 0.0, density, jnp.inf)

        return self.over_rows(of_one, parameters, self.owners(parameters), of_each, z, chunk_size=chunk_size)

    def pair_densities(self, parameters: Parameters, z: Float[Array, "N D"]) -> Float[Array, "N K"]:
        """`log q_i(z_j)` at row j, column i, for any points. In the layout "table" they must be the K samples."""
        densities = self.over_rows(lambda row, z: self.pairs().log_prob(row, z, None), parameters, z)
        if self.layout == "picked":
            densities = jnp.where(parameters.taking_part[None, :], densities, -jnp.inf)
        return densities

    def pairs(self, *, products: bool = True) -> Pairs:
        """Functions that compare one sample with all members."""
        # In a table no two samples share a row, so products would gain nothing.
        return pairs_of(self.family, products=products and self.layout != "table")

    def owners(self, parameters: Parameters) -> Own:
        """The member that drew each sample, with a leading axis of samples."""
        own, axis = self.own(parameters)
        assert axis == 0  # members are compared where they differ
        return Own(parameters.picks if self.layout == "picked" else jnp.arange(num_rows(own)), own)

    def over_rows(
        self, function: Callable[..., Result], parameters: Parameters, *samples: object, chunk_size: int | None = None
    ) -> Result:
        """`function(parameters of all members for sample j, *row j of samples)`, for every sample."""
        if self.layout == "table":
            return over_samples(lambda one: function(*one), (parameters, *samples), chunk_size)
        parameters = self.placement.whole(parameters.rows if self.layout == "picked" else parameters)
        return over_samples(lambda one: function(parameters, *one), samples, chunk_size)
