"""Families made from the distributions of other libraries, and how their samples are made of noise.

A distribution is built from arrays, inside of each function of the family, and forgotten again. So a gradient that is
stopped at the arrays is stopped in all of it. No gradient is ever stopped at an object, whose parts may be copies.

The objects of distrax, TensorFlow Probability, NumPyro and flowjax are known by their public attributes and class
names. None of these libraries is imported.
"""

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families.family import Family, Sampler, require_sampler, standard_normal
from hiwae_jax._families.gaussian import diagonal_gaussian, full_rank_gaussian
from hiwae_jax._types import Key, Parameters, Scalar, Unchecked

Foreign = Any  # a distribution of another library
Paths = Literal["all", "own", "none"]
_PATHS = ("all", "own", "none")
_BASES = ("base_dist", "distribution")  # NumPyro and flowjax; distrax and TFP
_WRAPPERS = ("Independent", "Sample", "ExpandedDistribution")  # which change nothing but shapes
_MANY_TO_ONE = ("AbsTransform", "AbsoluteValue")


@_checks.by_name
def family_from(
    make: Callable[[Parameters], Foreign],
    *,
    paths: Paths = "all",
    forward: Callable[[Foreign, Float[Array, " D"]], Float[Array, " D"]] | None = None,
    inverse: Callable[[Foreign, Float[Array, " D"]], Float[Array, " D"]] | None = None,
    sampler: Sampler | None = None,
) -> Family:
    """A family from a function that makes a distribution of another library, such as distrax or NumPyro.

    `make(parameters)` returns an object with `log_prob(z)` and `sample(key)` or `sample(seed=key)`, for one z [D]. It
    is called anew in each function of the family. Everything that is learned must reach it through `parameters`: the
    gradient of an array that `make` closes over would not be stopped where estimators stop that of the parameters.

    Args:
      make: `parameters -> distribution`. The parameters are as those of every family: floating-point arrays, the first
        of them with the shape [D] of z.
      paths: what is known of how a sample moves with the parameters.
        "all": the distribution is a transformation of noise that can be undone, so that any member can move a sample.
        Either `forward` says how, or it is read off the object: normal distributions with a location and a scale, and
        transformed ones (a base distribution with a bijector, bijection or transforms) down to a normal distribution.
        "own": the object can only draw samples, which are differentiable in the parameters. There is no `inverse`. The
        noise of a sample is the seed that it is drawn with.
        "none": its samples have no derivative, or a wrong one, as those of mixtures. Then `"score_function"` is the
        only gradient.
      forward: `(distribution, noise [D]) -> z [D]`, for paths="all".
      inverse: `(distribution, z [D]) -> noise [D]`. Without it, or with paths other than "all", the gradient that moves
        samples along the paths of other members is refused: "doubly_reparameterized" under a power heuristic.
      sampler: `(key, shape, dtype) -> noise`, of what `forward` takes; None for standard normal noise.

    Returns:
      A family for `family=`. `hj.check_family` checks that its functions agree; call it once, in a test.

    Raises:
      ValueError: for an unknown `paths`, or `forward` with paths other than "all". When used: if samples of the object
        cannot be read off it; with paths="own", if it says that its samples are not reparameterized, or is a mixture.
      TypeError: when used, if the object has no `log_prob` or `sample`.

    >>> import hiwae_jax as hj
    >>> class Logistic:
    ...     def __init__(self, loc): self.loc = loc
    ...     def log_prob(self, z): return jnp.sum(jax.scipy.stats.logistic.logpdf(z, self.loc))
    ...     def sample(self, key): return self.loc + jax.random.logistic(key, self.loc.shape)
    >>> family = hj.family_from(lambda parameters: Logistic(parameters[0]), paths="own")
    >>> hj.check_family(family, (jnp.array([0.3, -1.0]),), jax.random.key(0))
    """
    _checks.function("make", make, "(parameters)", result="a distribution with log_prob and sample")
    if not isinstance(paths, str) or paths not in _PATHS:
        raise ValueError(f"paths: expected one of {', '.join(map(repr, _PATHS))}, got {paths!r:.80}")
    _check_functions(paths, forward, inverse)
    require_sampler(sampler)
    if paths != "all" and sampler is not None:
        raise ValueError(f"sampler: expected None with paths={paths!r}, where samples come from sample(key)")

    def log_prob(parameters: Parameters, z: Float[Array, " D"]) -> Scalar:
        return _log_prob(_made(make, parameters), z)

    if paths != "all":
        draw = _draw_with_paths if paths == "own" else _draw_without_paths
        seeded = lambda parameters, noise: draw(_made(make, parameters), noise)
        return Family(seeded, None, log_prob, seed_noise, pathwise=paths == "own")
    make_z = forward or (lambda distribution, noise: _map_of(distribution).forward(noise))
    find_noise = inverse if forward else lambda distribution, z: _map_of(distribution).inverse(z)
    of_noise = lambda parameters, noise: make_z(_made(make, parameters), noise)
    back = None if find_noise is None else lambda parameters, z: find_noise(_made(make, parameters), z)
    return Family(of_noise, back, log_prob, sampler or standard_normal)


def _check_functions(paths: str, forward: Unchecked, inverse: Unchecked) -> None:
    """Raise for what are no functions, and for functions that are not called."""
    for name, function, arguments in (
        ("forward", forward, "(distribution, noise)"),
        ("inverse", inverse, "(distribution, z)"),
    ):
        if function is not None:
            _checks.function(name, function, arguments)
            if paths != "all":
                raise ValueError(f"{name}: expected None with paths={paths!r}, where samples come from sample(key)")
    if inverse is not None and forward is None:
        raise ValueError("forward: expected a function (distribution, noise) beside inverse, got None")


def _made(make: Callable[[Parameters], Foreign], parameters: Parameters) -> Foreign:
    """The object, or what it lacks."""
    distribution = make(parameters)
    for name in ("log_prob", "sample"):
        if not callable(getattr(distribution, name, None)):
            got = type(distribution).__name__
            raise TypeError(f"make: expected a distribution with the methods log_prob and sample, got {got}")
    return distribution


def _log_prob(distribution: Foreign, z: Float[Array, " D"]) -> Scalar:
    density: jax.Array = distribution.log_prob(z)
    if jnp.shape(density) != ():
        raise ValueError(
            f"make: expected one distribution of z [D], whose log_prob is a scalar, got log_prob of shape "
            f"{jnp.shape(density)} for z of shape {z.shape}; make the entries one event with Independent(..., 1) or "
            ".to_event(1)"
        )
    return density


class _Map(NamedTuple):
    """How an object makes samples of standard normal noise, and the way back."""

    forward: Callable[[Array], Array]
    inverse: Callable[[Array], Array]


def _map_of(distribution: Foreign) -> _Map:
    """The map of an object, read off its public attributes; a ValueError if it is not known."""
    name = type(distribution).__name__
    base = next((getattr(distribution, one) for one in _BASES if hasattr(distribution, one)), None)
    step = None if base is None else _step_of(distribution)
    if step is not None:
        before = _map_of(base)
        return _Map(lambda e: step.forward(before.forward(e)), lambda z: before.inverse(step.inverse(z)))
    if base is not None and name in _WRAPPERS:
        return _map_of(base)
    if name == "StandardNormal":
        return _Map(lambda e: e, lambda z: z)
    if name == "Normal":
        return _affine(diagonal_gaussian, distribution.loc, distribution.scale)
    if name == "MultivariateNormal" and hasattr(distribution, "scale_tril"):
        return _affine(full_rank_gaussian, distribution.loc, distribution.scale_tril)
    raise ValueError(
        f"make: expected a normal distribution, or one transformed from it, got {name}; say with forward= and inverse= "
        "how samples are made of the noise of sampler=, or use paths='own' (paths='none' if its samples are not "
        "differentiable)"
    )


def _affine(family: Family, *parameters: Array) -> _Map:
    """The map of a normal distribution."""
    assert family.inverse is not None
    undo = family.inverse
    return _Map(lambda e: family.forward(parameters, e), lambda z: undo(parameters, z))


def _step_of(distribution: Foreign) -> _Map | None:
    """The last step of a transformed distribution; None if it is no such distribution."""
    if hasattr(distribution, "bijector"):  # distrax, TFP
        steps = [distribution.bijector]
        maps = [_Map(step.forward, step.inverse) for step in steps]
    elif hasattr(distribution, "bijection"):  # flowjax
        steps = [distribution.bijection]
        maps = [_Map(step.transform, step.inverse) for step in steps]
    elif hasattr(distribution, "transforms"):  # NumPyro
        steps = list(distribution.transforms)
        maps = [_Map(step, step.inv) for step in steps]
    else:
        return None
    for step in steps:
        if type(step).__name__ in _MANY_TO_ONE:
            name = type(step).__name__
            raise ValueError(f"make: expected a transformation that can be undone, got {name}; use paths='own'")

    def forward(e: Array) -> Array:
        for one in maps:
            e = one.forward(e)
        return e

    def inverse(z: Array) -> Array:
        for one in reversed(maps):
            z = one.inverse(z)
        return z

    return _Map(forward, inverse)


def seed_noise(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """Noise that is a seed: finite floats of which 31 bits are random, whatever their dtype."""
    bits = jax.random.bits(_checks.one_key(key), shape, jnp.uint32)
    exponent = jnp.uint32(64) + ((bits >> 23) & jnp.uint32(0x7F))
    floats = jax.lax.bitcast_convert_type((bits & jnp.uint32(0x807FFFFF)) | (exponent << 23), jnp.float32)
    return floats.astype(dtype)


def _seeded(distribution: Foreign, noise: Float[Array, " D"]) -> Array:
    """A sample of the object with the seed that this noise is."""
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(noise).astype(jnp.float32), jnp.uint32)
    key = jax.random.key(0)
    for word in bits[:2]:  # of 62 random bits
        key = jax.random.fold_in(key, word)
    by_name = "seed" in inspect.signature(distribution.sample).parameters
    z: Array = distribution.sample(seed=key) if by_name else distribution.sample(key)
    return z


def _draw_with_paths(distribution: Foreign, noise: Float[Array, " D"]) -> Array:
    """A sample that is differentiable in the parameters; a ValueError if the object says that it is not."""
    reason = _why_not_reparameterized(distribution)
    if reason is not None:
        raise ValueError(
            f"make: expected a distribution with reparameterized samples, and {reason}; use paths='none', with which "
            "gradient='score_function' is valid"
        )
    return _seeded(distribution, noise)


def _draw_without_paths(distribution: Foreign, noise: Float[Array, " D"]) -> Array:
    """A sample without a derivative."""
    return jax.lax.stop_gradient(_seeded(distribution, noise))


def _why_not_reparameterized(distribution: Foreign) -> str | None:
    """Why the samples of an object have no derivative, or a wrong one; None if nothing says so."""
    name = type(distribution).__name__
    if getattr(distribution, "has_rsample", True) is False:  # NumPyro
        return f"the has_rsample of {name} is False"
    if "NOT_REPARAMETERIZED" in repr(getattr(distribution, "reparameterization_type", "")):  # TFP
        return f"the reparameterization_type of {name} is NOT_REPARAMETERIZED"
    if "Mixture" in name:  # those of distrax and flowjax do not say
        return f"{name} picks a component, of which a sample has no derivative"
    base = next((getattr(distribution, one) for one in _BASES if hasattr(distribution, one)), None)
    return None if base is None else _why_not_reparameterized(base)
