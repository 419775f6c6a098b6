"""The hierarchical proposal: members conditioned by an auxiliary variable, weighed with a reverse model of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families.family import Family, Parameters, Sampler, draw_noise, require_family, require_sampler
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._proposals.parameters import check_distribution, one_member
from hiwae_jax._proposals.proposal import Draw, Layout, Members, Proposal
from hiwae_jax._proposals.reverse_trial import make_reverse_trial
from hiwae_jax._proposals.sharding import placement_of
from hiwae_jax._random_streams import Stream, stream_key
from hiwae_jax._types import Example, Params


@_checks.by_name
def hierarchical(
    base: Callable[[Params, Any], Parameters],
    conditionals: Callable[[Params, Any, Float[Array, " D0"]], Parameters],
    reverse: Callable[[Params, Any, Float[Array, "K D"]], Parameters],
    *,
    shared: bool = True,
    num_samples: int | None = None,
    context: Callable[[Params, Example], Any] | None = None,
    family: Family = diagonal_gaussian,
    base_family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
    sharding: NamedSharding | None = None,
) -> Proposal:
    """The hierarchical proposal: `z_0 ~ q_0(z_0 | x)`, then `z_j ~ q_j(z_j | z_0, x)`, weighed with `r(z_0 | z_j, x)`.

    The augmented log-weight `log p(x, z_j) + log r(z_0 | z_j) - log q_0(z_0) - log q_j(z_j | z_0) + log pi_j(z_j)`
    makes the bound valid without the members' marginals, whatever `r` is.

    Args:
      base: `(params, x) -> (loc [D0], scale [D0])`, the parameters of q_0.
      conditionals: `(params, x, z0 [D0]) -> (loc [K, D], scale [K, D])`, a row for each member.
      reverse: `(params, x, z [K, D]) -> (loc [K, D0], scale [K, D0])`, row j being `r_j(. | z_j)`, a function of `z[j]`
        alone. It may treat the members differently only under the uniform weighting: under any other the bound would
        not be valid.
      shared: one z_0 for all members. False gives each sample a z_0 of its own; IWAE(h) when the members are equal.
      num_samples: K, if all members are one distribution. `conditionals` then returns one row, [1, D].
      context: `(params, x) -> context`, evaluated once an example; the three callables receive its value in place of
        x. This is the place for an encoder.
      family: the family of the members.
      base_family: the family of q_0 and r.
      sampler: draws the noise of z_0 and of all members, in one call and in place of the families' own; as for
        `independent`. Families that have the same sampler draw in one call too. Otherwise the sampler of each receives
        a key of its own, folded from the caller's.
      sharding: `NamedSharding(mesh, P(axis))`, to split the samples of each example over a mesh axis of devices, as
        for `independent`. A power heuristic communicates the members' parameters as well.

    Returns:
      A proposal for `make_bound` and `make_log_weights`.

    Raises:
      TypeError, ValueError: for a `sharding` of another kind, and when called, if it cannot split K evenly, and for a
        reverse model that no bound is valid with, where trying it on random numbers shows that.

    Reference: Huang et al. (2019), section 3.2.
    """
    _checks.function("base", base, "(params, x)", result="(loc [D0], scale [D0])")
    _checks.function("conditionals", conditionals, "(params, x, z0)", result="(loc [K, D], scale [K, D])")
    _checks.function("reverse", reverse, "(params, x, z)", result="(loc [K, D0], scale [K, D0])")
    if context is not None:
        _checks.function("context", context, "(params, x)")
    shared = _checks.boolean("shared", shared)
    require_family("family", family)
    require_family("base_family", base_family)
    require_sampler(sampler)
    if num_samples is not None:
        num_samples = _checks.positive_integer("num_samples", num_samples)
    expected = "[K, D]" if num_samples is None else "[1, D] (num_samples was given: all members are equal)"
    equal_rows = 1 if num_samples is not None else None
    distinct: tuple[Layout, Layout] = ("rows", "table")
    equal: tuple[Layout, Layout] = ("one", "own")
    layout = (distinct if num_samples is None else equal)[0 if shared else 1]
    placement = placement_of(sharding)

    def members_at(params: Params, h: Any, z0: Float[Array, "K D0"]) -> Parameters:
        def at(one_z0: Float[Array, " D0"]) -> Parameters:
            rows = _checks.distribution_parameters(
                "conditionals",
                conditionals(params, h, one_z0),
                ndim=2,
                expected=expected,
                equal_shapes=family is diagonal_gaussian,
                rows=equal_rows,
            )
            check_distribution("conditionals", family, jax.tree.map(lambda leaf: leaf[0], rows))
            return rows if num_samples is None else jax.tree.map(lambda leaf: leaf[0], rows)

        return at(z0[0]) if shared else jax.vmap(at)(z0)

    members = Members(
        family=family, layout=layout, base_family=base_family, at=None if shared else members_at, placement=placement
    )

    def draw_all(key: Any, sizes: tuple[int, int, int, int], dtype: Any) -> Float[Array, " n"]:
        """The noise of z_0 and of the members, and that of their refills."""
        if sampler is not None or base_family.sampler is family.sampler:
            # One call: the key is used once, and one generator is compiled instead of two.
            return draw_noise(sampler or family.sampler, key, (sum(sizes),), dtype)
        keys = stream_key(key, Stream.BASE_NOISE), stream_key(key, Stream.MEMBER_NOISE)
        of_base, of_members = (
            jnp.split(draw_noise(one.sampler, key, (sizes[place] + sizes[place + 2],), dtype), [sizes[place]])
            for place, one, key in zip((0, 1), (base_family, family), keys, strict=True)
        )
        return jnp.concatenate([of_base[0], of_members[0], of_base[1], of_members[1]])

    def draw(params: Params, x: Example, key: Any, *, refill: bool = False) -> Draw:
        h = x if context is None else context(params, x)
        base_parameters = one_member("base", base, params, h, base_family, expected="[D0]")
        base_loc = jax.tree.leaves(base_parameters)[0]
        abstract = jax.eval_shape(lambda: members_at(params, h, base_loc[None]))
        shape = jax.tree.leaves(abstract)[0].shape
        K, D = num_samples or shape[-2], shape[-1]
        D0 = base_loc.shape[-1]
        for_z0, for_z = (1 if shared else K) * D0, K * D
        sizes = for_z0, for_z, for_z0 if refill and not shared else 0, for_z if refill else 0
        noise = draw_all(key, sizes, base_loc.dtype)

        def draw_z0(noise: Float[Array, " n"]) -> Float[Array, "rows D0"]:
            z0: jax.Array = jax.vmap(base_family.forward, in_axes=(None, 0))(base_parameters, noise.reshape(-1, D0))
            return z0

        def draw_z(parameters: Parameters, noise: Float[Array, " n"]) -> Float[Array, "K D"]:
            noise = noise.astype(jax.tree.leaves(parameters)[0].dtype)
            z: jax.Array = placement.rows(members.forward(parameters, noise.reshape(K, D)))
            return z

        def placed_members(z0: Float[Array, "K D0"]) -> Parameters:
            parameters = members_at(params, h, z0)
            return placement.rows(parameters) if layout != "one" else parameters

        noise_z0, noise_z, again_z0, again_z = placement.whole(jnp.split(noise, np.cumsum(sizes)[:-1]))
        z0 = draw_z0(noise_z0)
        parameters = placed_members(z0)
        z = draw_z(parameters, noise_z)
        second = None
        if refill and shared:
            second = draw_z(parameters, again_z), jnp.broadcast_to(z0, (K, D0))
        elif refill:
            second_z0 = draw_z0(again_z0)
            second = draw_z(placed_members(second_z0), again_z), second_z0
        z0 = jnp.broadcast_to(z0, (K, D0))
        return Draw(z=z, parameters=parameters, z0=z0, base=base_parameters, context=h, refill=second)

    def reverse_rows(params: Params, h: Any, z: Float[Array, "K D"]) -> Parameters:
        return _checks.distribution_parameters(
            "reverse",
            reverse(params, h, z),
            ndim=2,
            expected="[K, D0]",
            equal_shapes=base_family is diagonal_gaussian,
            rows=z.shape[0],
        )

    def log_reverse(params: Params, h: Any, z0: Float[Array, "K D0"], z: Float[Array, "K D"]) -> Float[Array, " K"]:
        rows = reverse_rows(params, h, z)
        if jax.tree.leaves(rows)[0].shape[-1] != z0.shape[-1]:
            got = jax.tree.leaves(rows)[0].shape
            raise ValueError(f"reverse: expected {z0.shape} to match z_0 from base, got {got}")
        return jax.vmap(base_family.log_prob)(rows, z0)

    return Proposal(
        draw=draw,
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        log_reverse=log_reverse,
        reverse_kind=make_reverse_trial(reverse_rows),
        equal_members=members.equal,
        members=members,
        refills=not members.equal,
        independent_noise=sampler is None,
    )
