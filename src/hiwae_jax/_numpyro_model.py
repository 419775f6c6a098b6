"""NumPyro models as `log_joint`. NumPyro is imported when a model is made, and not before."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from hiwae_jax._types import Example, Params, Scalar

Site = Any  # of a trace of NumPyro's
Sites = dict[str, Array]  # the values of sites by name


class NumpyroModel(NamedTuple):
    """A NumPyro model with its data, in unconstrained coordinates.

    Attributes:
      log_joint: `(params, x, z [D]) -> scalar`, for `make_bound` and its like. It ignores params and x: the data are
        those that the model was made with.
      num_dimensions: D, of all latent sites together.
      unravel: `z [D] -> dict`, the unconstrained values of the latent sites by name. `ravel_pytree` of the dict is z.
      constrain: `z [D] -> dict`, the values in the supports of their priors by name, deterministic sites too.
    """

    log_joint: Callable[[Params, Example, Float[Array, " D"]], Scalar]
    num_dimensions: int
    unravel: Callable[[Float[Array, " D"]], Sites]
    constrain: Callable[[Float[Array, " D"]], Sites]


def numpyro_model(model: Callable[..., object], *args: object, **kwargs: object) -> NumpyroModel:
    """A NumPyro model as a `log_joint` of one vector z on R^D.

    Each latent site is mapped to R^n as NumPyro's samplers do it (a scale by its logarithm, shares by stick-breaking).
    `log_joint` contains the log|det| of this map and all constants, so that its integral over z is the evidence of the
    data: `make_log_evidence` estimates log Z.

    Args:
      model: a function of NumPyro primitives. Latent sites must be continuous. `plate` with a `subsample_size`, and
        `param` sites are refused: the first would give the evidence of a part of the data, the second have no prior.
      *args: the model's arguments, such as the data.
      **kwargs: likewise.

    Returns:
      The model as functions. They work under `jit`, `vmap` and `grad`.

    Raises:
      ImportError: if NumPyro is not installed. `pip install "hiwae_jax[numpyro]"` brings it.
      ValueError: for a site that is refused, by name, and for a model without latent sites.

    Reference: Phan, Pradhan and Jankowiak (2019), "Composable effects for flexible and accelerated probabilistic
    programming in NumPyro".
    """
    try:
        from numpyro import handlers
        from numpyro.infer import util
    except ImportError as error:
        raise ImportError('numpyro_model: NumPyro is not installed; pip install "hiwae_jax[numpyro]"') from error
    if not callable(model):
        raise TypeError(f"model: expected a function of NumPyro primitives, got {type(model).__name__}")
    key = jax.random.key(0)  # of prototypes alone, whose values do not matter
    sites = handlers.trace(handlers.seed(model, key)).get_trace(*args, **kwargs)
    _check_sites(sites)
    info = util.initialize_model(key, model, model_args=args, model_kwargs=kwargs, validate_grad=False)
    flat, unravel = ravel_pytree(info.param_info.z)

    def log_joint(params: Params, x: Example, z: Float[Array, " D"]) -> Scalar:
        potential: jax.Array = info.potential_fn(unravel(z))
        return -potential

    def constrain(z: Float[Array, " D"]) -> Sites:
        values: Sites = info.postprocess_fn(unravel(z))
        return values

    return NumpyroModel(log_joint, flat.size, unravel, constrain)


def _check_sites(sites: dict[str, Site]) -> None:
    """Raise for a site with which the potential is not the log-joint of all data."""
    latent = [site for site in sites.values() if site["type"] == "sample" and not site["is_observed"]]
    for site in latent:
        if site["fn"].support.is_discrete:
            raise ValueError(
                f"model: expected continuous latent sites, and {site['name']!r} is discrete; sum over it in the model"
            )
    for site in sites.values():
        if site["type"] == "param":
            raise ValueError(f"model: expected sites with a prior, and {site['name']!r} is a param; make it a sample")
        size, subsample_size = site["args"] if site["type"] == "plate" else (None, None)
        if subsample_size not in (None, size):
            raise ValueError(
                f"model: expected all data, and the plate {site['name']!r} takes {subsample_size} of {size}; leave out "
                "subsample_size"
            )
    if not latent:
        raise ValueError("model: expected at least one latent site, got none")
