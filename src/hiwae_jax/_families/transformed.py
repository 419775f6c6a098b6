"""Families on bounded supports, made from a family on R^D and a fixed bijection.

If log_joint jumps to -inf at the edge of its support, a family that covers more than the support loses part of its
gradient (docs/guide.md, "Where unbiased holds"). A family that covers only the support has no edge to cross.

The bijection is a `Bijection`, the type of a flow chain's maps. It receives None for the parameters and the example. So
it is a fixed map, and every bijection serves in both places. Learned values belong into the parameters of the family.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax._families.bijection import Bijection
from hiwae_jax._families.family import Family, noise_structure, require_family
from hiwae_jax._types import Parameters, Scalar

# Near a limit the distance of a point from the edge is known to 6 %, or 0.06 in the logarithm.
_SLACK = 0.25


def transformed(family: Family, bijection: Bijection) -> Family:
    """The family of `z = bijection(u)`, `u ~ family`, which covers exactly the image of the bijection.

    The density is `log q(z) = log q_family(u) + log|det du/dz|` at `u = bijection^-1(z)`. From `hj.diagonal_gaussian`,
    `hj.unit_interval` makes the logit-normal distribution, `hj.positive` the log-normal, and `hj.simplex` the
    logistic-normal.

    Args:
      family: a family on R^D. The new family has the same parameters. If they are pytrees, the bijection sees the
        entries of z as one vector.
      bijection: `hj.interval(low, high)`, `hj.unit_interval`, `hj.positive`, `hj.simplex`, or an `hj.Bijection` of your
        own that ignores `params` and `x` (it receives None for both).

    Returns:
      A family for `independent`, `hierarchical` and their like. It works with every gradient of `make_bound`. Under
      `hj.simplex`, parameters of D - 1 entries make samples of D entries, whose density is that of the first D - 1
      shares. Such a family cannot be that of z_0 or of a chain's first sample.

    Rounding: next to an edge, floating point has a last number, such as 1 - 6e-8 below 1 in float32. A sample that
    would come closer is moved to the bijection's `limits` (for the unit interval, logits of -85 and 13.9 in float32,
    and of -706 and 34.0 in float64). So a sample is never on an edge or past it. Its derivative there stays that of the
    bijection.

    Many samples then share one point. Its density is taken to be at least that of the family's centre (noise 0). So if
    a proposal moves beyond what its numbers can tell apart, its weights are too small rather than unbounded, and its
    gradient leads back. Inside the support, the log-density is finite at every number. On the edge and beyond, it is
    `-inf`.

    Raises:
      TypeError: if an argument is no family or no bijection.
      ValueError: if the family has no inverse.

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
    undo = family.inverse
    if undo is None:
        raise ValueError(
            "family: expected a family with an inverse, got one without; transform the distribution in its own library"
        )
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
        return undo(parameters, bijection.inverse(None, None, z)[0])

    def log_prob(parameters: Parameters, z: Float[Array, " D"]) -> Scalar:
        u, log_det = bijection.inverse(None, None, z)
        density = family.log_prob(parameters, u)
        if limits is not None:
            low, high = (jnp.asarray(limit, u.dtype) for limit in limits(u.dtype))
            noise = noise_structure(family, parameters)
            centre = family.forward(parameters, jnp.zeros(noise.size, noise.dtype))
            shared = jnp.any((u < low + _SLACK) | (u > high - _SLACK))
            density = jnp.where(shared, jnp.maximum(density, family.log_prob(parameters, centre)), density)
        return density + log_det

    return Family(forward, inverse, log_prob, family.sampler, noise_like=family.noise_like, pathwise=family.pathwise)


@jax.custom_jvp
def _held(u: Float[Array, "..."], low: Float[Array, "..."], high: Float[Array, "..."]) -> Float[Array, "..."]:
    """Clip u to the limits, and keep the derivative 1 beyond. With zero, a proposal there could not return."""
    return jnp.clip(u, low, high)


_held.defjvps(lambda tangent, held, u, low, high: tangent, None, None)
