"""The proposal of a Markov chain of samples, weighed with an auxiliary chain that runs backwards."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families.distribution import Distribution, one_distribution
from hiwae_jax._families.family import Family, Parameters, Sampler, draw_noise, require_pathwise_family, require_sampler
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._families.shared import split_shared
from hiwae_jax._families.structure import Structure
from hiwae_jax._proposals.proposal import Draw, Proposal, Structures
from hiwae_jax._types import Context, Example, Key, Params

MarkovStep = Callable[[Params, Any, Float[Array, " D"], Any], Parameters]


@_checks.by_name
def markov(
    base: Callable[[Params, Any], Parameters],
    transition: MarkovStep,
    reverse: MarkovStep,
    *,
    num_samples: int,
    context: Callable[[Params, Example], Any] | None = None,
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

    def draw(params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw:
        h = x if context is None else context(params, x)
        first = _one_step("base", base(params, h), family)
        noise = draw_noise(sampler or family.sampler, key, (num_samples, first.structure.size), first.structure.dtype)

        def advance(z: Float[Array, " D"], inputs: Any) -> tuple[Any, Any]:
            number, noise = inputs
            returned = transition(params, h, first.structure.restored(z), number)
            parameters = _parameters_after("transition", returned, first.structure, family)
            z = family.forward(parameters, noise)
            return z, (z, parameters)

        z = family.forward(first.parameters, noise[0])
        _, (later, parameters) = jax.lax.scan(advance, z, (jnp.arange(num_samples - 1), noise[1:]))
        rows = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first.parameters, parameters)
        z = jnp.concatenate([z[None], later])
        return Draw(z=z, parameters=rows, context=h, structures=Structures(first.z_structure))

    def own_densities(parameters: Parameters, z: Float[Array, "K D"]) -> Float[Array, " K"]:
        return jnp.cumsum(jax.vmap(family.log_prob)(parameters, z))

    def log_reverse(params: Params, h: Context, z0: None, samples: Any) -> Float[Array, " K"]:
        structure = Structure.of(samples, leading=1)

        def before(z: Any, later: Any, number: Any) -> Float[Array, ""]:
            parameters = _parameters_after("reverse", reverse(params, h, later, number), structure, family)
            return family.log_prob(parameters, structure.flat(z))

        ends = jax.tree.map(lambda rows: rows[:-1], samples), jax.tree.map(lambda rows: rows[1:], samples)
        steps = jax.vmap(before)(*ends, jnp.arange(num_samples - 1))
        return jnp.concatenate([jnp.zeros(1, steps.dtype), jnp.cumsum(steps)])

    return Proposal(
        draw=draw,
        own_densities=own_densities,
        pair_densities=None,
        log_reverse=log_reverse,
        why_plain="the members of a Markov chain are conditioned by one another",
    )


def _parameters_after(name: str, returned: Any, structure: Structure, family: Family) -> Parameters:
    """The parameters of the distribution to which a step of the chain goes."""
    found = _one_step(name, returned, family)
    expected, got = structure.tree_of_shapes, found.structure.tree_of_shapes
    if got != expected:
        raise ValueError(f"{name}: expected arrays of shape {expected}, that of z_1 from base, got {got}")
    return found.parameters


def _one_step(name: str, returned: Any, family: Family) -> Distribution:
    """The distribution of one sample. There is nothing that all share: the draw keeps the parameters of every step."""
    if split_shared(returned)[1]:
        raise ValueError(f"{name}: expected parameters of one step of the chain, got hj.Shared; leave it out")
    return one_distribution(name, returned, family)
