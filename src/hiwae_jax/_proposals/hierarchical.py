"""The hierarchical proposal: members conditioned by an auxiliary variable, weighed with a reverse model of it."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families.distribution import (
    Distribution,
    check_distribution,
    distributions,
    first_row,
    one_distribution,
)
from hiwae_jax._families.family import Family, Parameters, Sampler, draw_noise, require_family, require_sampler
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._families.shared import (
    Shared,
    num_rows,
    over_members,
    split_shared,
    unwrapped,
    with_shared,
)
from hiwae_jax._families.structure import Structure
from hiwae_jax._proposals.proposal import Draw, Layout, Members, Proposal, ReverseDraws, Structures
from hiwae_jax._proposals.reverse_trial import make_reverse_trial
from hiwae_jax._proposals.sharding import Placement, placement_of
from hiwae_jax._random_streams import Stream, stream_key
from hiwae_jax._types import Context, Example, Key, Params


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
    reverse_samples: int = 0,
    sharding: NamedSharding | None = None,
) -> Proposal:
    """The hierarchical proposal: `z_0 ~ q_0(z_0 | x)`, then `z_j ~ q_j(z_j | z_0, x)`, weighed with `r(z_0 | z_j, x)`.

    The log-weight is `log p(x, z_j) + log r(z_0 | z_j) - log q_0(z_0) - log q_j(z_j | z_0) + log pi_j(z_j)`. With it
    the bound is valid whatever `r` is, and the marginal densities of the members, without z_0, are not needed.

    Args:
      base: `(params, x) -> (loc [D0], scale [D0])`, the parameters of q_0. Both may be scalars, arrays of any shape, or
        pytrees of arrays; z_0 is then like loc.
      conditionals: `(params, x, z0 [D0]) -> (loc [K, D], scale [K, D])`, a row for each member. Likewise, with K
        leading rows on every leaf; z is then like one row. What all members share may be in a `hj.Shared`, without
        rows.
      reverse: `(params, x, z [K, D]) -> (loc [K, D0], scale [K, D0])`. Row j has the parameters of `r_j(. | z_j)` and
        must depend on `z[j]` alone. Pytrees have these leading rows on every leaf. Only under the uniform weighting may
        it treat the members differently; under any other the bound would not be valid.
      shared: whether all members have one z_0. False gives each sample a z_0 of its own; with equal members that is
        IWAE(h).
      num_samples: K, if all members are one distribution. `conditionals` then returns one row, [1, D].
      context: `(params, x) -> context`, such as an encoder. It is evaluated once an example, and the three callables
        receive its value in place of x.
      family: the family of the members.
      base_family: the family of q_0 and r.
      sampler: draws the noise of z_0 and of all members in one call, in place of the families' own; see `independent`.
        Without it, two families with the same sampler draw in one call too. Two different samplers each receive a key
        of their own, folded from the caller's.
      reverse_samples: S, how many further values of z_0 are drawn from `r(. | z_j)` for each sample. The densities
        without z_0 are estimated as means over all S + 1. So the bound is tighter; as S grows it becomes that of the
        members' marginal densities, whatever r is. It costs K S evaluations of `conditionals`, which return K rows
        each, and none of the generative model. With S > 0, the weighting must not be learned, and the gradient is
        "reparameterized"; if each sample has a z_0 of its own and no weighting compares the members, it is
        "doubly_reparameterized".
      sharding: `NamedSharding(mesh, P(axis))` splits the samples of each example over the devices of a mesh axis; see
        `independent`. A power heuristic communicates the members' parameters as well.

    Returns:
      A proposal for `make_bound` and `make_log_weights`.

    Choosing:
      weightings: any; under a power heuristic r may not know the member.
      gradients: plain, DReG, refilled.
      default: DReG.
      cost: r at K points; K x K densities under a power heuristic.
      when: several modes; members that share the work.

    Raises:
      TypeError, ValueError: for a `sharding` of another kind. When called: if it cannot split K evenly, and for a
        reverse model with which no bound is valid, if a trial on random numbers shows that.

    Reference: Huang et al. (2019), section 3.2; Sobolev and Vetrov (2019), for `reverse_samples`.
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
    reverse_samples = _checks.integer_from(0, "reverse_samples", reverse_samples)
    placement = placement_of(sharding)
    given = _Given(
        base,
        conditionals,
        reverse,
        shared,
        num_samples,
        context,
        family,
        base_family,
        sampler,
        placement,
        reverse_samples,
    )
    return _proposal_of(given)


def _proposal_of(given: "_Given") -> Proposal:
    members = Members(
        family=given.family,
        layout=given.layout,
        base_family=given.base_family,
        at=lambda params, h, z0: _members_at(given, params, h, z0).parameters,
        placement=given.placement,
    )
    rows = lambda params, h, z: _reverse_rows(given, params, h, z).parameters
    return Proposal(
        draw=functools.partial(_draw, given, members),
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        log_reverse=functools.partial(_log_reverse, given),
        reverse_traits=make_reverse_trial(functools.partial(_rows_to_compare, given)),
        equal_members=members.equal,
        members=members,
        refills=not members.equal,
        independent_noise=given.sampler is None,
        reverse=ReverseDraws(given.reverse_samples, rows, lambda S: _proposal_of(given._replace(reverse_samples=S))),
    )


class _Given(NamedTuple):
    """The arguments of `hierarchical`, checked."""

    base: Callable[[Params, Any], Parameters]
    conditionals: Callable[[Params, Any, Float[Array, " D0"]], Parameters]
    reverse: Callable[[Params, Any, Float[Array, "K D"]], Parameters]
    shared: bool
    num_samples: int | None
    context: Callable[[Params, Example], Any] | None
    family: Family
    base_family: Family
    sampler: Sampler | None
    placement: Placement
    reverse_samples: int

    @property
    def layout(self) -> Layout:
        """The layout of the members' parameters; see `Members`."""
        if self.num_samples is None:
            return "rows" if self.shared else "table"
        return "one" if self.shared else "own"


class _Noise(NamedTuple):
    """The noise of one example, flat.

    Attributes:
      z0: of z_0.
      z: of the samples.
      refill_z0: of a second z_0, where each sample has one of its own and refills are asked for. Otherwise empty.
      refill_z: of second samples, where refills are asked for. Otherwise empty.
      reverse: of the further draws of the reverse model.
    """

    z0: Float[Array, " n"]
    z: Float[Array, " n"]
    refill_z0: Float[Array, " n"]
    refill_z: Float[Array, " n"]
    reverse: Float[Array, " n"]


def _draw(given: _Given, members: Members, params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw:
    """Draw z_0, then a sample of each member given z_0. Refills repeat all of this but a shared z_0."""
    h = x if given.context is None else given.context(params, x)
    base, base_structure = one_distribution("base", given.base(params, h), given.base_family, expected="[D0]")

    def draw_z0(noise: Float[Array, " n"]) -> Float[Array, "rows D0"]:
        rows = noise.reshape(-1, base_structure.size)
        z0: jax.Array = jax.vmap(given.base_family.forward, in_axes=(None, 0))(base, rows)
        return z0

    def members_at(z0: Float[Array, "rows D0"]) -> Distribution:
        return _members_at(given, params, h, base_structure.restored(z0))

    abstract = jax.eval_shape(lambda noise: members_at(draw_z0(noise)), base_structure.abstract_vector)
    structure = abstract.structure
    shape = given.num_samples or _num_members(given, abstract), structure.size
    noise = _draw_noise(given, key, z0=base_structure.abstract_vector, shape=shape, refill=refill)

    def parameters_at(z0: Float[Array, "rows D0"]) -> Parameters:
        parameters = members_at(z0).parameters
        return given.placement.rows(parameters) if given.layout != "one" else parameters

    def draw_z(parameters: Parameters, noise: Float[Array, " n"]) -> Float[Array, "K D"]:
        rows = noise.astype(structure.dtype).reshape(shape)
        z: jax.Array = given.placement.rows(members.forward(parameters, rows))
        return z

    z0 = draw_z0(noise.z0)
    parameters = parameters_at(z0)
    z = draw_z(parameters, noise.z)
    z0_rows = jnp.broadcast_to(z0, (shape[0], z0.shape[-1]))
    refills = None
    if refill and given.shared:
        refills = draw_z(parameters, noise.refill_z), z0_rows
    elif refill:
        refill_z0 = draw_z0(noise.refill_z0)
        refills = draw_z(parameters_at(refill_z0), noise.refill_z), refill_z0
    reverse_noise = None
    if given.reverse_samples > 0:
        reverse_noise = noise.reverse.reshape(shape[0], given.reverse_samples, z0.shape[-1])
        reverse_noise = given.placement.rows(reverse_noise)
    structures = Structures(abstract.z_structure, None if base_structure.is_vector else base_structure)
    return Draw(z, parameters, z0_rows, base, h, refill=refills, reverse_noise=reverse_noise, structures=structures)


def _draw_noise(given: _Given, key: Key, *, z0: Any, shape: tuple[int, int], refill: bool) -> _Noise:
    """Draw all noise of one example, in one call of a sampler, or in one for z_0 and one for the samples.

    Args:
      given: the arguments of `hierarchical`.
      key: the caller's.
      z0: an array with the shape [D0] and the dtype of one z_0.
      shape: the shape [K, D] of the samples.
      refill: whether refills are asked for.
    """
    size_z0, size_z = (1 if given.shared else shape[0]) * z0.shape[-1], math.prod(shape)
    size_refill_z0, size_refill_z = size_z0 if refill and not given.shared else 0, size_z if refill else 0
    size_reverse = shape[0] * given.reverse_samples * z0.shape[-1]
    if given.sampler is not None or given.base_family.sampler is given.family.sampler:
        # One call: the key is used once, and one generator is compiled instead of two.
        # Further draws of the reverse model have a key of their own, so that they do not change the others.
        sizes = size_z0, size_z, size_refill_z0, size_refill_z, size_reverse if given.sampler is not None else 0
        flat = draw_noise(given.sampler or given.family.sampler, key, (sum(sizes),), z0.dtype)
        noise = _Noise(*jnp.split(flat, np.cumsum(sizes)[:-1]))
        if given.sampler is None:
            noise = noise._replace(reverse=_reverse_noise(given, key, size_reverse, z0.dtype))
        return _Noise(*given.placement.whole(noise))
    base_key, member_key = stream_key(key, Stream.BASE_NOISE), stream_key(key, Stream.MEMBER_NOISE)
    base = draw_noise(given.base_family.sampler, base_key, (size_z0 + size_refill_z0,), z0.dtype)
    member = draw_noise(given.family.sampler, member_key, (size_z + size_refill_z,), z0.dtype)
    reverse = _reverse_noise(given, key, size_reverse, z0.dtype)
    noise = _Noise(base[:size_z0], member[:size_z], base[size_z0:], member[size_z:], reverse)
    return _Noise(*given.placement.whole(noise))


def _reverse_noise(given: _Given, key: Key, size: int, dtype: Any) -> Float[Array, " n"]:
    if size == 0:
        return jnp.zeros(0, dtype)
    return draw_noise(given.base_family.sampler, stream_key(key, Stream.REVERSE_NOISE), (size,), dtype)


def _members_at(given: _Given, params: Params, h: Context, z0: Any) -> Distribution:
    """The members' parameters at the shared z_0 [1, D0], or at each sample's own [K, D0], in the user's structure."""
    are_equal = given.num_samples is not None
    expected = "[1, D] (num_samples was given: all members are equal)" if are_equal else "[K, D]"

    def at(one_z0: Any) -> Distribution:
        returned = given.conditionals(params, h, one_z0)
        found = distributions("conditionals", returned, given.family, expected=expected, rows=1 if are_equal else None)
        marked = found._replace(parameters=first_row(found.parameters))
        first = found._replace(parameters=unwrapped(marked.parameters))
        check_distribution("conditionals", given.family, first)
        if not are_equal:
            return found
        return first if given.shared else marked

    return at(jax.tree.map(lambda rows: rows[0], z0)) if given.shared else _at_each_z0(at, z0)


def _at_each_z0(at: Callable[[Any], Distribution], z0: Any) -> Distribution:
    """The members' parameters at every z_0, but for what all members share."""

    def split_at(one_z0: Any) -> tuple[Distribution, list[Shared]]:
        found = at(one_z0)
        rest, shared = split_shared(found.parameters)
        return found._replace(parameters=rest), shared

    try:
        found, shared = jax.vmap(split_at, out_axes=(0, None))(z0)
    except ValueError as error:
        if "out_axes" not in str(error):
            raise
        raise ValueError(
            "conditionals: expected the same hj.Shared at every z_0, because each sample has a z_0 of its own, got one "
            "that depends on z_0; leave out hj.Shared there"
        ) from error
    return found._replace(parameters=with_shared(found.parameters, shared))


def _num_members(given: _Given, abstract: Distribution) -> int:
    """K, from the members' parameters at one z_0."""
    leaf = jax.tree.leaves(split_shared(abstract.parameters)[0])[0]
    return int(leaf.shape[0 if given.shared else 1])


def _reverse_rows(given: _Given, params: Params, h: Context, z: Any) -> Distribution:
    """The parameters of `r(. | z_j)`, a row for each sample."""
    returned = given.reverse(params, h, z)
    rows = len(jax.tree.leaves(z)[0])
    return distributions("reverse", returned, given.base_family, expected="[K, D0]", rows=rows)


def _rows_to_compare(given: _Given, params: Params, h: Context, z: Any) -> Any:
    """Likewise, for a trial of the rows. Each has what all share too, summed up, since that must not depend on z."""
    parameters = _reverse_rows(given, params, h, z).parameters
    rest, shared = split_shared(parameters)
    rows = num_rows(parameters)
    return rest, [jnp.broadcast_to(jnp.sum(leaf), (rows,)) for leaf in jax.tree.leaves(shared)]


def _log_reverse(given: _Given, params: Params, h: Context, z0: Any, z: Any) -> Float[Array, " K"]:
    """`log r(z_0 | z_j)`."""
    rows, structure = _reverse_rows(given, params, h, z)
    of_base = Structure.of(z0, leading=1)
    if (structure.treedef, structure.shapes) != (of_base.treedef, of_base.shapes):
        raise ValueError(
            f"reverse: expected rows of {of_base.tree_of_shapes} to match z_0 from base, got rows of "
            f"{structure.tree_of_shapes}; return (loc, scale) of the structure of z_0"
        )
    densities: jax.Array = over_members(given.base_family.log_prob, rows, structure.flat(z0))
    return densities
