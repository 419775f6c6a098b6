"""The proposal of mirrored pairs of samples."""

import jax.numpy as jnp

from hiwae_jax import _checks
from hiwae_jax._families.distribution import one_distribution
from hiwae_jax._families.family import Family, Sampler, draw_noise, require_pathwise_family, require_sampler
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._proposals.draw import Draw, Structures
from hiwae_jax._proposals.members import Members
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._types import Conditional, Example, Key, Params


@_checks.by_name
def antithetic(
    conditional: Conditional,
    *,
    num_samples: int,
    family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
) -> Proposal:
    """K/2 pairs of mirrored samples of one `q(z | x)`: the noise of the second half is minus that of the first.

    Each sample by itself has density q, so the weights are those of `independent`. Within a pair the weights tend to be
    negatively correlated. This lowers the variance of their sum where log w is close to odd around the centre of q.

    Args:
      conditional: `(params, x) -> (loc [D], scale [D])` for one example, or pytrees as for `independent`.
      num_samples: K, even.
      family: the family whose parameters `conditional` returns.
      sampler: draws the noise [K/2, D] in place of the family's own. Its distribution must be symmetric about zero.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. A pair has no joint density on R^2D, so only
      `gradient="reparameterized"` is valid.

    Choosing:
      weightings: any; without a learned one every sample has the weight 1/K.
      gradients: plain.
      default: plain.
      cost: nothing.
      when: log w close to odd around the centre of q.

    Raises:
      ValueError: if `num_samples` is odd.

    Reference: Hammersley and Morton (1956); Wu, Goodman and Ermon (2019), "Differentiable antithetic sampling".

    >>> import jax
    >>> proposal = antithetic(lambda params, x: (x, jnp.ones_like(x)), num_samples=4)
    >>> z = proposal.draw(None, jnp.zeros(2), jax.random.key(0)).z
    >>> bool(jnp.all(z[:2] == -z[2:]))
    True
    """
    num_samples = _checks.positive_integer("num_samples", num_samples)
    _checks.function("conditional", conditional, "(params, x)", result="(loc [D], scale [D])")
    require_sampler(sampler)
    if num_samples % 2:
        raise ValueError(f"num_samples: expected an even number, since samples come in pairs, got {num_samples}")
    require_pathwise_family("family", family)
    members = Members(family=family, layout="one")

    def draw(params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw:
        q = one_distribution("conditional", conditional(params, x), family)
        noise = draw_noise(sampler or family.sampler, key, (num_samples // 2, q.structure.size), q.structure.dtype)
        z = members.forward(q.parameters, jnp.concatenate([noise, -noise]))
        return Draw(z=z, parameters=q.parameters, context=x, structures=Structures(q.z_structure))

    return Proposal(
        draw=draw,
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        equal_members=True,
        why_plain="antithetic samples are functions of one another, and have no joint density",
    )
