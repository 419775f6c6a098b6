"""Names for types that many modules use."""

from typing import Any

import jax
from jaxtyping import Array, Float

# What comes from the user, whose types are the user's own.
Params = Any  # any pytree
Example = Any  # one observation: an array or a pytree
Context = Any  # what the conditionals receive in place of the example: an array or a pytree
Key = Any  # one typed key, or whatever a sampler of the user's takes for one

Arrays = list[jax.Array]
Scalar = Float[Array, ""]
Samples = Float[Array, "K D"]
AuxiliarySamples = Float[Array, "K D0"] | None  # z_0 at each sample, where there is one
