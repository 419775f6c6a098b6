"""Names for types that many modules use: what is the user's, the functions that a user gives, and arrays."""

from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float
from jaxtyping import Key as KeyArray

# What comes from the user, whose types are the user's own.
Params = Any  # any pytree, the first argument of every function
Example = Any  # one observation: an array or a pytree
Context = Any  # what the conditionals receive in place of the example: an array or a pytree
Latent = Any  # z or z_0 in the structure of the user, one of them or a row for each sample: an array or a pytree
Parameters = Any  # the arrays of a distribution, a pytree; for the Gaussian `(loc, scale)`
PerExample = Any  # arrays with a leading axis of examples, as a minibatch has: an array or a pytree
Key = Any  # one typed key, or whatever a sampler of the user's takes for one
Leaf = Any  # of a pytree of the user's: an array, a number, or what a library puts there
Unchecked = Any  # an argument, or a result of the user's function, that is not checked yet

Tree = TypeVar("Tree")  # a pytree that is returned with other arrays in it

Arrays = list[jax.Array]
Scalar = Float[Array, ""]
Samples = Float[Array, "K D"]
AuxiliarySamples = Float[Array, "K D0"] | None  # z_0 at each sample, where there is one
Keys = KeyArray[Array, " examples"]  # typed keys, one for each example
Tangent = jax.Array | SymbolicZero  # of an array; the second one is known to be zero


@runtime_checkable
class LogDensity(Protocol):
    """A log-density of the generative model at one z: `log p(x, z)`, `log p(x | z)` or `log p(z)`."""

    def __call__(self, params: Params, x: Example, z: Latent, /) -> Scalar: ...


@runtime_checkable
class Conditional(Protocol):
    """The parameters of a distribution given the example, or given its context: `q(z | x)`, `q_0(z_0 | x)`."""

    def __call__(self, params: Params, x: Example, /) -> Parameters: ...


@runtime_checkable
class ConditionalOnLatent(Protocol):
    """Parameters of distributions given the example and latent variables: `q_j(z_j | z_0, x)`, `r(z_0 | z_j, x)`."""

    def __call__(self, params: Params, x: Example, z: Latent, /) -> Parameters: ...


@runtime_checkable
class ContextOf(Protocol):
    """The context of an example, such as the features of an encoder."""

    def __call__(self, params: Params, x: Example, /) -> Context: ...
