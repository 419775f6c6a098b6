"""What gradient rules need of a proposal and a weighting, and how a request that lacks it is refused."""

from collections.abc import Callable
from typing import NamedTuple

from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._weightings import Weighting


class Request(NamedTuple):
    """What is known of a bound before anything is drawn. A rule may refuse it."""

    proposal: Proposal
    weighting: Weighting
    free_bits: float

    @property
    def scores_are_constant(self) -> bool:
        """Whether no pairs matter: `l[j, j]` alone is scored, with weight -1, and samples are independent given z_0.

        Each sample must have the density that is scored, given all others.
        """
        members = self.proposal.members
        independent = members is not None and members.joint_log_prob is None and members.slots is None
        return independent and (self.proposal.equal_members or not self.weighting.compares_densities)


class Need(NamedTuple):
    """What a rule needs of a request.

    Attributes:
      is_met: whether the request has it.
      otherwise: why it is refused, as what follows the name of the rule; `{why_plain}` stands for the proposal's.
    """

    is_met: Callable[[Request], bool]
    otherwise: str

    def refusal(self, request: Request) -> str | None:
        """Why the request is refused; None if it is not."""
        return None if self.is_met(request) else self.otherwise.format(why_plain=request.proposal.why_plain)


def _has_paths(request: Request) -> bool:
    members = request.proposal.members
    if members is None:
        return True  # such proposals take no family without
    return all(family is None or family.pathwise for family in (members.family, members.base_family))


def _has_inverse(request: Request) -> bool:
    members = request.proposal.members
    if members is None or request.scores_are_constant or members.slots is not None:
        return True  # samples move along their own paths only, as those of picked members do
    return members.family.inverse is not None


def _has_independent_samples(request: Request) -> bool:
    members = request.proposal.members
    return members is None or members.joint_log_prob is None


def _has_independent_picks(request: Request) -> bool:
    members = request.proposal.members
    return members is None or members.slots is None


needs_members = Need(
    lambda request: request.proposal.members is not None,
    "is not valid for this proposal: {why_plain}; use gradient='reparameterized'",
)
"""Paths need how a sample would move with the parameters of each member."""

needs_paths = Need(
    _has_paths,
    "differentiates through the samples, and those of this family have no derivative; use 'score_function'",
)
"""Every rule that moves samples needs families whose samples have a derivative."""

needs_inverse = Need(
    _has_inverse,
    "moves samples along the paths of other members, for which this family has no inverse; use gradient='refilled' "
    "or 'reparameterized', or a weighting that does not compare densities",
)
"""Where samples move along the paths of other members, the family needs an inverse."""

needs_independent_samples = Need(
    _has_independent_samples,
    "needs samples that are independent given z_0, and these are correlated; use gradient='reparameterized' or "
    "'doubly_reparameterized'",
)
"""The density that a sample is drawn from must not depend on the other samples."""

needs_one_z0_per_sample = Need(
    lambda request: request.proposal.reverse_samples == 0,
    "is not derived for reverse_samples > 0; use gradient='reparameterized'",
)
"""With further draws of the reverse model the scored densities are means over several values of z_0."""

needs_independent_picks = Need(
    _has_independent_picks,
    "is biased where the picks of members depend on one another; use gradient='doubly_reparameterized' or "
    "hj.mixture(..., draw='with_replacement')",
)
"""Where members are picked in dependence on one another, samples lack the density that weighs them."""
