"""From what a user's conditional returns to what is computed with: parameters of a vector, and the structure of z."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hiwae_jax import _checks
from hiwae_jax._families.family import Family, like_loc, noise_structure
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._families.shared import Shared, is_shared, split_shared, unwrapped, with_shared
from hiwae_jax._families.structure import Structure, same_structure
from hiwae_jax._types import Parameters, Unchecked


class Distribution(NamedTuple):
    """One distribution of a family, or one for each member or sample.

    Attributes:
      parameters: as the functions of the family take them; several distributions have a leading axis of rows, except
        in what they share.
      structure: that of the noise of one sample, and of z, unless z has more entries.
    """

    parameters: Parameters
    structure: Structure

    @property
    def z_structure(self) -> Structure | None:
        """The structure of z, where it is no vector."""
        return None if self.structure.is_vector else self.structure


def one_distribution(name: str, returned: Unchecked, family: Family, *, expected: str = "[D]") -> Distribution:
    """The checked parameters of one distribution.

    Args:
      name: the argument of the public function that returned them, for the error message.
      returned: what it returned.
      family: the family that they are for.
      expected: the expected shapes, in words.
    """
    found = distribution(name, returned, family, expected=expected)
    check_distribution(name, family, found)
    return found


def distribution(name: str, returned: Unchecked, family: Family, *, expected: str = "[D]") -> Distribution:
    """Likewise, without a check of the family's functions."""
    returned = _pair_of_trees(family, unwrapped(returned))
    if _is_pair_of_trees(family, returned, ndim=1):
        return _raveled(name, returned, leading=0)
    parameters = _checked(name, returned, family, ndim=1, expected=expected, rows=None)
    return Distribution(parameters, noise_structure(family, parameters))


def distributions(
    name: str, returned: Unchecked, family: Family, *, expected: str = "[K, D]", rows: int | None = None
) -> Distribution:
    """The checked parameters of several distributions, with a row for each.

    Args:
      name: the argument of the public function that returned them, for the error message.
      returned: what it returned.
      family: the family that they are for.
      expected: the expected shapes, in words.
      rows: how many rows there must be, if that is known.
    """
    returned = _pair_of_trees(family, returned)
    if _is_pair_of_trees(family, returned, ndim=2):
        return _raveled(name, returned, leading=1, rows=rows)
    rest, shared = split_shared(returned)
    if shared and family.noise_like is like_loc:
        raise ValueError(
            f"{name}: expected loc and scale with a row for each sample, got hj.Shared, which is for families with "
            "further parameters; broadcast what all rows share"
        )
    rest = _checked(name, rest, family, ndim=2, expected=expected, rows=rows)
    shared = [Shared(_checks.float_arrays(name, part.value, expected="in hj.Shared")) for part in shared]
    parameters = with_shared(rest, shared)
    return Distribution(parameters, noise_structure(family, unwrapped(first_row(parameters))))


def first_row(parameters: Parameters) -> Parameters:
    """The parameters of the first of several distributions, with the marks of those that all share."""
    return jax.tree.map(lambda leaf: leaf if is_shared(leaf) else leaf[0], parameters, is_leaf=is_shared)


def _pair_of_trees(family: Family, returned: Unchecked) -> Unchecked:
    """A pytree of pairs (loc, scale), such as a dict of them, as a pair of pytrees; anything else as it is.

    A tuple or list at the top is the pair itself.
    """
    if family.noise_like is not like_loc or isinstance(returned, (tuple, list)):
        return returned
    pairs, treedef = jax.tree.flatten(returned, is_leaf=_is_pair)
    if not pairs or not all(map(_is_pair, pairs)):
        return returned
    loc, scale = zip(*pairs, strict=True)
    return jax.tree.unflatten(treedef, loc), jax.tree.unflatten(treedef, scale)


def _is_pair(node: Unchecked) -> bool:
    return type(node) is tuple and len(node) == 2 and all(map(_checks.is_array, node))


def _is_pair_of_trees(family: Family, returned: Unchecked, *, ndim: int) -> bool:
    """Whether these are `(loc, scale)` of a z that is no vector."""
    if family.noise_like is not like_loc or not isinstance(returned, (tuple, list)) or len(returned) != 2:
        return False
    loc = returned[0]
    if not all(map(_checks.is_array, jax.tree.leaves(returned))) or not jax.tree.leaves(loc):
        return False
    return not (_checks.is_array(loc) and jnp.ndim(loc) == ndim)


def _checked(
    name: str, returned: Unchecked, family: Family, *, ndim: int, expected: str, rows: int | None
) -> Parameters:
    """The parameters in at least float32, if they are what the family needs."""
    if family.noise_like in (None, like_loc):
        equal_shapes = family is diagonal_gaussian
        return _checks.distribution_parameters(
            name, returned, ndim=ndim, expected=expected, equal_shapes=equal_shapes, rows=rows
        )
    parameters = _checks.float_arrays(name, returned, expected="for one example")
    if ndim == 2:
        _check_rows(name, parameters, expected="arrays with a row for each sample", rows=rows)
    return parameters


def _check_rows(name: str, parameters: Parameters, *, expected: str, rows: int | None) -> None:
    """Raise unless all leaves have as many rows."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(parameters)]
    if not shapes:
        raise ValueError(
            f"{name}: expected {expected}, got nothing that has rows, so that nothing says how many there are; leave "
            "something out of hj.Shared"
        )
    rows = shapes[0][0] if rows is None and shapes[0] else rows
    if any(shape[:1] != (rows,) for shape in shapes):
        got = ", ".join(map(str, shapes))
        raise ValueError(f"{name}: expected {rows or 'K'} rows, one for each sample, as {expected}; got {got}")


def _raveled(name: str, returned: Unchecked, *, leading: int, rows: int | None = None) -> Distribution:
    """A pair of pytrees `(loc, scale)` as one of vectors."""
    loc, scale = _checks.float_arrays(name, returned, expected="(loc, scale)")
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (loc, scale)]
    if not same_structure(loc, scale) or shapes[0] != shapes[1]:
        raise ValueError(
            f"{name}: expected a pair (loc, scale) of one structure and of equal shapes, got {shapes[0]} and "
            f"{shapes[1]}; give every leaf of loc a scale of its shape, nothing is broadcast"
        )
    if leading:
        _check_rows(name, loc, expected="leaves of loc and scale", rows=rows)
    dtype = Structure.of((loc, scale)).dtype
    structure = dataclasses.replace(Structure.of(loc, leading=leading), dtype=dtype)
    return Distribution((structure.flat(loc), structure.flat(scale)), structure)


def check_distribution(name: str, family: Family, one: Distribution) -> None:
    """Raise if the functions of the family do not fit the parameters of one distribution that `name` returned."""
    if family is diagonal_gaussian:
        return
    noise = one.structure.abstract_vector
    z = jax.eval_shape(family.forward, one.parameters, noise)
    inverse = family.inverse
    has_more_entries = (
        z.shape > noise.shape
        and inverse is not None
        and jax.eval_shape(inverse, one.parameters, z).shape == noise.shape
    )
    if has_more_entries and name == "base":  # what comes after takes the shape of its noise for that of z
        raise ValueError(
            f"{name}: expected a family whose z has as many entries as its noise, {noise.shape}, got {z.shape}; use a "
            "family like hj.transformed(hj.diagonal_gaussian, hj.simplex) for the members alone"
        )
    if has_more_entries and not one.structure.is_vector:
        raise ValueError(
            f"{name}: expected parameters {noise.shape} of a family whose z has other entries than its noise, got "
            f"{one.structure.tree_of_shapes}; such a z is a vector, of shape {z.shape}"
        )
    fits = one.structure.is_vector and (z.shape == noise.shape or has_more_entries)
    if family.noise_like is None and not fits:
        raise ValueError(
            f"{name}: expected the first leaf of the parameters to have the shape of z from family.forward, "
            f"{z.shape}, got {one.structure.tree_of_shapes}; put an array of the shape of z first, or give hj.Family a "
            "noise_like"
        )
    if z.shape != noise.shape and not has_more_entries:
        raise ValueError(f"family.noise_like: expected that of z from family.forward, {z.shape}, got {noise.shape}")
    density = jax.eval_shape(family.log_prob, one.parameters, z)
    if density.shape != ():
        raise ValueError(
            f"family.log_prob: expected a scalar for one z of shape {z.shape}, got shape {density.shape}; sum over its "
            "dimensions"
        )
