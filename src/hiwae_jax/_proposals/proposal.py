"""The type of a proposal: pure functions that draw K samples of one example and return their densities."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax._families.family import Family, Parameters
from hiwae_jax._families.pairs import Own, Pairs, pairs_of
from hiwae_jax._families.shared import is_shared, num_rows, over_members, split_shared, with_shared
from hiwae_jax._families.structure import Structure
from hiwae_jax._proposals.picks import Slots
from hiwae_jax._proposals.sharding import Placement
from hiwae_jax._types import Context, Example, Key, Params

Layout = Literal["one", "rows", "own", "table", "picked"]  # see `Members.layout`


class Structures(NamedTuple):
    """The structures of one z and of one z_0, where they are no vectors. There are no arrays in them."""

    z: Structure | None = None
    z0: Structure | None = None

    def restored(self, z: Float[Array, "... D"]) -> Any:
        """Samples in the user's structure."""
        return z if self.z is None else self.z.restored(z)

    def restored_z0(self, z0: Float[Array, "... D0"] | None) -> Any:
        """Auxiliary variables in the user's structure."""
        return z0 if self.z0 is None or z0 is None else self.z0.restored(z0)


class _DrawFields(NamedTuple):
    z: Float[Array, "K D"]
    parameters: Parameters
    z0: Float[Array, "K D0"] | None = None
    base: Parameters | None = None
    context: Context = None
    joint: Parameters | None = None
    refill: tuple[Any, Any] | None = None
    uniform: Float[Array, ""] | None = None
    reverse_noise: Float[Array, "K S D0"] | None = None
    structures: Structures = Structures()


class Draw(_DrawFields):
    """The K samples of one example, with the arrays that made them. Gradients run from `z` to the parameters.

    Attributes:
      z: the samples [K, D].
      parameters: the members' parameters, in the form that the proposal's densities take.
      z0: the auxiliary variable at each sample [K, D0] (equal rows where it is shared), or None.
      base: the parameters of q_0, or None.
      context: what the conditionals and the reverse model receive in place of x.
      joint: the parameters of the joint density of all samples, where they are not independent; or None.
      refill: `(z [K, D], z0)`, drawn anew from the same members (and the same z_0, if it is shared); None if not asked
        for.
      uniform: the number in [0, 1) that picks samples for the backward pass; None if the bound does not ask for it.
      reverse_noise: the noise [K, S, D0] of S further draws of the reverse model for each sample; None without them.
      structures: the structures of z and z_0 for the user, whose arrays are one vector here.
    """

    __slots__ = ()

    def __new__(cls, *fields: Any, members: Any = None, **named: Any) -> Self:
        """Make a draw from its fields; `members` is the former name of `parameters`."""
        if members is not None:
            _warn_of_members()
            named["parameters"] = members
        return super().__new__(cls, *fields, **named)

    @property
    def samples(self) -> Any:
        """The samples as `log_joint` receives them: `z`, or a pytree of arrays with K leading rows."""
        return self.structures.restored(self.z)

    @property
    def members(self) -> Parameters:
        """The former name of `parameters`."""
        _warn_of_members()
        return self.parameters


def _warn_of_members() -> None:
    warnings.warn("Draw.members: use Draw.parameters instead", DeprecationWarning, stacklevel=3)


def over_samples(function: Callable[[Any], Any], samples: Any, chunk_size: int | None) -> Any:
    """Evaluate the function at every sample, `chunk_size` at once; differentiation evaluates each chunk again.

    Every sample sees the same `Shared`.
    """
    rest, shared = split_shared(samples)

    def of_rest(rest: Any) -> Any:
        return function(with_shared(rest, shared))

    if chunk_size is None or chunk_size >= len(jax.tree.leaves(rest)[0]):
        return jax.vmap(of_rest)(rest)
    return jax.lax.map(jax.checkpoint(of_rest), rest, batch_size=chunk_size)


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
    at: Callable[[Params, Any, Any], Parameters] | None = None
    base_family: Family | None = None
    joint_log_prob: Callable[[Parameters, Any], Float[Array, ""]] | None = None
    placement: Placement = Placement(None)
    slots: Callable[[Any, Any], Slots] | None = None

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

    def over_own(self, function: Callable[..., Any], parameters: Parameters, *samples: Any) -> Any:
        """`function(parameters that made sample j, *row j of samples)`, for every sample."""
        own, axis = self.own(parameters)
        if axis is None:
            return jax.vmap(functools.partial(function, own))(*samples)
        return over_members(function, own, *samples)

    def forward(self, parameters: Parameters, noise: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """Sample j from the member that draws it."""
        z: jax.Array = self.over_own(self.family.forward, parameters, noise)
        return z

    def own_densities(
        self, parameters: Parameters, z: Float[Array, "K D"], chunk_size: int | None = None
    ) -> Float[Array, " K"]:
        """`log q_j(z_j)`; of picked members, the log-density of the mixture."""
        if self.layout == "picked":
            return self._mixture_densities(parameters, z, parameters.taking_part[None, :], chunk_size)
        densities: jax.Array = self.over_own(self.family.log_prob, parameters, z)
        return densities

    def drawn_densities(
        self, parameters: Parameters, z: Float[Array, "K D"], chunk_size: int | None = None
    ) -> Float[Array, " K"]:
        """The log-density of sample j given the others and z_0: the own one, unless picks depend on each other."""
        if self.slots is None:
            return self.own_densities(parameters, z, chunk_size)
        return self._mixture_densities(parameters, z, self.slots(parameters, z.dtype).own, chunk_size)

    def _mixture_densities(
        self, parameters: Parameters, z: Float[Array, "K D"], proportions: Any, chunk_size: int | None
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

        densities: jax.Array = self.over_rows(
            of_one, parameters, self.owners(parameters), of_each, z, chunk_size=chunk_size
        )
        return densities

    def pair_densities(self, parameters: Parameters, z: Float[Array, "N D"]) -> Float[Array, "N K"]:
        """`log q_i(z_j)` at row j, column i, for any points. In the layout "table" they must be the K samples."""
        densities: jax.Array = self.over_rows(lambda row, z: self.pairs().log_prob(row, z, None), parameters, z)
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
        self, function: Callable[..., Any], parameters: Any, *samples: Any, chunk_size: int | None = None
    ) -> Any:
        """`function(parameters of all members for sample j, *row j of samples)`, for every sample."""
        if self.layout == "table":
            return over_samples(lambda one: function(*one), (parameters, *samples), chunk_size)
        parameters = self.placement.whole(parameters.rows if self.layout == "picked" else parameters)
        return over_samples(lambda one: function(parameters, *one), samples, chunk_size)


class ReverseTraits(NamedTuple):
    """How a reverse model behaved in a trial. A field is None where the trial cannot tell.

    Attributes:
      row_by_row: whether row j depends on sample j alone, which every bound needs.
      alike: whether the rows of equal samples are equal, which every weighting but the uniform one needs.
    """

    row_by_row: bool | None
    alike: bool | None


class ReverseDraws(NamedTuple):
    """How the reverse model draws further auxiliary variables for each sample.

    Attributes:
      num_samples: S, how many; 0 for none.
      rows: `(params, context, z [K, D]) -> parameters`, a row for each sample. z has the user's structure.
      with_num_samples: the proposal with another S.
    """

    num_samples: int
    rows: Callable[[Params, Any, Any], Parameters]
    with_num_samples: "Callable[[int], Proposal]"


class DrawSamples(Protocol):
    """Draws the K samples of one example, and with `refill` a second set from the same members."""

    def __call__(self, params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw: ...


class Proposal(NamedTuple):
    """A joint distribution of K samples with the densities that weigh them. `independent`, `hierarchical` and their
    like make it.

    Its fields say which estimators are valid. Estimators that turn scores into paths need `members`, and weightings
    that compare the members need `pair_densities`.

    Attributes:
      draw: `(params, x, key, *, refill=False) -> Draw`.
      own_densities: `(parameters, z [K, D]) -> [K]`, the density that sample j was drawn with.
      pair_densities: `(parameters, z [N, D]) -> [N, K]`, `log q_i(z_j)` at row j, column i. None where the densities of
        all members at one point are not known. Then only a weighting that does not compare densities is valid.
      log_reverse: `(params, context, z0, z [K, D]) -> [K]`, the log-density of all auxiliary variables of sample j
        given z_j; None without auxiliary variables. Here and below z and z_0 have the structures of `Draw.structures`.
      reverse_traits: `(params, context, z) -> ReverseTraits`, how the reverse model's rows depend on their indices and
        on the samples.
      equal_members: whether the members are one distribution, so that a power heuristic is uniform.
      members: how samples move with the members' parameters; None where only the plain estimator is known.
      why_plain: the reason for `members` being None, for the error message.
      refills: whether `draw` can draw a second set of samples.
      reverse: further draws of the reverse model; None if it draws nothing.
      independent_noise: whether the noise of each sample is known to be independent of that of the others. All
        estimators but the plain one need this.
      fixed_weighting: the reason why no weighting but the uniform one is valid, for the error message; empty if others
        are valid too.
    """

    draw: DrawSamples
    own_densities: Callable[[Parameters, Any], Float[Array, " K"]]
    pair_densities: Callable[[Parameters, Any], Float[Array, "N K"]] | None
    log_reverse: Callable[[Params, Any, Any, Any], Float[Array, " K"]] | None = None
    reverse_traits: Callable[[Params, Any, Any], ReverseTraits] | None = None
    equal_members: bool = False
    members: Members | None = None
    why_plain: str = ""
    refills: bool = False
    independent_noise: bool = True
    reverse: "ReverseDraws | None" = None
    fixed_weighting: str = ""

    @property
    def reverse_kind(self) -> Callable[[Params, Any, Any], ReverseTraits] | None:
        """The former name of `reverse_traits`."""
        warnings.warn("Proposal.reverse_kind: use reverse_traits instead", DeprecationWarning, stacklevel=2)
        return self.reverse_traits

    @property
    def reverse_samples(self) -> int:
        """S, the number of further draws of the reverse model for each sample."""
        return 0 if self.reverse is None else self.reverse.num_samples

    @property
    def independent_samples(self) -> bool:
        """Whether the samples are known to be independent of each other, z_0 included."""
        if self.members is None or self.members.joint_log_prob is not None or not self.independent_noise:
            return False
        if self.members.slots is not None:
            return False
        return self.members.base_family is None or self.members.own_z0
