"""The proposal of a Markov chain of samples, weighed with an auxiliary chain that runs backwards."""

import functools
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hiwae_jax import _checks
from hiwae_jax._families.distribution import Distribution, one_distribution
from hiwae_jax._families.family import Family, Sampler, draw_noise, require_pathwise_family, require_sampler
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._families.shared import split_shared
from hiwae_jax._families.structure import Structure
from hiwae_jax._proposals.draw import Draw, Structures
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._types import (
    Conditional,
    Context,
    ContextOf,
    Example,
    Key,
    Latent,
    Parameters,
    Params,
    Samples,
    Scalar,
    Unchecked,
)


@runtime_checkable
class MarkovStep(Protocol):
    """The distribution of the sample after z, or of the one before it."""

    def __call__(self, params: Params, x: Context, z: Latent, step: Int[Array, ""], /) -> Parameters: ...


@_checks.by_name
def markov(
    base: Conditional,
    transition: MarkovStep,
    reverse: MarkovStep,
    *,
    num_samples: int,
    context: ContextOf | None = None,
    family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
) -> Proposal:
    r"""`z_1 ~ q_1(z_1 | x)`, then `z_j ~ q_j(z_j | z_{j-1}, x)`: each sample sees the one before it.

    The marginal density of z_j is an integral over its predecessors, which is not known. Therefore the predecessors are
    treated as auxiliary variables of sample j. A model of them given z_j runs the chain backwards,
    `r(z_{1:j-1} | z_j) = prod_{i < j} r_i(z_i | z_{i+1})`. The weights are

        w_j = pi_j(z_j) p(x, z_j) prod_{i < j} r_i(z_i | z_{i+1}) / (q_1(z_1) prod_{1 < i <= j} q_i(z_i | z_{i-1}))

    Under the chain, the q cancel in `E[w_j] = int pi_j(z_j) p(x, z_j) r(z_{1:j-1} | z_j) dz_{1:j}`. r integrates to one
    over z_{1:j-1}, so this is `int pi_j(z) p(x, z) dz`. The pi sum to one at every z, so `E[sum_j w_j] = p(x)`,
    whatever r is.

    The pi may depend on x and z_j only. A power heuristic of the transitions would depend on the predecessors of each
    member. These are different variables in different terms, so the sum over j would not be one. It is therefore
    refused. `uniform_weighting()` and `learned_weighting` are valid.

    Args:
      base: `(params, x) -> (loc [D], scale [D])`, the parameters of q_1, or pytrees as for `independent`. All steps
        then receive and return the same structure.
      transition: `(params, x, z [D], step) -> (loc [D], scale [D])`, the distribution of the sample after z. `step` is
        a traced integer. It is 0 for the transition from the first sample to the second.
      reverse: `(params, x, z [D], step) -> (loc [D], scale [D])`, the model of the sample before z. `step` is that of
        the transition between the two.
      num_samples: K, the length of the chain.
      context: `(params, x) -> context`, evaluated once an example. The callables receive its value in place of x.
      family: the family of all conditionals.
      sampler: draws the noise [K, D] in place of the family's own. It receives the caller's key unchanged, once.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. Only `gradient="reparameterized"` is valid. The samples are
      drawn one after the other (`jax.lax.scan`).

    Choosing:
      weightings: uniform, learned.
      gradients: plain.
      default: plain.
      cost: K - 1 transitions in sequence, K - 1 reverse densities.
      when: a comparison; each sample sees the one before.

    Reference: Huang et al. (2019), section 3.2 and figure 2; Agakov and Barber (2004) for auxiliary variables.

    >>> def step(params, x, z, number):
    ...     return 0.5 * z, jnp.ones_like(z)
    >>> proposal = markov(lambda params, x: (jnp.zeros(2), jnp.ones(2)), step, step, num_samples=3)
    >>> proposal.draw(None, None, jax.random.key(0)).z.shape
    (3, 2)
    """
    num_samples = _checks.positive_integer("num_samples", num_samples)
    require_pathwise_family("family", family)
    _checks.function("base", base, "(params, x)", result="(loc [D], scale [D])")
    for name, step in (("transition", transition), ("reverse", reverse)):
        _checks.function(name, step, "(params, x, z, step)", result="(loc [D], scale [D])")
    if context is not None:
        _checks.function("context", context, "(params, x)")
    require_sampler(sampler)

    given = _Given(base, transition, reverse, num_samples, context, family, sampler or family.sampler)
    return Proposal(
        draw=functools.partial(_draw, given),
        own_densities=functools.partial(_own_densities, given),
        pair_densities=None,
        log_reverse=functools.partial(_log_reverse, given),
        why_plain="the members of a Markov chain are conditioned by one another",
    )


class _Given(NamedTuple):
    """The arguments of `markov`."""

    base: Conditional
    transition: MarkovStep
    reverse: MarkovStep
    num_samples: int
    context: ContextOf | None
    family: Family
    sampler: Sampler


def _draw(given: _Given, params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw:
    """Draw the samples one after the other."""
    family, h = given.family, x if given.context is None else given.context(params, x)
    first = _one_step("base", given.base(params, h), family)
    noise = draw_noise(given.sampler, key, (given.num_samples, first.structure.size), first.structure.dtype)

    def advance(
        z: Float[Array, " D"], inputs: tuple[Int[Array, ""], Float[Array, " D"]]
    ) -> tuple[Float[Array, " D"], tuple[Float[Array, " D"], Parameters]]:
        number, noise = inputs
        returned = given.transition(params, h, first.structure.restored(z), number)
        parameters = _parameters_after("transition", returned, first.structure, family)
        z = family.forward(parameters, noise)
        return z, (z, parameters)

    z = family.forward(first.parameters, noise[0])
    _, (later, parameters) = jax.lax.scan(advance, z, (jnp.arange(given.num_samples - 1), noise[1:]))
    rows = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first.parameters, parameters)
    z = jnp.concatenate([z[None], later])
    return Draw(z=z, parameters=rows, context=h, structures=Structures(first.z_structure))


def _own_densities(given: _Given, parameters: Parameters, z: Samples) -> Float[Array, " K"]:
    """`log q_1(z_1) + sum_{1 < i <= j} log q_i(z_i | z_{i-1})`."""
    return jnp.cumsum(jax.vmap(given.family.log_prob)(parameters, z))


def _log_reverse(given: _Given, params: Params, h: Context, z0: None, samples: Latent) -> Float[Array, " K"]:
    """`sum_{i < j} log r_i(z_i | z_{i+1})`; there is no z_0."""
    structure = Structure.of(samples, leading=1)

    def before(z: Latent, later: Latent, number: Int[Array, ""]) -> Scalar:
        returned = given.reverse(params, h, later, number)
        parameters = _parameters_after("reverse", returned, structure, given.family)
        return given.family.log_prob(parameters, structure.flat(z))

    ends = jax.tree.map(lambda rows: rows[:-1], samples), jax.tree.map(lambda rows: rows[1:], samples)
    steps = jax.vmap(before)(*ends, jnp.arange(given.num_samples - 1))
    return jnp.concatenate([jnp.zeros(1, steps.dtype), jnp.cumsum(steps)])


def _parameters_after(name: str, returned: Unchecked, structure: Structure, family: Family) -> Parameters:
    """The parameters of the distribution to which a step of the chain goes."""
    found = _one_step(name, returned, family)
    expected, got = structure.tree_of_shapes, found.structure.tree_of_shapes
    if got != expected:
        raise ValueError(f"{name}: expected arrays of shape {expected}, that of z_1 from base, got {got}")
    return found.parameters


def _one_step(name: str, returned: Unchecked, family: Family) -> Distribution:
    """The distribution of one sample. There is nothing that all share: the draw keeps the parameters of every step."""
    if split_shared(returned)[1]:
        raise ValueError(f"{name}: expected parameters of one step of the chain, got hj.Shared; leave it out")
    return one_distribution(name, returned, family)
