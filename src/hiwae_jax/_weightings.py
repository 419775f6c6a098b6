"""Weightings: partitions of unity that share the target out among the members of a proposal."""

import dataclasses
import warnings
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._types import Context, Latent, Params


@runtime_checkable
class Logits(Protocol):
    """The logits of all members at one z; z_0 is None where the proposal has none."""

    def __call__(self, params: Params, x: Context, z: Latent, z0: Latent, /) -> Float[Array, " K"]: ...


@dataclasses.dataclass(frozen=True)
class Weighting:
    """Functions `pi_i(z)` of at least 0 that share the target out among the members: `sum_i pi_i(z) = 1` at every z.

    Attributes:
      alpha: the power in `pi_i(z) = q_i(z)^alpha / sum_m q_m(z)^alpha`. 0 gives each member 1/K at every z.
      logits: a function that returns the logits of `pi`, in place of the power heuristic; otherwise None.
    """

    alpha: float
    logits: Logits | None = None

    def __post_init__(self) -> None:
        """Check the fields; `alpha` becomes a float."""
        alpha = _checks.number("alpha", self.alpha, least=0.0, remark="; 0 is the uniform weighting")
        object.__setattr__(self, "alpha", alpha)
        if self.logits is not None:
            _checks.function("logits_fn", self.logits, "(params, x, z, z0)", result="[K] logits")
            if alpha != 0.0:
                raise ValueError(f"alpha: expected 0 where logits are given, got {alpha}")

    @property
    def compares_densities(self) -> bool:
        """Whether the weighting depends on the members' densities, so that those of all pairs are needed."""
        return self.alpha > 0.0

    @property
    def of_densities(self) -> bool:
        """The former name of `compares_densities`."""
        warnings.warn("Weighting.of_densities: use compares_densities instead", DeprecationWarning, stacklevel=2)
        return self.compares_densities


def uniform_weighting() -> Weighting:
    """The arithmetic weighting `pi_i(z) = 1/K`.

    It is the only weighting under which each member may have a reverse model of its own.

    Reference: Huang et al. (2019), section 3.2, alpha = 0.
    """
    return Weighting(alpha=0.0)


def power_heuristic(alpha: float) -> Weighting:
    """The power heuristic `pi_i(z) = q_i(z)^alpha / sum_m q_m(z)^alpha`.

    Args:
      alpha: a finite number, at least 0. 0 is `uniform_weighting()`. 1 is the balance heuristic, under which the bound
        is that of the mixture of all members. Larger values leave a point to the member that covers it best.

    Raises:
      ValueError: if `alpha` is negative or not finite.
      TypeError: if `alpha` is no number, or is traced.

    Reference: Veach and Guibas (1995); Huang et al. (2019), section 3.2.

    >>> power_heuristic(1.0).alpha
    1.0
    """
    return Weighting(alpha=alpha)


def learned_weighting(logits_fn: Logits) -> Weighting:
    """The weighting of a network, `log pi(z) = log_softmax(logits_fn(params, x, z, z0))`.

    The log-softmax makes the functions sum to one whatever the network is, so the bound holds. If the exponentials of
    your logits sum to one already, the log-softmax leaves them unchanged. So you can bring a weighting of your own.

    Args:
      logits_fn: `(params, x, z [D], z0) -> [K]`, the logits of all K members at one z. x is the proposal's context if
        it has one. z0 [D0] is the auxiliary variable of the sample, or None. Both have the structure that the
        proposal gave them. The function must not depend on which member drew z.

    Returns:
      A weighting. It is valid for every proposal whose reverse model is the same for all members.

    Raises:
      TypeError: if `logits_fn` is no function.
      ValueError: when used, if it does not return K logits.

    *Gradients*: the network's parameters receive the plain gradient of the bound under every estimator.

    Reference: Huang et al. (2019), appendix E.

    >>> learned_weighting(lambda params, x, z, z0: params["kernel"] @ z).alpha
    0.0
    """
    _checks.function("logits_fn", logits_fn, "(params, x, z, z0)", result="[K] logits")
    return Weighting(alpha=0.0, logits=logits_fn)


def log_partition(weighting: Weighting, log_densities: Float[Array, " K"]) -> Float[Array, " K"]:
    """`log pi_i(z)` of all members at one z, from `log q_i(z)`."""
    return jax.nn.log_softmax(weighting.alpha * log_densities)
