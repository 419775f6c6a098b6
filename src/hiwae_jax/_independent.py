"""Proposals whose samples are drawn without regard to one another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families import (
    Family,
    Parameters,
    Sampler,
    check_distribution,
    check_family,
    check_sampler,
    diagonal_gaussian,
    draw_noise,
)
from hiwae_jax._proposal import Draw, Example, Members, Params, Proposal
from hiwae_jax._sharding import placement


@_checks.by_name
def independent(
    conditional: Callable[[Params, Example], Parameters],
    *,
    num_samples: int,
    family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
    sharding: NamedSharding | None = None,
) -> Proposal:
    """K independent samples of one `q(z | x)`, as the importance weighted autoencoder draws them.

    Args:
      conditional: `(params, x) -> (loc [D], scale [D])` for one example.
      num_samples: K.
      family: the family that `conditional` parameterizes; a diagonal Gaussian unless another is given.
      sampler: draws the noise [K, D] in place of the family's own; receives the caller's key untouched, once. Rows that
        depend on one another, such as quasi-random points, leave only `gradient="reparameterized"` unbiased (where
        log_joint has no jumps in z). It is therefore the default with a sampler.
      sharding: `NamedSharding(mesh, P(axis))`, to split the samples of each example over a mesh axis of devices; only
        sums over them are then communicated (docs/devices.md). None to say nothing.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. Every power heuristic of equal members is 1/K.

    Raises:
      TypeError, ValueError: for a `sharding` of another kind, and when called, if it cannot split K evenly.

    Reference: Burda, Grosse and Salakhutdinov (2016).
    """
    num_samples = _checks.positive_integer("num_samples", num_samples)
    _checks.function("conditional", conditional, "(params, x)", result="(loc [D], scale [D])")
    check_sampler(sampler)
    check_family("family", family)
    members = Members(family=family, layout="one")
    place = placement(sharding)

    def draw(params: Params, x: Example, key: Any, *, refill: bool = False) -> Draw:
        parameters = one_member("conditional", conditional, params, x, family)
        loc = jax.tree.leaves(parameters)[0]
        noise = draw_noise(sampler or family.sampler, key, (num_samples, loc.shape[-1]), loc.dtype)
        return Draw(z=place.rows(members.forward(parameters, noise)), members=parameters, context=x)

    return Proposal(
        draw=draw,
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        equal_members=True,
        members=members,
        independent_noise=sampler is None,
    )


@_checks.by_name
def antithetic(
    conditional: Callable[[Params, Example], Parameters],
    *,
    num_samples: int,
    family: Family = diagonal_gaussian,
    sampler: Sampler | None = None,
) -> Proposal:
    """K/2 pairs of mirrored samples of one `q(z | x)`: the noise of the second half is minus that of the first.

    Each sample alone has density q, so the weights are those of `independent`; within a pair they tend to be negatively
    correlated, which lowers the variance of their sum where log w is close to odd around the centre of q.

    Args:
      conditional: `(params, x) -> (loc [D], scale [D])` for one example.
      num_samples: K, even.
      family: the family that `conditional` parameterizes.
      sampler: draws the noise [K/2, D] in place of the family's own; its distribution must be symmetric about zero.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. A pair has no joint density on R^2D, so only
      `gradient="reparameterized"` is valid.

    Raises:
      ValueError: if `num_samples` is odd.

    Reference: Hammersley and Morton (1956); Wu, Goodman and Ermon (2019), "Differentiable antithetic sampling".

    >>> proposal = antithetic(lambda params, x: (x, jnp.ones_like(x)), num_samples=4)
    >>> z = proposal.draw(None, jnp.zeros(2), jax.random.key(0)).z
    >>> bool(jnp.all(z[:2] == -z[2:]))
    True
    """
    num_samples = _checks.positive_integer("num_samples", num_samples)
    _checks.function("conditional", conditional, "(params, x)", result="(loc [D], scale [D])")
    check_sampler(sampler)
    if num_samples % 2:
        raise ValueError(f"num_samples: antithetic samples come in pairs; expected an even number, got {num_samples}")
    check_family("family", family)
    members = Members(family=family, layout="one")

    def draw(params: Params, x: Example, key: Any, *, refill: bool = False) -> Draw:
        parameters = one_member("conditional", conditional, params, x, family)
        loc = jax.tree.leaves(parameters)[0]
        noise = draw_noise(sampler or family.sampler, key, (num_samples // 2, loc.shape[-1]), loc.dtype)
        z = members.forward(parameters, jnp.concatenate([noise, -noise]))
        return Draw(z=z, members=parameters, context=x)

    return Proposal(
        draw=draw,
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        equal_members=True,
        why_plain="antithetic samples are functions of one another, and have no joint density",
    )


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
    """A defensive mixture, stratified: most samples from `q(z | x)`, the last few from a broad distribution.

    Under `power_heuristic(1)`, `log w_j = log p(x, z_j) - log sum_i q_i(z_j)`: the weights of a mixture with
    proportions `num_broad / K`, which are bounded wherever `p(x, z)` over the broad density is. With the prior as the
    broad distribution `sum_j w_j <= K / num_broad * max_z p(x | z)`, however narrow q becomes.

    Args:
      conditional: `(params, x) -> (loc [D], scale [D])` for one example.
      broad: likewise, of the same family: the prior, or q with a larger scale.
      num_samples: K, both kinds together.
      num_broad: how many of them are from `broad`; at least 1 and fewer than K.
      family: the family of both; `student_t(df)` has the heavy tails that Domke and Sheldon recommend.
      sampler: draws the noise of all samples as one flat array in place of the family's own; as for `independent`.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. Every weighting and every gradient is valid.

    Raises:
      ValueError: unless `num_broad` is smaller than `num_samples`.

    Reference: Hesterberg (1995), "Weighted average importance sampling and defensive mixture distributions"; Domke and
    Sheldon (2018), "Importance weighting and variational inference".
    """
    num_samples = _checks.positive_integer("num_samples", num_samples)
    _checks.function("conditional", conditional, "(params, x)", result="(loc [D], scale [D])")
    check_sampler(sampler)
    num_broad = _checks.positive_integer("num_broad", num_broad)
    if num_broad >= num_samples:
        raise ValueError(f"num_broad: expected fewer than num_samples = {num_samples}, got {num_broad}")
    _checks.function("broad", broad, "(params, x)", result="(loc [D], scale [D])")
    check_family("family", family)
    members = Members(family=family, layout="rows")

    def draw(params: Params, x: Example, key: Any, *, refill: bool = False) -> Draw:
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
        return Draw(z=z, members=parameters, context=x, refill=again)

    return Proposal(
        draw=draw,
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        members=members,
        refills=True,
        independent_noise=sampler is None,
    )


def one_member(
    name: str, conditional: Any, params: Params, x: Example, family: Family, *, expected: str = "[D]"
) -> Parameters:
    """The checked parameters of one distribution."""
    parameters = _checks.distribution_parameters(
        name, conditional(params, x), ndim=1, expected=expected, equal_shapes=family is diagonal_gaussian
    )
    check_distribution(name, family, parameters)
    return parameters
