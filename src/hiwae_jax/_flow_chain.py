"""A chain of invertible maps: every sample is a function of the first, every marginal a change of variables."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families import (
    Family,
    Parameters,
    Sampler,
    check_family,
    check_sampler,
    diagonal_gaussian,
    draw_noise,
    log_volume,
)
from hiwae_jax._independent import one_member
from hiwae_jax._proposal import Draw, Example, Params, Proposal
from hiwae_jax._standardize import standardized

Mapped = tuple[Float[Array, " D"], Float[Array, ""]]


class Bijection(NamedTuple):
    """An invertible, differentiable map of R^D with its volume.

    Attributes:
      forward: `(params, x, z [D]) -> (y [D], log|det dy/dz|)`.
      inverse: `(params, x, y [D]) -> (z [D], log|det dz/dy|)`.
      limits: `dtype -> (low, high)`, the entries of z up to which numbers of this dtype tell y from the edge of its
        support; None where y may be anywhere in R^D. `transformed` holds its draws between them.
    """

    forward: Callable[[Params, Any, Float[Array, " D"]], Mapped]
    inverse: Callable[[Params, Any, Float[Array, " D"]], Mapped]
    limits: Callable[[Any], tuple[Any, Any]] | None = None


def _shift_and_scale(pair: Any, z: Float[Array, " D"]) -> tuple[Any, Any]:
    """What the conditional of a map gave, or what is wrong with it. One array of two rows could be taken for a pair."""
    expected = f"a pair of arrays (shift, scale) of the shape of z, {z.shape}"
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(map(_checks.is_array, pair)):
        raise TypeError(f"conditional: expected {expected}, got {type(pair).__name__}")
    for leaf in pair:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"conditional: expected {expected}, got dtype {jnp.result_type(leaf)}")
        if jnp.shape(leaf) not in (z.shape, (1,), ()):
            raise ValueError(f"conditional: expected {expected}, got shape {jnp.shape(leaf)}")
    return pair[0], pair[1]


def affine_map(conditional: Callable[[Params, Any], tuple[Any, Any]]) -> Bijection:
    """`y = shift + scale * z`, the shift and scale of an example.

    Args:
      conditional: `(params, x) -> (shift [D], scale [D])`; no scale may be zero.
    """
    _checks.function("conditional", conditional, "(params, x)", result="(shift [D], scale [D])")

    def forward(params: Params, x: Any, z: Float[Array, " D"]) -> Mapped:
        shift, scale = _shift_and_scale(conditional(params, x), z)
        return shift + scale * z, log_volume(jnp.abs(scale), z)

    def inverse(params: Params, x: Any, y: Float[Array, " D"]) -> Mapped:
        shift, scale = _shift_and_scale(conditional(params, x), y)
        return standardized(y, shift, scale), -log_volume(jnp.abs(scale), y)

    return Bijection(forward, inverse)


def coupling_map(
    conditional: Callable[[Params, Any, Float[Array, " D"]], tuple[Any, Any]], *, kept: Sequence[bool]
) -> Bijection:
    """An affine coupling layer: some dimensions stay, and a network of them scales and shifts the others.

    Args:
      conditional: `(params, x, z [D]) -> (shift [D], scale [D])`; receives zeros in place of the dimensions that are
        not kept. No scale may be zero.
      kept: D booleans, which dimensions stay as they are.

    Reference: Dinh, Sohl-Dickstein and Bengio (2017).
    """
    _checks.function("conditional", conditional, "(params, x, z)", result="(shift [D], scale [D])")
    mask = np.asarray(kept)
    if mask.dtype != np.bool_ or mask.ndim != 1 or mask.all() or not mask.any():
        raise ValueError(f"kept: expected booleans for D dimensions, some true and some false, got {kept!r:.80}")

    def network(params: Params, x: Any, z: Float[Array, " D"]) -> tuple[Any, Any]:
        shift, scale = _shift_and_scale(conditional(params, x, jnp.where(mask, z, 0.0)), z)
        return jnp.where(mask, 0.0, shift), jnp.where(mask, 1.0, scale)

    def forward(params: Params, x: Any, z: Float[Array, " D"]) -> Mapped:
        shift, scale = network(params, x, z)
        return shift + scale * z, log_volume(jnp.abs(scale), z)

    def inverse(params: Params, x: Any, y: Float[Array, " D"]) -> Mapped:
        shift, scale = network(params, x, y)
        return standardized(y, shift, scale), -log_volume(jnp.abs(scale), y)

    return Bijection(forward, inverse)


@_checks.by_name
def flow_chain(
    base: Callable[[Params, Any], Parameters],
    maps: Sequence[Bijection],
    *,
    context: Callable[[Params, Example], Any] | None = None,
    family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
) -> Proposal:
    """`z_1 ~ q_1(z | x)`, then `z_j = T_j(z_{j-1})`: K samples from one draw of noise.

    The marginal of sample j is exact, `log q_j(z_j) = log q_1(z_1) - sum_{m <= j} log|det dT_m|`, and so is that of any
    other sample under it, through the inverse maps.

    Args:
      base: `(params, x) -> (loc [D], scale [D])`, the parameters of q_1.
      maps: the K - 1 maps: `affine_map`, `coupling_map`, or a `Bijection` of your own.
      context: `(params, x) -> context`, evaluated once an example; `base` and the maps receive it in place of x.
      family: the family of q_1.
      sampler: draws the noise [D] of z_1 in place of the family's own; receives the caller's key untouched, once.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. Weightings other than the uniform one evaluate K (K - 1) / 2
      inverse maps for each sample. All samples are functions of z_1 and have no joint density, so only
      `gradient="reparameterized"` is valid.

    Reference: Huang et al. (2019), section 3.1.

    >>> shift = affine_map(lambda params, x: (jnp.ones(2), 0.5 * jnp.ones(2)))
    >>> proposal = flow_chain(lambda params, x: (jnp.zeros(2), jnp.ones(2)), [shift, shift])
    >>> proposal.draw(None, None, jax.random.key(0)).z.shape
    (3, 2)
    """
    check_family("family", family)
    _checks.function("base", base, "(params, x)", result="(loc [D], scale [D])")
    if context is not None:
        _checks.function("context", context, "(params, x)")
    check_sampler(sampler)
    if not isinstance(maps, (list, tuple)):
        raise TypeError(f"maps: expected a list of hj.Bijection, got {type(maps).__name__}")
    maps = tuple(maps)
    for number, bijection in enumerate(maps):
        if not isinstance(bijection, Bijection):
            got = type(bijection).__name__
            raise TypeError(f"maps: expected hj.Bijection(forward, inverse) at place {number}, got {got}")

    def draw(params: Params, x: Example, key: Any, *, refill: bool = False) -> Draw:
        h = x if context is None else context(params, x)
        first = one_member("base", base, params, h, family)
        loc = jax.tree.leaves(first)[0]
        z = family.forward(first, draw_noise(sampler or family.sampler, key, loc.shape, loc.dtype))
        samples, densities = [z], [family.log_prob(first, z)]
        for number, bijection in enumerate(maps):
            # What follows a sample that overflowed is lost too, and has no derivative of the form inf * 0.
            overflowed = jnp.any(jnp.isinf(z))
            start = jnp.where(overflowed, 0.0, z)
            z, log_det = _mapped(f"maps[{number}].forward", bijection.forward(params, h, start), z)
            z = jnp.where(overflowed, jnp.inf, z)
            samples.append(z)
            densities.append(densities[-1] - log_det)
        return Draw(z=jnp.stack(samples), members=(jnp.stack(densities), first, params, h), context=h)

    def own_densities(members: Any, z: Float[Array, "K D"]) -> Float[Array, " K"]:
        own: jax.Array = members[0]
        return own

    def pair_densities(members: Any, z: Float[Array, "K D"]) -> Float[Array, "K K"]:
        _, first, params, h = members
        pulled, log_dets = z[None], jnp.zeros((1, len(z)), z.dtype)
        for number, bijection in reversed(list(enumerate(maps))):
            # Every member behind this map has its samples pulled back through it; then the member before it joins.
            def back(y: Float[Array, " D"], number: int = number, bijection: Bijection = bijection) -> Mapped:
                return _mapped(f"maps[{number}].inverse", bijection.inverse(params, h, y), y)

            pulled, log_det = jax.vmap(jax.vmap(back))(pulled)
            pulled = jnp.concatenate([z[None], pulled])
            log_dets = jnp.concatenate([jnp.zeros((1, len(z)), z.dtype), log_dets + log_det])
        density = jax.vmap(jax.vmap(lambda point: family.log_prob(first, point)))(pulled)
        return (density + log_dets).T

    return Proposal(
        draw=draw,
        own_densities=own_densities,
        pair_densities=pair_densities,
        why_plain="the samples of a flow chain are functions of one another, and have no joint density",
    )


def _mapped(name: str, result: Any, z: Float[Array, " D"]) -> Mapped:
    is_pair = isinstance(result, tuple) and len(result) == 2
    if not is_pair or jnp.shape(result[0]) != z.shape or jnp.shape(result[1]) != ():
        got = [jnp.shape(leaf) for leaf in jax.tree.leaves(result)]
        raise ValueError(f"{name}: expected (point {z.shape}, scalar log|det|), got shapes {got}")
    mapped: Mapped = result
    return mapped
