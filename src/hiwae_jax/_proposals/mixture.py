"""The proposal of some of M members: K samples of a mixture, each weighed with the whole of it."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from hiwae_jax import _checks
from hiwae_jax._families.distribution import check_distribution, distributions, first_row
from hiwae_jax._families.family import Family, Sampler, draw_noise, require_family, require_sampler
from hiwae_jax._families.gaussian import diagonal_gaussian
from hiwae_jax._families.shared import Shared, is_shared, num_rows, unwrapped
from hiwae_jax._proposals.draw import Draw, Structures
from hiwae_jax._proposals.members import Members
from hiwae_jax._proposals.picks import SCHEMES, Picked, Scheme
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._random_streams import Stream, stream_key
from hiwae_jax._types import Conditional, Example, Key, Parameters, Params, Unchecked

FIXED_WEIGHTING = "a mixture weighs each sample with the density of all members present, whichever of them drew it"


@_checks.by_name
def mixture(
    conditional: Conditional,
    *,
    num_samples: int,
    draw: Literal["without_replacement", "stratified", "with_replacement"] = "without_replacement",
    present: Callable[[Params, Example], Bool[Array, " M"]] | None = None,
    family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
) -> Proposal:
    """K samples of the mixture `q(z | x) = (1/m) sum_i q_i(z | x)` of M distinct members, of which m are present.

    Sample j comes from a member that is picked at random. Its log-weight is `log p(x, z_j) - log K - log q(z_j)`, so
    the model is evaluated K times, however large M is. For K = M without replacement the bound is that of
    `power_heuristic(1)`.

    Args:
      conditional: `(params, x) -> (loc [M, D], scale [M, D])` for one example, a row for each member.
      num_samples: the number K. It may be smaller or larger than M.
      draw: how members are picked. Whatever it is, each member present is picked K / m times on average, so the weights
        are the same. "without_replacement": K different members; where K > m, a member is picked again only when all
        have been picked equally often. "stratified": the members present, in their order, are cut into K parts of equal
        length m / K, and a member is picked from each part; one that lies in two parts may be picked for both.
        "with_replacement": K independent picks.
      present: `(params, x) -> bool [M]`, the members that take part for this example, such as the encoders of the
        modalities that it has. Absent members are never picked, are no part of q, and receive no gradient. Their rows
        may have any value, NaN too. None means that all are present. At least one must be: without any the bound is
        `-inf`, with a gradient of zero.
      family: the family whose parameters `conditional` returns, with M leading rows.
      sampler: draws the noise [K, D] in place of the family's own. The picks have a key of their own, folded from the
        caller's key.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. A weighting must not be given. "reparameterized",
      "doubly_reparameterized" (the default) and "score_function" are unbiased for every `draw`. With replacement the
      samples are independent and each has density q, and all that is valid for `independent` is valid.

    Choosing:
      weightings: none: each sample is weighed with the mixture of all M members.
      gradients: plain, DReG; with replacement also refilled, and path-squared at beta = 1.
      default: DReG.
      cost: K x M densities.
      when: more members than evaluations of the model; experts of modalities, some of them absent; ensembles.

    Raises:
      ValueError: for an unknown `draw`. When called: unless the rows are [M, D], and `present` gives a boolean [M].

    Reference: Veach and Guibas (1995), the balance heuristic; Morningstar et al. (2021), "Automatic differentiation
    variational inference with mixtures", for a sample of each member; Kviman et al. (2022), "Multiple importance
    sampling ELBO and deep ensembles of variational approximations".

    >>> def conditional(params, x):  # five members side by side
    ...     return params[:, None] + x[None], jnp.ones((5, 1))
    >>> proposal = mixture(conditional, num_samples=2, present=lambda params, x: jnp.arange(5) != 3)
    >>> draw = proposal.draw(jnp.arange(5.0), jnp.zeros(1), jax.random.key(0))
    >>> draw.z.shape, bool(jnp.all(draw.parameters.picks != 3))
    ((2, 1), True)
    """
    _checks.function("conditional", conditional, "(params, x)", result="(loc [M, D], scale [M, D])")
    num_samples = _checks.positive_integer("num_samples", num_samples)
    if not isinstance(draw, str) or draw not in SCHEMES:
        raise ValueError(f"draw: expected one of {', '.join(map(repr, SCHEMES))}, got {draw!r:.80}")
    if present is not None:
        _checks.function("present", present, "(params, x)", result="bool [M]")
    require_family("family", family)
    require_sampler(sampler)
    given = _Given(conditional, num_samples, SCHEMES[draw], present, family, sampler or family.sampler)
    members = Members(family=family, layout="picked", slots=given.scheme.slots)
    return Proposal(
        draw=functools.partial(_draw, given, members),
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        members=members,
        independent_noise=sampler is None,
        fixed_weighting=FIXED_WEIGHTING,
    )


class _Given(NamedTuple):
    """The arguments of `mixture`."""

    conditional: Conditional
    num_samples: int
    scheme: Scheme
    present: Callable[[Params, Example], Bool[Array, " M"]] | None
    family: Family
    sampler: Sampler


def _draw(given: _Given, members: Members, params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw:
    """Pick K members, and draw a sample of each."""
    found = distributions("conditional", given.conditional(params, x), given.family, expected="[M, D]")
    rows, structure = found
    first = found._replace(parameters=unwrapped(first_row(rows)))
    check_distribution("conditional", given.family, first)
    present, number = None, num_rows(rows)
    if given.present is not None:
        present = _checked_mask(given.present(params, x), number=number)
        rows = _without_absent(rows, present)
    taking_part = jnp.ones(number, bool) if present is None else present
    picks = given.scheme.pick(stream_key(key, Stream.MEMBER_CHOICE), taking_part, given.num_samples)
    parameters = Picked(rows, picks, present)
    noise = draw_noise(given.sampler, key, (given.num_samples, structure.size), structure.dtype)
    z = members.forward(parameters, noise)
    return Draw(z=z, parameters=parameters, context=x, structures=Structures(found.z_structure))


def _checked_mask(present: Unchecked, *, number: int) -> Bool[Array, " M"]:
    """The mask of the members present, or an error."""
    if not _checks.is_array(present) or jnp.shape(present) != (number,):
        got = jnp.shape(present) if _checks.is_array(present) else type(present).__name__
        raise ValueError(f"present: expected a boolean for each of the {number} members, shape ({number},), got {got}")
    if jnp.result_type(present) != jnp.bool_:
        raise TypeError(f"present: expected booleans, got dtype {jnp.result_type(present)}; compare, as in counts > 0")
    mask: jax.Array = jnp.asarray(present)
    return mask


def _without_absent(rows: Parameters, present: Bool[Array, " M"]) -> Parameters:
    """The rows with those of absent members replaced: by the first present one, without gradient; by ones if all are.

    Densities are then finite for all rows, and none of an absent member's numbers is looked at.
    """

    def replaced(leaf: Array | Shared) -> Array | Shared:
        if isinstance(leaf, Shared):
            return leaf
        is_present = present.reshape(-1, *(1,) * (leaf.ndim - 1))
        in_place = jnp.where(jnp.any(present), jax.lax.stop_gradient(leaf[jnp.argmax(present)]), 1.0)
        return jnp.where(is_present, leaf, in_place[None])

    return jax.tree.map(replaced, rows, is_leaf=is_shared)
