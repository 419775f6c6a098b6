"""The hierarchical proposal: members conditioned by an auxiliary variable, weighed with a reverse model of it."""

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families import (
    Family,
    Parameters,
    Sampler,
    check_distribution,
    check_family,
    diagonal_gaussian,
    draw_noise,
)
from hiwae_jax._independent import one_member
from hiwae_jax._proposal import Draw, Example, Layout, Members, Params, Proposal, ReverseKind
from hiwae_jax._sharding import placement


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
        `independent`. Families with one sampler draw in one call too, and otherwise from either half of the split key.
      sharding: `NamedSharding(mesh, P(axis))`, to split the samples of each example over a mesh axis of devices, as
        for `independent`. A power heuristic communicates the members' parameters as well.

    Returns:
      A proposal for `make_bound` and `make_log_weights`.

    Raises:
      TypeError, ValueError: for a `sharding` of another kind, and when called, if it cannot split K evenly, and for a
        reverse model that no bound is valid with, where trying it on random numbers shows that.

    Reference: Huang et al. (2019), section 3.2.
    """
    check_family("family", family)
    check_family("base_family", base_family)
    if num_samples is not None:
        num_samples = _checks.positive_integer("num_samples", num_samples)
    expected = "[K, D]" if num_samples is None else "[1, D] (num_samples was given: all members are equal)"
    equal_rows = 1 if num_samples is not None else None
    distinct: tuple[Layout, Layout] = ("rows", "table")
    equal: tuple[Layout, Layout] = ("one", "own")
    layout = (distinct if num_samples is None else equal)[0 if shared else 1]
    place = placement(sharding)

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
        family=family, layout=layout, base_family=base_family, at=None if shared else members_at, place=place
    )

    def draw_all(key: Any, sizes: tuple[int, int, int, int], dtype: Any) -> Float[Array, " n"]:
        """The noise of z_0 and of the members, and that of their refills."""
        if sampler is not None or base_family.sampler is family.sampler:
            # One call: the key is used once, and one generator is compiled instead of two.
            return draw_noise(sampler or family.sampler, key, (sum(sizes),), dtype)
        of_base, of_members = (
            jnp.split(draw_noise(one.sampler, key, (sizes[place] + sizes[place + 2],), dtype), [sizes[place]])
            for place, one, key in zip((0, 1), (base_family, family), jax.random.split(key), strict=True)
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
            z: jax.Array = place.rows(members.forward(parameters, noise.reshape(K, D)))
            return z

        def placed_members(z0: Float[Array, "K D0"]) -> Parameters:
            parameters = members_at(params, h, z0)
            return place.rows(parameters) if layout != "one" else parameters

        noise_z0, noise_z, again_z0, again_z = place.whole(jnp.split(noise, np.cumsum(sizes)[:-1]))
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
        return Draw(z=z, members=parameters, z0=z0, base=base_parameters, context=h, refill=second)

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
        reverse_kind=_make_reverse_check(reverse_rows),
        equal_members=members.equal,
        members=members,
        refills=not members.equal,
        independent_noise=sampler is None,
    )


class _Kind(NamedTuple):
    """Of an array."""

    shape: tuple[int, ...]
    dtype: Any


def _make_reverse_check(reverse_rows: Callable[..., Parameters]) -> Callable[[Params, Any, Any], ReverseKind]:
    """Make a function that tells whether the reverse model's rows know their places, and whether they know each other.

    The parameters of the moment may hide it (an embedding that starts at zero), so the reverse model is tried on other
    ones, at trace time and outside the traced program, once for each set of shapes. Where it cannot be evaluated so,
    because it closes over values of an outer transformation, refuses such numbers or overflows, nothing is told.
    """
    unknown = ReverseKind(None, None)

    @functools.lru_cache(maxsize=64)
    def kind_of(structure: Any, kinds: tuple[Any, ...], _: tuple[type, ...]) -> ReverseKind:
        def some(place: int, kind: _Kind, seed: Any) -> Any:
            """Random numbers, made within the program, which leaves out what it does not read."""
            if not jnp.issubdtype(kind.dtype, jnp.floating):
                # Small numbers, not all the same: they may be places in an embedding.
                return (jnp.arange(math.prod(kind.shape)) % 7).reshape(kind.shape).astype(kind.dtype)
            key = jax.random.wrap_key_data(seed + np.uint32(place), impl="unsafe_rbg")
            return jax.random.uniform(key, kind.shape, jnp.float32, -0.9, 0.9).astype(kind.dtype)

        def rows_at(seed: Any) -> Any:
            leaves = [some(n, kind, seed) if isinstance(kind, _Kind) else kind for n, kind in enumerate(kinds)]
            params, h, z = structure.unflatten(leaves)
            other = some(len(kinds), kinds[-1], seed)
            odd = (jnp.arange(len(z)) % 2 == 1)[:, None]
            tried = [
                jnp.repeat(z[:1], len(z), axis=0),
                z,
                other.at[0].set(z[0]),
                other.at[-1].set(z[-1]),
                jnp.where(odd, other, z),
                jnp.where(odd, z, other),
            ]
            # One after another, which takes a sixth of the time to compile.
            return jax.lax.map(lambda z: reverse_rows(params, h, z), jnp.stack(tried))

        try:
            with (
                jax.ensure_compile_time_eval(),
                jax.debug_nans(False),
                jax.debug_infs(False),
                jax.transfer_guard("allow"),
            ):
                leaves = jax.tree.leaves(jax.jit(rows_at)(np.arange(4, dtype=np.uint32)))
                if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
                    return unknown
                leaves = [np.asarray(leaf) for leaf in leaves]
        except Exception:  # noqa: BLE001  # whatever a model may raise at such numbers; the bound evaluates it again
            return unknown

        def equal(*pairs: tuple[Any, Any]) -> bool | None:
            """Whether no leaf has other numbers in the one place than in the other."""
            chosen = [(leaf[one], leaf[other]) for leaf in leaves for one, other in pairs]
            with np.errstate(invalid="ignore", over="ignore"):
                if any(bool(np.any(np.abs(one - other) > 1e-3 * (1.0 + np.abs(one)))) for one, other in chosen):
                    return False
            return True if all(bool(np.all(np.isfinite(leaf))) for leaf in leaves) else None

        even, odd = slice(0, None, 2), slice(1, None, 2)
        untouched = ((1, 0), (2, 0)), ((1, -1), (3, -1)), ((1, even), (4, even)), ((1, odd), (5, odd))
        return ReverseKind(row_by_row=equal(*untouched), alike=equal(((0,), (0, slice(0, 1)))))

    def kind(params: Params, h: Any, z: Any) -> ReverseKind:
        leaves, structure = jax.tree.flatten((params, h, z))
        # Integers of Python may be sizes or places, and stay what they are.
        kinds = [
            _Kind(jnp.shape(leaf), jnp.result_type(leaf))
            if _checks.is_array(leaf) and type(leaf) not in (bool, int)
            else leaf
            for leaf in leaves
        ]
        if any(isinstance(kind, _Kind) and jnp.issubdtype(kind.dtype, jax.dtypes.extended) for kind in kinds):
            return unknown
        if not all(isinstance(kind, Hashable) for kind in kinds):
            return unknown
        return kind_of(structure, tuple(kinds), tuple(map(type, kinds)))

    return kind
