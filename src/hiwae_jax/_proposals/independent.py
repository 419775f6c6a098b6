"""The proposal of independent samples from one distribution."""

from jax.sharding import NamedSharding

from hiwae_jax import _checks
from hiwae_jax._families.distribution import one_distribution
from hiwae_jax._families.family import Family, Sampler, draw_noise, require_family, require_sampler
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._proposals.draw import Draw, Structures
from hiwae_jax._proposals.members import Members
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._proposals.sharding import placement_of
from hiwae_jax._types import Conditional, Example, Key, Params


@_checks.by_name
def independent(
    conditional: Conditional,
    *,
    num_samples: int,
    family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
    sharding: NamedSharding | None = None,
) -> Proposal:
    """K independent samples of one `q(z | x)`, as the importance weighted autoencoder draws them.

    Args:
      conditional: `(params, x) -> (loc [D], scale [D])` for one example. Both may be scalars, arrays of any shape, or
        pytrees of arrays; z is then like loc. A dict of pairs (loc, scale) is the same as a pair of dicts.
      num_samples: the number K.
      family: the family whose parameters `conditional` returns.
      sampler: draws the noise [K, D] in place of the family's own. It receives the caller's key unchanged, once. If
        rows depend on one another, as quasi-random points do, only `gradient="reparameterized"` is unbiased. That is
        therefore the default with a sampler.
      sharding: `NamedSharding(mesh, P(axis))` splits the samples of each example over the devices of a mesh axis. Only
        sums over the samples are then communicated (docs/devices.md). None leaves the placement to the compiler.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. All members are equal, so every power heuristic is 1/K.

    Choosing:
      weightings: any; without a learned one every sample has the weight 1/K.
      gradients: plain; DReG, refilled and path-squared, which are the same at beta = 1.
      default: DReG.
      cost: nothing.
      when: the baseline: IWAE, or a VAE at K = 1.

    Raises:
      TypeError, ValueError: for a `sharding` of another kind. When called: if it cannot split K evenly.

    Reference: Burda, Grosse and Salakhutdinov (2016).
    """
    num_samples = _checks.positive_integer("num_samples", num_samples)
    _checks.function("conditional", conditional, "(params, x)", result="(loc [D], scale [D])")
    require_sampler(sampler)
    require_family("family", family)
    members = Members(family=family, layout="one")
    placement = placement_of(sharding)

    def draw(params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw:
        q = one_distribution("conditional", conditional(params, x), family)
        noise = draw_noise(sampler or family.sampler, key, (num_samples, q.structure.size), q.structure.dtype)
        z = placement.rows(members.forward(q.parameters, noise))
        return Draw(z=z, parameters=q.parameters, context=x, structures=Structures(q.z_structure))

    return Proposal(
        draw=draw,
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        equal_members=True,
        members=members,
        independent_noise=sampler is None,
    )
