"""Families on bounded supports: a family on R^D, carried over by a fixed bijection.

Where log_joint jumps to -inf at the edge of a support, a family that covers more than the support loses part of its
gradient (docs/guide.md, "Where unbiased holds"). One that lives on the support has no edge to cross.

The bijection is a `Bijection`, the type of a flow chain's maps, and receives None for the parameters and the example:
with those two unused it is exactly a fixed map with its volume and inverse, and every map of a user's serves in both
places. What is to be learned belongs into the parameters of the family.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax._families.bijection import Bijection
from hiwae_jax._families.family import Family, Parameters, require_family

# Near a limit a point is known to 6 % of its distance from the edge, or 0.06 in the logarithm.
_SLACK = 0.25


def transformed(family: Family, bijection: Bijection) -> Family:
    """The family of `z = bijection(u)`, `u ~ family`: one that lives on the bijection's image.

    `log q(z) = log q_family(u) + log|det du/dz|` at `u = bijection^-1(z)`. With `hj.diagonal_gaussian` and
    `hj.unit_interval` it is the logit-normal distribution, with `hj.positive` the log-normal, with `hj.simplex` the
    logistic-normal.

    Args:
      family: a family on R^D; its parameters are those of the new family.
      bijection: `hj.interval(low, high)`, `hj.unit_interval`, `hj.positive`, `hj.simplex`, or a `hj.Bijection` of your
        own that leaves `params` and `x` unused (it receives None for both).

    Returns:
      A family for `independent`, `hierarchical` and their like. Under `hj.simplex` parameters of D - 1 entries make
      samples of D, whose density is one of the first D - 1 shares; such a family cannot be that of z_0 or of a chain's
      first sample. Every gradient of `make_bound` holds.

    Rounding. Next to an edge floating point has a last number: 1 - 6e-8 is the last below 1 in float32. A draw that
    would come closer is held at the bijection's `limits` (for the unit interval in float32 at logits of -85 and 13.9;
    in float64 at -706 and 34.0), so that a draw is never on an edge or past it. Its derivative stays that of the
    bijection there. Many draws then share one point, and its density is taken for at least that of the family's centre
    (noise 0): a proposal that has moved beyond what its numbers can tell apart weighs its samples too little rather
    than without bound, and its gradient leads back. At every number inside of the support the log-density is finite; on
    the edge and beyond, it is `-inf`.

    Raises:
      TypeError: if an argument is no family or no bijection.

    Reference: Aitchison and Shen (1980), "Logistic-normal distributions", for the simplex.

    >>> import hiwae_jax as hj
    >>> family = hj.transformed(hj.diagonal_gaussian, hj.unit_interval)
    >>> parameters = jnp.array([0.0, 2.0]), jnp.array([1.0, 0.5])
    >>> [round(float(z), 3) for z in family.forward(parameters, jnp.zeros(2))]
    [0.5, 0.881]
    >>> float(family.log_prob(parameters, jnp.array([0.5, 1.5])))
    -inf
    """
    require_family("family", family)
    if not isinstance(bijection, Bijection):
        got = type(bijection).__name__
        raise TypeError(f"bijection: expected hj.unit_interval, hj.positive or another hj.Bijection, got {got}")
    limits = bijection.limits

    def forward(parameters: Parameters, noise: Float[Array, "..."]) -> Float[Array, " D"]:
        u = family.forward(parameters, noise)
        if limits is not None:
            u = _held(u, *(jnp.asarray(limit, u.dtype) for limit in limits(u.dtype)))
        return bijection.forward(None, None, u)[0]

    def inverse(parameters: Parameters, z: Float[Array, " D"]) -> Float[Array, "..."]:
        return family.inverse(parameters, bijection.inverse(None, None, z)[0])

    def log_prob(parameters: Parameters, z: Float[Array, " D"]) -> Float[Array, ""]:
        u, log_det = bijection.inverse(None, None, z)
        density = family.log_prob(parameters, u)
        if limits is not None:
            low, high = (jnp.asarray(limit, u.dtype) for limit in limits(u.dtype))
            centre = family.forward(parameters, jnp.zeros_like(jax.tree.leaves(parameters)[0]))
            shared = jnp.any((u < low + _SLACK) | (u > high - _SLACK))
            density = jnp.where(shared, jnp.maximum(density, family.log_prob(parameters, centre)), density)
        return density + log_det

    return Family(forward, inverse, log_prob, family.sampler)


@jax.custom_jvp
def _held(u: Float[Array, "..."], low: Any, high: Any) -> Float[Array, "..."]:
    """What lies between the limits. A clip would have no derivative beyond, and a proposal there could not return."""
    return jnp.clip(u, low, high)


_held.defjvps(lambda tangent, held, u, low, high: tangent, None, None)
