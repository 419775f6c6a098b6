"""ELU that keeps its output for the backward pass, and nothing else."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_jvp
def elu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` above zero, `exp(x) - 1` below; the values and derivatives of `jax.nn.elu`.

    The derivative is a function of the output, which the next layer keeps anyway. `jax.nn.elu` keeps a mask and the
    exponential as well: half as much again in the memory of a convolutional encoder.
    """
    return jax.nn.elu(x)


@elu.defjvp
def _elu_jvp(
    primals: tuple[Float[Array, "*shape"]], tangents: tuple[Float[Array, "*shape"]]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    (x,), (tangent,) = primals, tangents
    y = elu(x)
    return y, jnp.where(y > 0, tangent, tangent * (y + 1))
