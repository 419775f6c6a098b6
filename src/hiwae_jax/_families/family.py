"""Families of distributions as pure functions of parameter arrays.

Distributions are passed around as arrays, never as objects. So stopping the gradient of the arrays stops all of it.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from hiwae_jax import _checks
from hiwae_jax._families.structure import Structure
from hiwae_jax._types import Key, Latent, Parameters, Scalar, Unchecked


@runtime_checkable
class Forward(Protocol):
    """`z = T(noise; parameters)`: invertible and differentiable in the noise."""

    def __call__(self, parameters: Parameters, noise: Float[Array, " D"], /) -> Float[Array, "..."]: ...


@runtime_checkable
class Inverse(Protocol):
    """`noise = T^-1(z; parameters)`."""

    def __call__(self, parameters: Parameters, z: Float[Array, "..."], /) -> Float[Array, " D"]: ...


@runtime_checkable
class LogProb(Protocol):
    """The log-density of one z."""

    def __call__(self, parameters: Parameters, z: Float[Array, "..."], /) -> Scalar: ...


@runtime_checkable
class Sampler(Protocol):
    """Draws noise. It receives the caller's key unchanged, once for each example."""

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: DTypeLike, /) -> Float[Array, "..."]: ...


def standard_normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """Draw independent standard normal noise from one typed key.

    Raises:
      TypeError: if the key is not a typed key made by `jax.random.key`.
      ValueError: if it is a batch of keys.
    """
    return jax.random.normal(_checks.one_key(key), shape, dtype)


class Family(NamedTuple):
    """A family of distributions on R^D: four functions that make samples of noise and give their density.

    `forward` must map the noise of `sampler` to a sample whose log-density is `log_prob`. `inverse` must undo
    `forward`. It finds the noise with which another member would have made the same sample. `hj.check_family` checks
    that the functions agree. `hj.family_from` makes families of the distributions of other libraries.

    The parameters are a pytree of arrays. In a proposal of K members every leaf has K leading rows, except in a
    `hj.Shared`, which all members share. How much noise a sample takes is the length of the first leaf, which must have
    the shape [D] of z. (The leaves of a dict are sorted by name.) With `noise_like` the parameters may be any pytree.

    On a curved support, such as the simplex, z may have more entries than the noise. The first leaf then has the shape
    of the noise. The density is that of the first entries of z, as many as the noise has.

    Attributes:
      forward: `(parameters, noise [D]) -> z [D]`.
      inverse: `(parameters, z [D]) -> noise [D]`. None if it is not known; then samples move along their own paths
        only, and gradients that need those of other members are refused.
      log_prob: `(parameters, z [D]) -> scalar`.
      sampler: `(key, shape, dtype) -> noise` with independent entries; standard normal by default.
      noise_like: how much noise a sample takes: D, or a function of the parameters that returns D or a pytree of arrays
        (`jax.ShapeDtypeStruct` will do). With a pytree, `log_joint` receives z in its structure, while the functions
        above see the entries of its leaves as one vector. None means as much as the first leaf has entries.
      pathwise: whether `forward` has the derivative in the parameters that belongs to `log_prob`. If not, the only
        gradient is "score_function".
    """

    forward: Forward
    inverse: Inverse | None
    log_prob: LogProb
    sampler: Sampler = standard_normal
    noise_like: int | Callable[[Parameters], Latent] | None = None
    pathwise: bool = True


def like_loc(parameters: Parameters) -> Latent:
    """The `noise_like` of families whose parameters are `(loc, scale)`, two pytrees of the structure of z.

    They are raveled before the functions of such a family see them.
    """
    is_pair = isinstance(parameters, (tuple, list)) and len(parameters) == 2
    return parameters[0] if is_pair else jax.tree.leaves(parameters)[0]


def noise_structure(family: Family, parameters: Parameters) -> Structure:
    """What the noise of one sample is, given the parameters of one distribution, which may be abstract.

    Raises:
      TypeError, ValueError: if `noise_like` gives something that is neither a size nor arrays.
    """
    leaves = jax.tree.leaves(parameters)
    like = family.noise_like
    like = leaves[0] if like is None else like(parameters) if callable(like) else like
    size = _checks.integer(like)
    if size is not None:
        dtype = Structure.of(leaves).dtype if leaves else jnp.zeros(()).dtype
        return Structure.of_vector(_checks.positive_integer("family.noise_like", size), dtype)
    expected = "the number of entries of the noise, or a pytree of floating-point arrays"
    if not jax.tree.leaves(like):
        raise ValueError(f"family.noise_like: expected {expected}, got {like!r:.80}")
    for leaf in jax.tree.leaves(like):
        if not _checks.is_array(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"family.noise_like: expected {expected}, got {leaf!r:.80}")
    return Structure.of(like)


def require_family(name: str, family: Unchecked) -> None:
    """Raise if the argument of this name is no family."""
    if not isinstance(family, Family):
        got = type(family).__name__
        raise TypeError(f"{name}: expected hj.diagonal_gaussian, hj.student_t(5.0) or another hj.Family, got {got}")
    like = family.noise_like
    if like is not None and not callable(like):
        _checks.positive_integer(f"{name}.noise_like", like)


def require_pathwise_family(name: str, family: Unchecked) -> None:
    """Raise if the argument of this name is no family, or one whose samples have no derivative."""
    require_family(name, family)
    if not family.pathwise:
        raise ValueError(
            f"{name}: expected a family with pathwise samples, which the only gradient of this proposal needs, got one "
            "without; use hj.independent, hj.defensive or hj.hierarchical with gradient='score_function'"
        )


def require_sampler(sampler: Unchecked) -> None:
    """Raise if the caller's sampler is not a function of a key, a shape and a dtype."""
    if sampler is not None:
        _checks.function("sampler", sampler, "(key, shape, dtype)", result="noise")


def draw_noise(sampler: Sampler, key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """Draw noise, and raise if it does not have the shape asked for."""
    noise = sampler(key, shape, dtype)
    if jnp.shape(noise) != shape:
        raise ValueError(f"sampler: expected noise of the shape asked for, {shape}, got {jnp.shape(noise)}")
    return noise


def require_value(family: str, z: Float[Array, "..."], residual: Float[Array, "..."]) -> None:
    """Raise unless z has the shape of its residual: another one broadcasts, and the density gets a wrong constant."""
    if jnp.shape(z) != residual.shape:
        raise ValueError(
            f"{family}.log_prob: expected a value of the shape of its parameters, {residual.shape}, got "
            f"{jnp.shape(z)}; jnp.reshape(value, {residual.shape}) makes one of one number, and jax.vmap acts on many"
        )


def log_volume(scale: Float[Array, "..."], z: Float[Array, "..."]) -> Scalar:
    """`sum_d log scale_d`, where one scale may stand for several dimensions of z."""
    return jnp.sum(jnp.broadcast_to(jnp.log(scale), z.shape))
