"""The distributions of a hierarchical proposal as the user gives them: the members and the reverse model."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax._families.distribution import Distribution, check_distribution, distributions, first_row
from hiwae_jax._families.family import Family, Sampler
from hiwae_jax._families.shared import Shared, num_rows, over_members, split_shared, unwrapped, with_shared
from hiwae_jax._families.structure import Structure
from hiwae_jax._proposals.members import Layout
from hiwae_jax._proposals.sharding import Placement
from hiwae_jax._types import Conditional, ConditionalOnLatent, Context, ContextOf, Latent, Parameters, Params


class Given(NamedTuple):
    """The arguments of `hierarchical`, checked."""

    base: Conditional
    conditionals: ConditionalOnLatent
    reverse: ConditionalOnLatent
    shared: bool
    num_samples: int | None
    context: ContextOf | None
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


def members_at(given: Given, params: Params, h: Context, z0: Latent) -> Distribution:
    """The members' parameters at the shared z_0 [1, D0], or at each sample's own [K, D0], in the user's structure."""
    are_equal = given.num_samples is not None
    expected = "[1, D] (num_samples was given: all members are equal)" if are_equal else "[K, D]"

    def at(one_z0: Latent) -> Distribution:
        returned = given.conditionals(params, h, one_z0)
        found = distributions("conditionals", returned, given.family, expected=expected, rows=1 if are_equal else None)
        marked = found._replace(parameters=first_row(found.parameters))
        first = found._replace(parameters=unwrapped(marked.parameters))
        check_distribution("conditionals", given.family, first)
        if not are_equal:
            return found
        return first if given.shared else marked

    return at(jax.tree.map(lambda rows: rows[0], z0)) if given.shared else _at_each_z0(at, z0)


def _at_each_z0(at: Callable[[Latent], Distribution], z0: Latent) -> Distribution:
    """The members' parameters at every z_0, but for what all members share."""

    def split_at(one_z0: Latent) -> tuple[Distribution, list[Shared]]:
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


def num_members(given: Given, abstract: Distribution) -> int:
    """K, from the members' parameters at one z_0."""
    leaf = jax.tree.leaves(split_shared(abstract.parameters)[0])[0]
    return int(leaf.shape[0 if given.shared else 1])


def reverse_rows(given: Given, params: Params, h: Context, z: Latent) -> Distribution:
    """The parameters of `r(. | z_j)`, a row for each sample."""
    returned = given.reverse(params, h, z)
    rows = len(jax.tree.leaves(z)[0])
    return distributions("reverse", returned, given.base_family, expected="[K, D0]", rows=rows)


def rows_to_compare(given: Given, params: Params, h: Context, z: Latent) -> tuple[Parameters, list[Array]]:
    """Likewise, for a trial of the rows. Each has what all share too, summed up, since that must not depend on z."""
    parameters = reverse_rows(given, params, h, z).parameters
    rest, shared = split_shared(parameters)
    rows = num_rows(parameters)
    return rest, [jnp.broadcast_to(jnp.sum(leaf), (rows,)) for leaf in jax.tree.leaves(shared)]


def log_reverse(given: Given, params: Params, h: Context, z0: Latent, z: Latent) -> Float[Array, " K"]:
    """`log r(z_0 | z_j)`."""
    rows, structure = reverse_rows(given, params, h, z)
    of_base = Structure.of(z0, leading=1)
    if (structure.treedef, structure.shapes) != (of_base.treedef, of_base.shapes):
        raise ValueError(
            f"reverse: expected rows of {of_base.tree_of_shapes} to match z_0 from base, got rows of "
            f"{structure.tree_of_shapes}; return (loc, scale) of the structure of z_0"
        )
    return over_members(given.base_family.log_prob, rows, structure.flat(z0))
