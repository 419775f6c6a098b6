"""The defensive proposal: a few samples from a broad distribution, which bounds the weights."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hiwae_jax import _checks
from hiwae_jax._families.distribution import Distribution, one_distribution
from hiwae_jax._families.family import Family, Sampler, draw_noise, like_loc, require_family, require_sampler
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._families.shared import Shared, is_shared, marked_like, split_shared
from hiwae_jax._proposals.draw import Draw, Structures
from hiwae_jax._proposals.members import Members
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._types import Conditional, Example, Key, Parameters, Params, Unchecked


@_checks.by_name
def defensive(
    conditional: Conditional,
    broad: Conditional,
    *,
    num_samples: int,
    num_broad: int = 1,
    family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
) -> Proposal:
    """K samples of a defensive mixture: most come from `q(z | x)`, the last few from a broad distribution.

    Under `power_heuristic(1)`, `log w_j = log p(x, z_j) - log sum_i q_i(z_j)`. These are the weights of a mixture with
    proportions `num_broad / K`. They are bounded wherever `p(x, z)` over the broad density is. If the broad
    distribution is the prior, `sum_j w_j <= K / num_broad * max_z p(x | z)`, however narrow q becomes.

    Args:
      conditional: `(params, x) -> (loc [D], scale [D])` for one example, or pytrees as for `independent`. Where both
        functions return the same arrays of `params` in a `hj.Shared`, no copies are made for the samples.
      broad: likewise, of the same family. For example the prior, or q with a larger scale.
      num_samples: K, the number of both kinds together.
      num_broad: how many of them are from `broad`, at least 1 and fewer than K.
      family: the family of both. `student_t(df)` has the heavy tails that Domke and Sheldon recommend.
      sampler: draws the noise of all samples as one flat array, in place of the family's own; see `independent`.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. Every weighting and every gradient is valid.

    Choosing:
      weightings: any.
      gradients: plain, DReG, refilled.
      default: DReG.
      cost: K x K densities under a power heuristic.
      when: bounded weights: alpha = 1 with the prior as the broad member.

    Raises:
      ValueError: unless `num_broad` is smaller than `num_samples`.

    Reference: Hesterberg (1995), "Weighted average importance sampling and defensive mixture distributions"; Domke and
    Sheldon (2018), "Importance weighting and variational inference".
    """
    num_samples = _checks.positive_integer("num_samples", num_samples)
    _checks.function("conditional", conditional, "(params, x)", result="(loc [D], scale [D])")
    require_sampler(sampler)
    num_broad = _checks.positive_integer("num_broad", num_broad)
    if num_broad >= num_samples:
        raise ValueError(f"num_broad: expected fewer than num_samples = {num_samples}, got {num_broad}")
    _checks.function("broad", broad, "(params, x)", result="(loc [D], scale [D])")
    require_family("family", family)
    members = Members(family=family, layout="rows")

    def draw(params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw:
        q, parameters = _both(conditional(params, x), broad(params, x), family, (num_samples - num_broad, num_broad))
        shape = num_samples, q.structure.size
        size = math.prod(shape)
        noise = draw_noise(sampler or family.sampler, key, ((2 if refill else 1) * size,), q.structure.dtype)
        z = members.forward(parameters, noise[:size].reshape(shape))
        again = (members.forward(parameters, noise[size:].reshape(shape)), None) if refill else None
        return Draw(z=z, parameters=parameters, context=x, refill=again, structures=Structures(q.z_structure))

    return Proposal(
        draw=draw,
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        members=members,
        refills=True,
        independent_noise=sampler is None,
    )


def _both(
    narrow: Unchecked, wide: Unchecked, family: Family, counts: tuple[int, int]
) -> tuple[Distribution, Parameters]:
    """The narrow distribution, and the parameters of so many members of it and of so many broad ones."""
    q, broad = one_distribution("conditional", narrow, family), one_distribution("broad", wide, family)
    shapes = [[leaf.shape for leaf in jax.tree.leaves(found.parameters)] for found in (q, broad)]
    if shapes[0] == shapes[1]:
        shapes = [found.structure.tree_of_shapes for found in (q, broad)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"broad: expected arrays of the shapes of conditional, {shapes[0]}, got {shapes[1]}")
    _require_same_shared(narrow, wide, family)

    def rows(one: Array | Shared, other: Array | Shared) -> Array | Shared:
        if isinstance(one, Shared):
            return one
        assert not isinstance(other, Shared)  # both functions marked the same arrays
        parts = [jnp.broadcast_to(leaf, (count, *leaf.shape)) for count, leaf in zip(counts, (one, other), strict=True)]
        return jnp.concatenate(parts)

    marked = marked_like(q.parameters, narrow), marked_like(broad.parameters, wide)
    return q, jax.tree.map(rows, *marked, is_leaf=is_shared)


def _require_same_shared(narrow: Unchecked, wide: Unchecked, family: Family) -> None:
    """Raise unless both functions marked the same arrays as shared."""
    shared, other = split_shared(narrow)[1], split_shared(wide)[1]
    if not shared and not other:
        return
    if family.noise_like is like_loc:
        raise ValueError(
            "conditional: expected (loc, scale), got hj.Shared, which is for families with further parameters; leave "
            "it out"
        )
    arrays, others = jax.tree.leaves(shared), jax.tree.leaves(other)
    if len(arrays) != len(others) or not all(one is another for one, another in zip(arrays, others, strict=True)):
        raise ValueError(
            "broad: expected in hj.Shared the very arrays that conditional has there, got others; take both from "
            "params unchanged, or leave out hj.Shared"
        )
