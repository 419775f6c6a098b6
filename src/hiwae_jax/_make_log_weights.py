"""`make_log_weights` turns a log-joint and a proposal into the K log-weights of one example."""

import dataclasses
from collections.abc import Callable

from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._assembly.arguments import checked_chunk_size, checked_weighting
from hiwae_jax._assembly.ingredients import Ingredients, no_prior
from hiwae_jax._assembly.parts import log_weight_terms, make_parts
from hiwae_jax._assembly.reverse_model import require_reverse_noise
from hiwae_jax._assembly.shares import log_weights_and_shares, why_no_shares
from hiwae_jax._proposals.draw import Draw
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._types import Example, Key, LogDensity, Params, Unchecked
from hiwae_jax._weightings import Weighting


@dataclasses.dataclass(frozen=True)
class LogWeights:
    """The log-weights of one example as a function: `log_weights(params, x, key) -> [K]`.

    Attributes:
      evaluate: the function. In place of the key it takes what the `draw` of a bound with the same proposal has drawn.
      independent_samples: whether the K samples are known to be independent of each other. Diagnostics of independent
        weights, such as `pareto_khat`, need that.
      with_shares: `(params, x, key) -> (log-weights [K], shares [K])`, with each member's share of the samples,
        `sum_j q_i(z_j) / sum_m q_m(z_j)`, whose mean is one: control variates for `make_log_evidence`. Model and
        densities are evaluated once. None where the shares are constant or not known.
      why_no_shares: the reason for `with_shares` being None, for the error message.
    """

    evaluate: Callable[[Params, Example, Key], Float[Array, " K"]]
    independent_samples: bool
    with_shares: Callable[[Params, Example, Key], tuple[Float[Array, " K"], Float[Array, " K"]]] | None = None
    why_no_shares: str = "the densities of all members are not known"

    def __call__(self, params: Params, x: Example, key: Key) -> Float[Array, " K"]:
        """The log-weights [K] of one example, mixing weight included."""
        return self.evaluate(params, x, key)


@_checks.by_name
def make_log_weights(
    log_joint: LogDensity,
    proposal: Proposal,
    *,
    weighting: Weighting | None = None,
    reverse_samples: int | None = None,
    chunk_size: int | None = None,
) -> LogWeights:
    """The K log-weights of one example, mixing weight included: `sum_j exp(log_w_j)` estimates p(x) without bias.

    Each log-weight contains its mixing weight, 1/K or pi_j. So the bound is their log-sum-exp, not `iwlb` of them.

    Args:
      log_joint: as for `make_bound`.
      proposal: as for `make_bound`.
      weighting: as for `make_bound`.
      reverse_samples: S of `hierarchical`, for a proposal that was trained with another S; None for that of the
        proposal. More draws of the reverse model give a tighter bound and less noisy estimates of p(x).
      chunk_size: as for `make_bound`.

    Returns:
      `log_weights(params, x, key) -> [K]`, in at least float32. In place of the key it takes what `bound.draw` has
      drawn, for a bound with the same proposal. Its attribute `independent_samples` says whether the samples are
      independent of each other.

    Raises:
      The errors of `make_bound`.

    *Gradients*: the plain pathwise ones.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import hiwae_jax as hj
    >>> proposal = hj.independent(lambda params, x: (x, jnp.ones_like(x)), num_samples=4)
    >>> log_weights = hj.make_log_weights(lambda params, x, z: -0.5 * jnp.sum(z**2), proposal)
    >>> log_weights(None, jnp.zeros(2), jax.random.key(0)).shape
    (4,)
    """
    checked_weighting({"log_joint": log_joint}, proposal, weighting)
    if reverse_samples is not None:
        proposal = _with_reverse_samples(proposal, reverse_samples)
    weighting = checked_weighting({"log_joint": log_joint}, proposal, weighting)
    chunk_size = checked_chunk_size(chunk_size)
    ingredients = Ingredients("log_joint", log_joint, no_prior, proposal, weighting, chunk_size=chunk_size)

    def log_weights(params: Params, x: Example, key: Key) -> Float[Array, " K"]:
        draw = key if isinstance(key, Draw) else proposal.draw(params, x, key)
        require_reverse_noise(draw, proposal)
        return log_weight_terms(make_parts(ingredients, params, x, draw), draw).log_weights

    def with_shares(params: Params, x: Example, key: Key) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
        draw = key if isinstance(key, Draw) else proposal.draw(params, x, key)
        return log_weights_and_shares(ingredients, params, x, draw)

    reason = why_no_shares(proposal)
    return LogWeights(log_weights, proposal.independent_samples, None if reason else with_shares, reason or "")


def _with_reverse_samples(proposal: Proposal, reverse_samples: Unchecked) -> Proposal:
    """The proposal with another number of draws of the reverse model."""
    count = _checks.integer_from(0, "reverse_samples", reverse_samples)
    if proposal.reverse is None:
        raise ValueError(
            f"reverse_samples: expected None, because the reverse model of this proposal draws nothing, got {count}; "
            "only hj.hierarchical has one that does"
        )
    return proposal.reverse.with_num_samples(count)
