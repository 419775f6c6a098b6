"""The Bernoulli likelihood of pixels, from logits."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from hiwae_jax import _checks
from hiwae_jax._checks import at_least_float32


def bernoulli_log_prob(logits: Float[Array, "*batch P"], x: Shaped[Array, "*batch P"]) -> Float[Array, "*batch"]:
    """Log-probability of pixels under independent Bernoulli variables, summed over the last axis.

    `sum_p x_p log s(l_p) + (1 - x_p) log(1 - s(l_p))` with `s` the sigmoid. No probability is formed, so
    nothing is clipped: a certain wrong pixel costs its logit, and a certain right one costs nothing.

    Args:
      logits: [*batch, P], finite, any float type; computed in float32 or wider.
      x: [*batch, P], pixels: bool, integers 0 and 1, or floats in [0, 1].

    Returns:
      Log-probabilities [*batch], a scalar for one example.

    Gradients:
      `x - sigmoid(logits)` to the logits, exact at every size, zero included.

    Raises:
      ValueError: the shapes differ (nothing is broadcast), or there is no pixel axis; outside of `jit` also pixels
        that are not in [0, 1], such as grey levels up to 255. Under `jit` values are not known, and not checked.
      TypeError: the logits are no floating-point array, or the pixels no numbers.

    >>> logits = jnp.array([0.0, 1e4, 1e4])
    >>> float(bernoulli_log_prob(logits, jnp.array([True, True, True])))
    -0.6931471824645996
    >>> float(bernoulli_log_prob(logits[1:], jnp.array([1.0, 0.0])))
    -10000.0
    """
    for name, array in (("logits", logits), ("x", x)):
        if not hasattr(array, "dtype"):
            raise TypeError(f"{name}: expected an array, got {type(array).__name__}")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits: expected a floating-point array, got dtype {logits.dtype}; are these the pixels?")
    if not any(jnp.issubdtype(x.dtype, numbers) for numbers in (jnp.bool_, jnp.integer, jnp.floating)):
        raise TypeError(f"x: expected pixels as booleans, integers or floats, got dtype {x.dtype}")
    if logits.shape != x.shape or logits.ndim == 0:
        raise ValueError(
            f"x: expected the shape of logits [..., P], {logits.shape}, got {x.shape}; reshape or broadcast explicitly "
            "before the call"
        )
    known = _checks.known_range(x)
    if known is not None and not (known[0] >= 0.0 and known[1] <= 1.0):
        raise ValueError(
            f"x: expected pixels in [0, 1], got values from {known[0]:g} to {known[1]:g}; divide grey levels by 255"
        )
    logits = at_least_float32(logits)
    x = x.astype(logits.dtype)
    # max(l, 0) - x l + log1p(exp(-|l|)) is free of rounding for binary x, which softplus(l) - x l is not.
    # Both max and |.| come from one comparison, so that at l = 0 their derivatives belong to the same side.
    positive = logits >= 0
    surprise = jnp.where(positive, logits, 0.0) - x * logits
    surprise += jnp.log1p(jnp.exp(jnp.where(positive, -logits, logits)))
    return -jnp.sum(surprise, axis=-1)


def logits_from_mean(mean: Float[Array, "*shape"], *, margin: float = 1e-3) -> Float[Array, "*shape"]:
    """Logits of pixel frequencies, the usual start of a decoder's output bias: `log(m / (1 - m))`.

    Args:
      mean: pixel means over the training set, in [0, 1].
      margin: means are first moved into [margin, 1 - margin], since a pixel that is never on has no finite
        logit.

    Returns:
      Finite logits of the same shape, in float32 or wider.

    Raises:
      ValueError: `margin` is not in (0, 0.5).

    Source: Burda, Grosse and Salakhutdinov 2016, the authors' initialisation of the output bias.

    >>> [round(float(l), 2) for l in logits_from_mean(jnp.array([0.0, 0.5, 1.0]))]
    [-6.91, 0.0, 6.91]
    """
    margin = _checks.number("margin", margin, above=0.0)
    if margin >= 0.5:
        raise ValueError(f"margin: expected a number in (0, 0.5), got {margin}")
    mean = jnp.clip(_checks.float_array("mean", mean), margin, 1.0 - margin)
    return jnp.log(mean) - jnp.log1p(-mean)
