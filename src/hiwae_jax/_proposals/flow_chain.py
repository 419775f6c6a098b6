"""The proposal of a chain of invertible maps: every sample is a function of the first."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families.bijection import Bijection, Mapped
from hiwae_jax._families.family import (
    Family,
    Sampler,
    draw_noise,
    noise_structure,
    require_pathwise_family,
    require_sampler,
)
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._proposals.draw import Draw
from hiwae_jax._proposals.parameters import one_member
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._types import Conditional, Context, ContextOf, Example, Key, Parameters, Params, Unchecked


@_checks.by_name
def flow_chain(
    base: Conditional,
    maps: Sequence[Bijection],
    *,
    context: ContextOf | None = None,
    family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
) -> Proposal:
    """`z_1 ~ q_1(z | x)`, then `z_j = T_j(z_{j-1})`: K samples from one draw of noise.

    The marginal density of sample j is exact: `log q_j(z_j) = log q_1(z_1) - sum_{m <= j} log|det dT_m|`. The density
    of any other sample under it is exact too, through the inverse maps.

    Args:
      base: `(params, x) -> (loc [D], scale [D])`, the parameters of q_1. The maps are of vectors, so z is one.
      maps: the K - 1 maps, made by `affine_map`, by `coupling_map`, or as a `Bijection` of your own.
      context: `(params, x) -> context`, evaluated once an example. `base` and the maps receive its value in place of x.
      family: the family of q_1.
      sampler: draws the noise [D] of z_1 in place of the family's own. It receives the caller's key unchanged, once.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. All samples are functions of z_1 and have no joint density, so
      only `gradient="reparameterized"` is valid. A power heuristic evaluates K (K - 1) / 2 inverse maps for each
      sample.

    Choosing:
      weightings: any.
      gradients: plain.
      default: plain.
      cost: K - 1 maps; K (K - 1) / 2 inverse maps for each sample under a power heuristic.
      when: one draw of noise, transported.

    Reference: Huang et al. (2019), section 3.1.

    >>> import hiwae_jax as hj
    >>> shift = hj.affine_map(lambda params, x: (jnp.ones(2), 0.5 * jnp.ones(2)))
    >>> proposal = flow_chain(lambda params, x: (jnp.zeros(2), jnp.ones(2)), [shift, shift])
    >>> proposal.draw(None, None, jax.random.key(0)).z.shape
    (3, 2)
    """
    require_pathwise_family("family", family)
    _checks.function("base", base, "(params, x)", result="(loc [D], scale [D])")
    if context is not None:
        _checks.function("context", context, "(params, x)")
    require_sampler(sampler)
    if not isinstance(maps, (list, tuple)):
        raise TypeError(f"maps: expected a list of hj.Bijection, got {type(maps).__name__}")
    maps = tuple(maps)
    for number, bijection in enumerate(maps):
        if not isinstance(bijection, Bijection):
            got = type(bijection).__name__
            raise TypeError(f"maps: expected hj.Bijection(forward, inverse) at place {number}, got {got}")

    def draw(params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw:
        h = x if context is None else context(params, x)
        first = one_member("base", base, params, h, family)
        noise = noise_structure(family, first)
        z = family.forward(first, draw_noise(sampler or family.sampler, key, (noise.size,), noise.dtype))
        samples, densities = _pushed(maps, params, h, z, family.log_prob(first, z))
        return Draw(z=samples, parameters=_Chain(densities, first, params, h), context=h)

    return Proposal(
        draw=draw,
        own_densities=lambda chain, z: chain.own_densities,
        pair_densities=functools.partial(_pair_densities, maps, family),
        why_plain="the samples of a flow chain are functions of one another, and have no joint density",
    )


class _Chain(NamedTuple):
    """What the densities of a chain depend on.

    Attributes:
      own_densities: [K], `log q_j(z_j)` of the samples drawn.
      first: the parameters of q_1.
      params: the parameters of the maps.
      context: what the maps receive in place of x.
    """

    own_densities: Float[Array, " K"]
    first: Parameters
    params: Params
    context: Context


def _pushed(
    maps: Sequence[Bijection], params: Params, h: Context, z: Float[Array, " D"], density: Float[Array, ""]
) -> tuple[Float[Array, "K D"], Float[Array, " K"]]:
    """Push the first sample and its log-density through one map after another."""
    samples, densities = [z], [density]
    for number, bijection in enumerate(maps):
        # All samples after one that overflowed are lost too. They must not have a derivative of the form inf * 0.
        overflowed = jnp.any(jnp.isinf(samples[-1]))
        start = jnp.where(overflowed, 0.0, samples[-1])
        end, log_det = _mapped(f"maps[{number}].forward", bijection.forward(params, h, start), start)
        samples.append(jnp.where(overflowed, jnp.inf, end))
        densities.append(densities[-1] - log_det)
    return jnp.stack(samples), jnp.stack(densities)


def _pair_densities(
    maps: Sequence[Bijection], family: Family, chain: _Chain, z: Float[Array, "N D"]
) -> Float[Array, "N K"]:
    """`log q_i(z_j)` at row j, column i. Every sample is pulled back through the maps of every member."""
    at_start = jnp.zeros((1, len(z)), z.dtype)
    pulled, log_dets = z[None], at_start
    for number, bijection in reversed(list(enumerate(maps))):
        # Every member behind this map has its samples pulled back through it; then the member before it joins.
        def back(y: Float[Array, " D"], number: int = number, bijection: Bijection = bijection) -> Mapped:
            return _mapped(f"maps[{number}].inverse", bijection.inverse(chain.params, chain.context, y), y)

        pulled, log_det = jax.vmap(jax.vmap(back))(pulled)
        pulled = jnp.concatenate([z[None], pulled])
        log_dets = jnp.concatenate([at_start, log_dets + log_det])
    densities = jax.vmap(jax.vmap(lambda point: family.log_prob(chain.first, point)))(pulled)
    return (densities + log_dets).T


def _mapped(name: str, result: Unchecked, z: Float[Array, " D"]) -> Mapped:
    is_pair = isinstance(result, tuple) and len(result) == 2
    if not is_pair or jnp.shape(result[0]) != z.shape or jnp.shape(result[1]) != ():
        got = [jnp.shape(leaf) for leaf in jax.tree.leaves(result)]
        raise ValueError(f"{name}: expected (point {z.shape}, scalar log|det|), got shapes {got}")
    mapped: Mapped = result
    return mapped
