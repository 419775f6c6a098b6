"""The hierarchical proposal: members conditioned by an auxiliary variable, weighed with a reverse model of it."""

import functools

from jax.sharding import NamedSharding

from hiwae_jax import _checks
from hiwae_jax._families.family import Family, Sampler, require_family, require_sampler
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._proposals.hierarchical_densities import Given, log_reverse, members_at, reverse_rows, rows_to_compare
from hiwae_jax._proposals.hierarchical_draw import draw
from hiwae_jax._proposals.members import Members
from hiwae_jax._proposals.proposal import Proposal, ReverseDraws
from hiwae_jax._proposals.reverse_trial import make_reverse_trial
from hiwae_jax._proposals.sharding import placement_of
from hiwae_jax._types import Conditional, ConditionalOnLatent, ContextOf


@_checks.by_name
def hierarchical(
    base: Conditional,
    conditionals: ConditionalOnLatent,
    reverse: ConditionalOnLatent,
    *,
    shared: bool = True,
    num_samples: int | None = None,
    context: ContextOf | None = None,
    family: Family = diagonal_gaussian,
    base_family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
    reverse_samples: int = 0,
    sharding: NamedSharding | None = None,
) -> Proposal:
    """The hierarchical proposal: `z_0 ~ q_0(z_0 | x)`, then `z_j ~ q_j(z_j | z_0, x)`, weighed with `r(z_0 | z_j, x)`.

    The log-weight is `log p(x, z_j) + log r(z_0 | z_j) - log q_0(z_0) - log q_j(z_j | z_0) + log pi_j(z_j)`. With it
    the bound is valid whatever `r` is, and the marginal densities of the members, without z_0, are not needed.

    Args:
      base: `(params, x) -> (loc [D0], scale [D0])`, the parameters of q_0. Both may be scalars, arrays of any shape, or
        pytrees of arrays; z_0 is then like loc.
      conditionals: `(params, x, z0 [D0]) -> (loc [K, D], scale [K, D])`, a row for each member. Likewise, with K
        leading rows on every leaf; z is then like one row. What all members share may be in a `hj.Shared`, without
        rows.
      reverse: `(params, x, z [K, D]) -> (loc [K, D0], scale [K, D0])`. Row j has the parameters of `r_j(. | z_j)` and
        must depend on `z[j]` alone. Pytrees have these leading rows on every leaf. Only under the uniform weighting may
        it treat the members differently; under any other the bound would not be valid.
      shared: whether all members have one z_0. False gives each sample a z_0 of its own; with equal members that is
        IWAE(h).
      num_samples: K, if all members are one distribution. `conditionals` then returns one row, [1, D].
      context: `(params, x) -> context`, such as an encoder. It is evaluated once an example, and the three callables
        receive its value in place of x.
      family: the family of the members.
      base_family: the family of q_0 and r.
      sampler: draws the noise of z_0 and of all members in one call, in place of the families' own; see `independent`.
        Without it, two families with the same sampler draw in one call too. Two different samplers each receive a key
        of their own, folded from the caller's.
      reverse_samples: S, how many further values of z_0 are drawn from `r(. | z_j)` for each sample. The densities
        without z_0 are estimated as means over all S + 1. So the bound is tighter; as S grows it becomes that of the
        members' marginal densities, whatever r is. It costs K S evaluations of `conditionals`, which return K rows
        each, and none of the generative model. With S > 0, the weighting must not be learned, and the gradient is
        "reparameterized"; if each sample has a z_0 of its own and no weighting compares the members, it is
        "doubly_reparameterized".
      sharding: `NamedSharding(mesh, P(axis))` splits the samples of each example over the devices of a mesh axis; see
        `independent`. A power heuristic communicates the members' parameters as well.

    Returns:
      A proposal for `make_bound` and `make_log_weights`.

    Choosing:
      weightings: any; under a power heuristic r may not know the member.
      gradients: plain, DReG, refilled.
      default: DReG.
      cost: r at K points; K x K densities under a power heuristic.
      when: several modes; members that share the work.

    Raises:
      TypeError, ValueError: for a `sharding` of another kind. When called: if it cannot split K evenly, and for a
        reverse model with which no bound is valid, if a trial on random numbers shows that.

    Reference: Huang et al. (2019), section 3.2; Sobolev and Vetrov (2019), for `reverse_samples`.
    """
    _checks.function("base", base, "(params, x)", result="(loc [D0], scale [D0])")
    _checks.function("conditionals", conditionals, "(params, x, z0)", result="(loc [K, D], scale [K, D])")
    _checks.function("reverse", reverse, "(params, x, z)", result="(loc [K, D0], scale [K, D0])")
    if context is not None:
        _checks.function("context", context, "(params, x)")
    shared = _checks.boolean("shared", shared)
    require_family("family", family)
    require_family("base_family", base_family)
    require_sampler(sampler)
    if num_samples is not None:
        num_samples = _checks.positive_integer("num_samples", num_samples)
    reverse_samples = _checks.integer_from(0, "reverse_samples", reverse_samples)
    placement = placement_of(sharding)
    given = Given(
        base,
        conditionals,
        reverse,
        shared,
        num_samples,
        context,
        family,
        base_family,
        sampler,
        placement,
        reverse_samples,
    )
    return _proposal_of(given)


def _proposal_of(given: Given) -> Proposal:
    members = Members(
        family=given.family,
        layout=given.layout,
        base_family=given.base_family,
        at=lambda params, h, z0: members_at(given, params, h, z0).parameters,
        placement=given.placement,
    )
    rows = lambda params, h, z: reverse_rows(given, params, h, z).parameters
    return Proposal(
        draw=functools.partial(draw, given, members),
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        log_reverse=functools.partial(log_reverse, given),
        reverse_traits=make_reverse_trial(functools.partial(rows_to_compare, given)),
        equal_members=members.equal,
        members=members,
        refills=not members.equal,
        independent_noise=given.sampler is None,
        reverse=ReverseDraws(given.reverse_samples, rows, lambda S: _proposal_of(given._replace(reverse_samples=S))),
    )
