"""The defensive proposal: a few samples from a broad distribution, which bounds the weights."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families.family import Family, Parameters, Sampler, draw_noise, require_family, require_sampler
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._proposals.parameters import one_member
from hiwae_jax._proposals.proposal import Draw, Members, Proposal
from hiwae_jax._types import Example, Key, Params


@_checks.by_name
def defensive(
    conditional: Callable[[Params, Example], Parameters],
    broad: Callable[[Params, Example], Parameters],
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
      conditional: `(params, x) -> (loc [D], scale [D])` for one example.
      broad: likewise, of the same family. For example the prior, or q with a larger scale.
      num_samples: K, the number of both kinds together.
      num_broad: how many of them are from `broad`, at least 1 and fewer than K.
      family: the family of both. `student_t(df)` has the heavy tails that Domke and Sheldon recommend.
      sampler: draws the noise of all samples as one flat array, in place of the family's own; see `independent`.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. Every weighting and every gradient is valid.

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
        narrow = one_member("conditional", conditional, params, x, family)
        wide = one_member("broad", broad, params, x, family)
        shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (narrow, wide)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"broad: expected arrays of the shapes of conditional, {shapes[0]}, got {shapes[1]}")

        def rows(one: Float[Array, "..."], other: Float[Array, "..."]) -> Float[Array, "K ..."]:
            counts = ((num_samples - num_broad, one), (num_broad, other))
            return jnp.concatenate([jnp.broadcast_to(leaf, (count, *leaf.shape)) for count, leaf in counts])

        parameters = jax.tree.map(rows, narrow, wide)
        loc = jax.tree.leaves(parameters)[0]
        noise = draw_noise(sampler or family.sampler, key, ((2 if refill else 1) * loc.size,), loc.dtype)
        z = members.forward(parameters, noise[: loc.size].reshape(loc.shape))
        again = (members.forward(parameters, noise[loc.size :].reshape(loc.shape)), None) if refill else None
        return Draw(z=z, parameters=parameters, context=x, refill=again)

    return Proposal(
        draw=draw,
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        members=members,
        refills=True,
        independent_noise=sampler is None,
    )
