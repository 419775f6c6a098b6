"""ELU that keeps its output for the backward pass, and nothing else."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# XLA's CPU compiler of JAX 0.11 and 0.12 makes a loop over the channels the innermost one, and does not vectorize it
# where they are few. Between two barriers an image is one long row. In JAX 0.10 the barriers cost more than they save.
_FLAT = jax.__version_info__ >= (0, 11)


@jax.custom_jvp
def elu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` above zero, `exp(x) - 1` below; the values and derivatives of `jax.nn.elu`.

    The derivative is a function of the output, which the next layer keeps anyway. `jax.nn.elu` keeps a mask and the
    exponential as well: half as much again in the memory of a convolutional encoder.
    """
    if jax.default_backend() != "cpu" or not _FLAT or x.ndim < 2:
        return jax.nn.elu(x)
    barrier: Callable[[jax.Array], jax.Array] = jax.lax.optimization_barrier
    return barrier(jax.nn.elu(barrier(x.reshape(-1)))).reshape(x.shape)


@elu.defjvp
def _elu_jvp(
    primals: tuple[Float[Array, "*shape"]], tangents: tuple[Float[Array, "*shape"]]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    (x,), (tangent,) = primals, tangents
    y = elu(x)
    return y, jnp.where(y > 0, tangent, tangent * (y + 1))
