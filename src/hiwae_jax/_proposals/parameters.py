"""Checks of what a user's conditional returns, for proposals whose z is a vector by its nature."""

from hiwae_jax._families.distribution import one_distribution
from hiwae_jax._families.family import Family
from hiwae_jax._types import Conditional, Example, Parameters, Params


def one_member(
    name: str, conditional: Conditional, params: Params, x: Example, family: Family, *, expected: str = "[D]"
) -> Parameters:
    """The checked parameters of one distribution of vectors; `one_distribution` is for a z of any shape."""
    found = one_distribution(name, conditional(params, x), family, expected=expected)
    if found.z_structure is not None:
        raise ValueError(
            f"{name}: expected arrays {expected}, since this proposal takes z for a vector, got a z of shape "
            f"{found.structure.tree_of_shapes}; ravel it with jax.flatten_util.ravel_pytree, and restore it in "
            "log_joint"
        )
    return found.parameters
