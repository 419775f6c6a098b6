"""The draw of a hierarchical proposal: noise, then z_0, then a sample of each member given z_0."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hiwae_jax._families.distribution import Distribution, one_distribution
from hiwae_jax._families.family import draw_noise
from hiwae_jax._families.structure import Structure
from hiwae_jax._proposals.draw import Draw, Structures
from hiwae_jax._proposals.hierarchical_densities import Given, members_at, num_members
from hiwae_jax._proposals.members import Members
from hiwae_jax._random_streams import Stream, stream_key
from hiwae_jax._types import Context, Example, Key, Parameters, Params, Samples


def draw(given: Given, members: Members, params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw:
    """Draw z_0, then a sample of each member given z_0. Refills repeat all of this but a shared z_0."""
    one = _one_example(given, members, params, x)
    noise = _draw_noise(given, key, z0=one.base.structure.abstract_vector, shape=one.shape, refill=refill)
    z0 = one.z0(noise.z0)
    parameters = one.parameters(z0)
    z = one.z(parameters, noise.z)
    z0_rows = jnp.broadcast_to(z0, (len(z), z0.shape[-1]))
    refills = None
    if refill and given.shared:
        refills = one.z(parameters, noise.refill_z), z0_rows
    elif refill:
        refill_z0 = one.z0(noise.refill_z0)
        refills = one.z(one.parameters(refill_z0), noise.refill_z), refill_z0
    reverse_noise = None
    if given.reverse_samples > 0:
        reverse_noise = noise.reverse.reshape(len(z), given.reverse_samples, z0.shape[-1])
        reverse_noise = given.placement.rows(reverse_noise)
    return Draw(
        z,
        parameters,
        z0_rows,
        one.base.parameters,
        one.context,
        refill=refills,
        reverse_noise=reverse_noise,
        structures=Structures(one.z_structure, one.base.z_structure),
    )


class _OneExample(NamedTuple):
    """How noise becomes z_0 and samples, for one example.

    Attributes:
      given: the arguments of `hierarchical`.
      members: the members.
      params: the parameters.
      context: what the user's functions receive in place of x.
      base: q_0.
      structure: that of the noise of one sample.
      z_structure: that of one z, where it is no vector.
      shape: [K, D].
    """

    given: Given
    members: Members
    params: Params
    context: Context
    base: Distribution
    structure: Structure
    z_structure: Structure | None
    shape: tuple[int, int]

    def z0(self, noise: Float[Array, " n"]) -> Float[Array, "rows D0"]:
        """One z_0 if it is shared, otherwise one for each sample."""
        return _z0(self.given, self.base, noise)

    def parameters(self, z0: Float[Array, "rows D0"]) -> Parameters:
        """The members' parameters at z_0, placed on their devices."""
        parameters = members_at(self.given, self.params, self.context, self.base.structure.restored(z0)).parameters
        return self.given.placement.rows(parameters) if self.given.layout != "one" else parameters

    def z(self, parameters: Parameters, noise: Float[Array, " n"]) -> Samples:
        """A sample of each member."""
        rows = noise.astype(self.structure.dtype).reshape(self.shape)
        return self.given.placement.rows(self.members.forward(parameters, rows))


def _one_example(given: Given, members: Members, params: Params, x: Example) -> _OneExample:
    """The context and q_0 of an example, and what z is, as the shapes of its members say."""
    h = x if given.context is None else given.context(params, x)
    base = one_distribution("base", given.base(params, h), given.base_family, expected="[D0]")

    def abstract_members(noise: Float[Array, " n"]) -> Distribution:
        return members_at(given, params, h, base.structure.restored(_z0(given, base, noise)))

    found = jax.eval_shape(abstract_members, base.structure.abstract_vector)
    shape = given.num_samples or num_members(given, found), found.structure.size
    return _OneExample(given, members, params, h, base, found.structure, found.z_structure, shape)


def _z0(given: Given, base: Distribution, noise: Float[Array, " n"]) -> Float[Array, "rows D0"]:
    rows = noise.reshape(-1, base.structure.size)
    return jax.vmap(given.base_family.forward, in_axes=(None, 0))(base.parameters, rows)


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


class _Sizes(NamedTuple):
    """The sizes of the arrays of `_Noise`."""

    z0: int
    z: int
    refill_z0: int
    refill_z: int
    reverse: int


def _draw_noise(given: Given, key: Key, *, z0: jax.ShapeDtypeStruct, shape: tuple[int, int], refill: bool) -> _Noise:
    """Draw all noise of one example, in one call of a sampler, or in one for z_0 and one for the samples.

    Args:
      given: the arguments of `hierarchical`.
      key: the caller's.
      z0: an array with the shape [D0] and the dtype of one z_0.
      shape: the shape [K, D] of the samples.
      refill: whether refills are asked for.
    """
    sizes = _sizes(given, size_z0=z0.shape[-1], shape=shape, refill=refill)
    if given.sampler is not None or given.base_family.sampler is given.family.sampler:
        noise = _noise_of_one_call(given, key, sizes, z0.dtype)
    else:
        base_key, member_key = stream_key(key, Stream.BASE_NOISE), stream_key(key, Stream.MEMBER_NOISE)
        base = draw_noise(given.base_family.sampler, base_key, (sizes.z0 + sizes.refill_z0,), z0.dtype)
        member = draw_noise(given.family.sampler, member_key, (sizes.z + sizes.refill_z,), z0.dtype)
        reverse = _reverse_noise(given, key, sizes.reverse, z0.dtype)
        noise = _Noise(base[: sizes.z0], member[: sizes.z], base[sizes.z0 :], member[sizes.z :], reverse)
    return given.placement.whole(noise)


def _sizes(given: Given, *, size_z0: int, shape: tuple[int, int], refill: bool) -> _Sizes:
    """How much noise a draw takes."""
    own, z = (1 if given.shared else shape[0]) * size_z0, math.prod(shape)
    reverse = shape[0] * given.reverse_samples * size_z0
    return _Sizes(own, z, own if refill and not given.shared else 0, z if refill else 0, reverse)


def _noise_of_one_call(given: Given, key: Key, sizes: _Sizes, dtype: DTypeLike) -> _Noise:
    """All noise from one sampler: the key is used once, and one generator is compiled instead of two."""
    if given.sampler is not None:
        return _split(draw_noise(given.sampler, key, (sum(sizes),), dtype), sizes)
    # Further draws of the reverse model have a key of their own, so that they do not change the others.
    first = sizes._replace(reverse=0)
    noise = _split(draw_noise(given.family.sampler, key, (sum(first),), dtype), first)
    return noise._replace(reverse=_reverse_noise(given, key, sizes.reverse, dtype))


def _split(flat: Float[Array, " n"], sizes: _Sizes) -> _Noise:
    return _Noise(*jnp.split(flat, np.cumsum(sizes)[:-1]))


def _reverse_noise(given: Given, key: Key, size: int, dtype: DTypeLike) -> Float[Array, " n"]:
    if size == 0:
        return jnp.zeros(0, dtype)
    return draw_noise(given.base_family.sampler, stream_key(key, Stream.REVERSE_NOISE), (size,), dtype)
