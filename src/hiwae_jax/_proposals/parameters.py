"""Checks of what a user's conditional returns: the parameters of one distribution."""

from typing import Any

import jax

from hiwae_jax import _checks
from hiwae_jax._families.family import Family, Parameters
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._types import Example, Params


def one_member(
    name: str, conditional: Any, params: Params, x: Example, family: Family, *, expected: str = "[D]"
) -> Parameters:
    """The checked parameters of one distribution."""
    parameters = _checks.distribution_parameters(
        name, conditional(params, x), ndim=1, expected=expected, equal_shapes=family is diagonal_gaussian
    )
    check_distribution(name, family, parameters)
    return parameters


def check_distribution(name: str, family: Family, parameters: Parameters) -> None:
    """Raise if the functions of the family do not fit the parameters of one distribution that `name` returned."""
    if family is diagonal_gaussian:
        return
    first = jax.tree.leaves(parameters)[0]  # in place of the noise
    z = jax.eval_shape(family.forward, parameters, first)
    inverse = family.inverse
    has_more_entries = (
        z.shape > first.shape and inverse is not None and jax.eval_shape(inverse, parameters, z).shape == first.shape
    )
    if has_more_entries and name == "base":  # what comes after takes the shape of its parameters for that of z
        raise ValueError(
            f"{name}: expected a family whose z has as many entries as its noise, {first.shape}, got {z.shape}; use a "
            "family like hj.transformed(hj.diagonal_gaussian, hj.simplex) for the members alone"
        )
    if z.shape != first.shape and not has_more_entries:
        raise ValueError(
            f"{name}: expected the first leaf of the parameters to have the shape of z from family.forward, "
            f"{z.shape}, got {first.shape}; put an array of the shape of z first"
        )
    density = jax.eval_shape(family.log_prob, parameters, z)
    if density.shape != ():
        raise ValueError(
            f"family.log_prob: expected a scalar for one z of shape {z.shape}, got shape {density.shape}; sum over its "
            "dimensions"
        )
