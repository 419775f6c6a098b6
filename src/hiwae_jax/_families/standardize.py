"""`(z - loc) / scale` with derivatives that stay finite from a scale of 1e-30 to one of 1e30.

Two things overflow in float32 long before the result does. First, JAX's derivative of a quotient squares the scale:
1e-20 becomes 1e-40, which is zero. Second, a point far from a narrow distribution is 1e30 standard deviations away, and
the square of that is infinite. The point has no weight then, but zero times infinity is NaN.

So the derivative here contains no square, and the residual is limited to `RESIDUAL_LIMIT` standard deviations, or fewer
for a scale below one. The log-density at the limit is below -1e5 nats for every scale of at least 1e-30. Its
exponential is zero, so no weight changes. Beyond the limit the derivative is the one at the limit, so that it still
says in which direction the distribution has to move.
"""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from hiwae_jax._types import Tangent

RESIDUAL_LIMIT = 1e18


def residual_limit(scale: ArrayLike) -> Float[Array, "..."]:
    """The largest residual for a scale. Its square over the scale, a derivative of the log-density, is still finite."""
    return RESIDUAL_LIMIT * jnp.sqrt(jnp.minimum(jnp.abs(scale), 1.0))


@jax.custom_jvp
def standardized(
    z: Float[Array, "..."], loc: Float[Array, "..."] | float, scale: Float[Array, "..."] | float
) -> Float[Array, "..."]:
    """`(z - loc) / scale`, clipped to the limit. Shapes broadcast, and scales may be negative.

    >>> float(standardized(jnp.float32(3.0), jnp.float32(1.0), jnp.float32(4.0)))
    0.5
    >>> slope = jax.grad(standardized, argnums=2)(jnp.float32(3e-30), jnp.float32(1e-30), jnp.float32(1e-30))
    >>> f"{slope:.3g}"  # -residual / scale, where the square of the scale is zero
    '-2e+30'
    """
    # The reciprocal is taken for each member. A division for each pair of sample and member would make XLA keep the [K,
    # K, D] quotient instead of fusing it into the sum.
    residual = jnp.asarray((z - loc) * (1.0 / scale))
    limit = jnp.broadcast_to(residual_limit(scale), residual.shape).astype(residual.dtype)
    return jax.lax.clamp(-limit, residual, limit)


def _standardized_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Tangent, Tangent, Tangent]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    residual = standardized(*primals)
    d_z, d_loc, d_scale = tangents
    inverse = 1.0 / primals[2]
    moved = jnp.zeros_like(residual)
    # Tangents that are known to be zero are left out. Under most estimators loc and scale are fixed here.
    if not isinstance(d_z, SymbolicZero):
        moved += d_z * inverse
    if not isinstance(d_loc, SymbolicZero):
        moved -= d_loc * inverse
    if not isinstance(d_scale, SymbolicZero):
        moved -= residual * (d_scale * inverse)
    return residual, moved


standardized.defjvp(_standardized_jvp, symbolic_zeros=True)
