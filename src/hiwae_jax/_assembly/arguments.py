"""Checks of the arguments that `make_bound` and its like have in common."""

from hiwae_jax import _checks
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._types import Unchecked
from hiwae_jax._weightings import Weighting, uniform_weighting


def checked_weighting(densities: dict[str, Unchecked], proposal: Unchecked, weighting: Unchecked) -> Weighting:
    """The weighting, uniform if it is None. Raise if it does not fit the proposal, or one of the two is none at all."""
    for name, density in densities.items():
        _checks.function(name, density, "(params, x, z)", result="scalar")
    if not isinstance(proposal, Proposal):
        got = type(proposal).__name__
        raise TypeError(f"proposal: expected what hj.independent, hj.hierarchical or their like return, got {got}")
    if weighting is None:
        return uniform_weighting()
    if not isinstance(weighting, Weighting):
        got = type(weighting).__name__
        raise TypeError(f"weighting: expected what hj.uniform_weighting or hj.power_heuristic returns, got {got}")
    if weighting.logits is not None and proposal.reverse_samples > 0:
        raise ValueError(
            "weighting: expected one of densities with reverse_samples > 0, which averages over values of z_0, got a "
            "learned one, which may depend on z_0; use hj.power_heuristic(alpha) or reverse_samples=0"
        )
    if proposal.fixed_weighting and (weighting.compares_densities or weighting.logits is not None):
        raise ValueError(f"weighting: expected none for this proposal, since {proposal.fixed_weighting}; leave it out")
    if weighting.compares_densities and proposal.pair_densities is None:
        raise ValueError(
            "weighting: a power heuristic compares the densities of all members at one point, and this proposal does "
            f"not have them ({proposal.why_plain}); use hj.uniform_weighting() or hj.learned_weighting(logits_fn)"
        )
    return weighting


def checked_chunk_size(chunk_size: int | None) -> int | None:
    """The number of samples in memory together, None for all; raise if it is none."""
    return None if chunk_size is None else _checks.positive_integer("chunk_size", chunk_size)
