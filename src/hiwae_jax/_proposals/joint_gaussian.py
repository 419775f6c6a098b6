"""The proposal of K correlated Gaussian samples, with exact marginals and an exact joint density."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families.family import Sampler, draw_noise, require_sampler, standard_normal
from hiwae_jax._families.gaussian import diagonal_gaussian, forward_substitution
from hiwae_jax._families.structure import Structure, same_structure
from hiwae_jax._proposals.draw import Draw, Structures
from hiwae_jax._proposals.members import Members
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._types import Conditional, Example, Key, Latent, Parameters, Params, Scalar, Unchecked


@_checks.by_name
def joint_gaussian(conditional: Conditional, *, sampler: Sampler = standard_normal) -> Proposal:
    """K jointly Gaussian samples: each latent dimension has a K-dimensional Gaussian of its own.

    In dimension d, `z[:, d] ~ N(loc[:, d], L_d L_d^T)`. Sample j alone is `N(loc[j], scale[j]^2)`, where `scale[j, d]`
    is the norm of row j of `L_d`. The weights use these marginals, whatever the correlation:
    `log w_j = log p(x, z_j) - log q_j(z_j) + log pi_j(z_j)`.

    Args:
      conditional: `(params, x) -> (loc [K, D], scale_tril [D, K, K])`. The lower triangles of `scale_tril` are used,
        and their diagonals must be positive. For a z that is no vector, both are pytrees of one structure, with leaves
        `loc [K, ...]` and `scale_tril [..., K, K]`.
      sampler: draws the noise [K, D]. It receives the caller's key unchanged, once.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. Every weighting is valid. The default gradient is
      "reparameterized". "doubly_reparameterized" is unbiased where log_joint has no jumps, because it includes the
      score of the joint density, but it may be noisier.

    Choosing:
      weightings: any.
      gradients: plain, DReG.
      default: plain.
      cost: D Cholesky factors K x K from the network.
      when: samples that avoid one another in one Gaussian.

    Reference: Klys, Bettencourt and Duvenaud (2018), "Joint importance sampling for variational inference"; Huang et
    al. (2019), section 3.1.

    >>> def conditional(params, x):  # two samples on opposite sides
    ...     return jnp.zeros((2, 3)), jnp.tile(jnp.array([[1.0, 0.0], [-0.8, 0.6]]), (3, 1, 1))
    >>> joint_gaussian(conditional).draw(None, None, jax.random.key(0)).z.shape
    (2, 3)
    """
    _checks.function("conditional", conditional, "(params, x)", result="(loc [K, D], scale_tril [D, K, K])")
    require_sampler(sampler)
    members = Members(family=diagonal_gaussian, layout="rows", joint_log_prob=_joint_log_prob)

    def draw(params: Params, x: Example, key: Key, *, refill: bool = False) -> Draw:
        loc, scale_tril, structures = _checked(conditional(params, x))
        noise = draw_noise(sampler, key, loc.shape, loc.dtype)
        z = loc + jnp.einsum("djk,kd->jd", scale_tril, noise)
        scale = _norms(scale_tril).T
        return Draw(z=z, parameters=(loc, scale), context=x, joint=(loc, scale_tril), structures=structures)

    return Proposal(
        draw=draw,
        own_densities=members.own_densities,
        pair_densities=members.pair_densities,
        members=members,
    )


def _checked(parameters: Unchecked) -> tuple[jax.Array, jax.Array, Structures]:
    """`loc [K, D]` and `scale_tril [D, K, K]`, and the structure of z if it is no vector."""
    expected = "loc [K, D] and scale_tril [D, K, K]"
    arrays = _checks.float_arrays("conditional", parameters, expected=expected)
    is_pair = isinstance(arrays, (tuple, list)) and len(arrays) == 2
    leaves = jax.tree.leaves(arrays)
    if not is_pair or not same_structure(*arrays) or not leaves or not _shapes_fit(*arrays):
        got = ", ".join(str(jnp.shape(leaf)) for leaf in leaves) or "nothing"
        raise ValueError(
            f"conditional: expected {expected} for one example, got {got}; nothing is broadcast (for a z that is no "
            "vector, the leaves of loc are [K, ...], and those of scale_tril [..., K, K])"
        )
    loc, scale_tril = arrays
    structure, K = Structure.of(loc, leading=1), len(leaves[0])
    if structure.is_vector:
        return loc, jnp.tril(scale_tril), Structures()
    rows = [leaf.reshape(-1, K, K).astype(structure.dtype) for leaf in jax.tree.leaves(scale_tril)]
    return structure.flat(loc), jnp.tril(jnp.concatenate(rows)), Structures(structure)


def _shapes_fit(loc: Latent, scale_tril: Latent) -> bool:
    """Whether the leaves are `[K, ...]` and `[..., K, K]`."""
    first = jax.tree.leaves(loc)[0].shape
    pairs = zip(jax.tree.leaves(loc), jax.tree.leaves(scale_tril), strict=True)
    return len(first) > 0 and all(
        leaf.shape[:1] == first[:1] and tril.shape == (*leaf.shape[1:], *first[:1] * 2) for leaf, tril in pairs
    )


def _norms(rows: Float[Array, "*batch N"]) -> Float[Array, "*batch"]:
    """The norm of every row. It is right even where the squares of the entries are zero or infinite in float32."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(rows), axis=-1, keepdims=True))
    return largest[..., 0] * jnp.sqrt(jnp.sum((rows * (1.0 / largest)) ** 2, axis=-1))


def _joint_log_prob(joint: Parameters, z: Float[Array, "K D"]) -> Scalar:
    loc, scale_tril = joint

    def one_dimension(residual: Float[Array, " K"], tril: Float[Array, "K K"]) -> Scalar:
        noise = forward_substitution(tril, residual)
        return -0.5 * jnp.sum(noise**2) - jnp.sum(jnp.log(jnp.diagonal(tril)))

    return jnp.sum(jax.vmap(one_dimension)((z - loc).T, scale_tril)) - 0.5 * z.size * math.log(2.0 * math.pi)
