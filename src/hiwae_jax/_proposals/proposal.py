"""The type of a proposal: pure functions that draw K samples of one example and return their densities."""

import warnings
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float

from hiwae_jax._proposals.draw import Draw
from hiwae_jax._proposals.members import Members
from hiwae_jax._types import Context, Example, Key, Latent, Parameters, Params, Samples


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
    rows: Callable[[Params, Context, Latent], Parameters]
    with_num_samples: "Callable[[int], Proposal]"


@runtime_checkable
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
    own_densities: Callable[[Parameters, Samples], Float[Array, " K"]]
    pair_densities: Callable[[Parameters, Float[Array, "N D"]], Float[Array, "N K"]] | None
    log_reverse: Callable[[Params, Context, Latent, Latent], Float[Array, " K"]] | None = None
    reverse_traits: Callable[[Params, Context, Latent], ReverseTraits] | None = None
    equal_members: bool = False
    members: Members | None = None
    why_plain: str = ""
    refills: bool = False
    independent_noise: bool = True
    reverse: "ReverseDraws | None" = None
    fixed_weighting: str = ""

    @property
    def reverse_kind(self) -> Callable[[Params, Context, Latent], ReverseTraits] | None:
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
