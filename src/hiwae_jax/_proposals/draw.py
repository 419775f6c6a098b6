"""The type of a draw: the K samples of one example, with the arrays that made them."""

import warnings
from typing import NamedTuple

from jaxtyping import Array, Float

from hiwae_jax._families.structure import Structure
from hiwae_jax._types import AuxiliarySamples, Context, Latent, Parameters, Samples, Scalar, Unchecked


class Structures(NamedTuple):
    """The structures of one z and of one z_0, where they are no vectors. There are no arrays in them."""

    z: Structure | None = None
    z0: Structure | None = None

    def restored(self, z: Float[Array, "... D"]) -> Latent:
        """Samples in the user's structure."""
        return z if self.z is None else self.z.restored(z)

    def restored_z0(self, z0: Float[Array, "... D0"] | None) -> Latent:
        """Auxiliary variables in the user's structure."""
        return z0 if self.z0 is None or z0 is None else self.z0.restored(z0)


class _DrawFields(NamedTuple):
    z: Samples
    parameters: Parameters
    z0: AuxiliarySamples = None
    base: Parameters | None = None
    context: Context = None
    joint: Parameters | None = None
    refill: tuple[Samples, AuxiliarySamples] | None = None
    uniform: Scalar | None = None
    reverse_noise: Float[Array, "K S D0"] | None = None
    structures: Structures = Structures()


class Draw(_DrawFields):
    """The K samples of one example, with the arrays that made them. Gradients run from `z` to the parameters.

    Attributes:
      z: the samples [K, D].
      parameters: the members' parameters, in the form that the proposal's densities take.
      z0: the auxiliary variable at each sample [K, D0] (equal rows where it is shared), or None.
      base: the parameters of q_0, or None.
      context: what the conditionals and the reverse model receive in place of x.
      joint: the parameters of the joint density of all samples, where they are not independent; or None.
      refill: `(z [K, D], z0)`, drawn anew from the same members (and the same z_0, if it is shared); None if not asked
        for.
      uniform: the number in [0, 1) that picks samples for the backward pass; None if the bound does not ask for it.
      reverse_noise: the noise [K, S, D0] of S further draws of the reverse model for each sample; None without them.
      structures: the structures of z and z_0 for the user, whose arrays are one vector here.
    """

    __slots__ = ()

    def __new__(cls, *fields: Unchecked, members: Parameters = None, **named: Unchecked) -> "Draw":
        """Make a draw from its fields; `members` is the former name of `parameters`."""
        if members is not None:
            _warn_of_members()
            named["parameters"] = members
        return super().__new__(cls, *fields, **named)

    @property
    def samples(self) -> Latent:
        """The samples as `log_joint` receives them: `z`, or a pytree of arrays with K leading rows."""
        return self.structures.restored(self.z)

    @property
    def members(self) -> Parameters:
        """The former name of `parameters`."""
        _warn_of_members()
        return self.parameters


def _warn_of_members() -> None:
    warnings.warn("Draw.members: use Draw.parameters instead", DeprecationWarning, stacklevel=3)
