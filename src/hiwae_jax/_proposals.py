"""Proposals: tuples of pure functions that draw K samples of one example and give the densities of what they drew."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax import _checks
from hiwae_jax._families import Family, Parameters, Sampler, diagonal_gaussian, standard_normal

Params = Any  # any pytree of the user's
Example = Any  # one observation, an array or a pytree
Layout = Literal["one", "rows", "own", "table"]  # see `Proposal.layout`


class Draw(NamedTuple):
    """The K samples of one example with the arrays that made them; gradients run from `z` to the parameters.

    Attributes:
      z: the samples [K, D].
      noise: the noise [K, D] that made them.
      members: the members' parameters, laid out as `Proposal.layout` says.
      z0: the shared variable at each sample [K, D0] (equal rows where it is shared), or None.
      base: the parameters of q_0, or None.
      context: what the conditionals and the reverse model receive in place of x.
    """

    z: Float[Array, "K D"]
    noise: Float[Array, "K D"]
    members: Parameters
    z0: Float[Array, "K D0"] | None
    base: Parameters | None
    context: Any


class Proposal(NamedTuple):
    """K conditionally independent members `q_j(z_j | z_0)`; make one with `independent` or `hierarchical`.

    Attributes:
      draw: `(params, x, key) -> Draw`.
      members_at: `(params, context, z0 [K, D0]) -> members`: the members' parameters as a function of z_0.
      log_reverse: `(params, context, z0 [K, D0], z [K, D]) -> [K]`: `log r_j(z_0 | z_j)`, or None without z_0.
      check_reverse: raises if the reverse model treats the members differently, as no weighting but the uniform allows.
      family: the family of the members.
      base_family: the family of q_0 and r.
      layout: "one": all members are one distribution, `members` has no member axis. "rows": sample j comes from row j
        and every row is a density for every sample. "own": sample j comes from row j and no other row concerns it.
        "table": row j holds the K members as conditioned by sample j's own z_0.
      shared: whether one z_0 conditions all members (true where there is no z_0).
    """

    draw: Callable[[Params, Example, Any], Draw]
    members_at: Callable[[Params, Any, Any], Parameters]
    log_reverse: Callable[[Params, Any, Any, Any], Float[Array, " K"]] | None
    check_reverse: Callable[[Params, Any, Any], None]
    family: Family
    base_family: Family
    layout: Layout
    shared: bool

    @property
    def equal_members(self) -> bool:
        """Whether the members are one distribution, so that every weighting is uniform."""
        return self.layout in ("one", "own")

    def own_members(self, members: Parameters) -> tuple[Parameters, int | None]:
        """The parameters that made each sample, and their axis for `jax.vmap`."""
        return _own_members(self.layout, members)

    def own_densities(self, members: Parameters, z: Float[Array, "K D"]) -> Float[Array, " K"]:
        """`log q_j(z_j)`."""
        own, axis = self.own_members(members)
        return jax.vmap(self.family.log_prob, in_axes=(axis, 0))(own, z)

    def over_pairs(self, function: Callable[..., Any], members: Parameters, *samples: Any) -> Any:
        """`function(member i, sample j)` for every pair, at row j, column i."""
        over_members = jax.vmap(function, in_axes=(0,) + (None,) * len(samples))
        over_samples = jax.vmap(over_members, in_axes=(0 if self.layout == "table" else None,) + (0,) * len(samples))
        return over_samples(members, *samples)


def _own_members(layout: str, members: Parameters) -> tuple[Parameters, int | None]:
    if layout == "table":
        return jax.tree.map(lambda table: jnp.einsum("jj...->j...", table), members), 0
    return members, None if layout == "one" else 0


def independent(
    conditional: Callable[[Params, Example], Parameters],
    *,
    num_samples: int,
    family: Family = diagonal_gaussian,
    sampler: Sampler = standard_normal,
) -> Proposal:
    """K independent samples of one `q(z | x)`, as the importance weighted autoencoder draws them.

    Args:
      conditional: `(params, x) -> (loc [D], scale [D])` for one example.
      num_samples: K.
      family: the family that `conditional` parameterizes; a diagonal Gaussian unless another is given.
      sampler: draws the noise; receives the caller's key untouched, once.

    Returns:
      A proposal for `make_bound` and `make_log_weights`. Every weighting of equal members is 1/K.

    Reference: Burda, Grosse and Salakhutdinov (2016).
    """
    num_samples = _checks.positive_integer("num_samples", num_samples)
    gaussian = family is diagonal_gaussian

    def draw(params: Params, x: Example, key: Any) -> Draw:
        members = _checks.distribution_parameters(
            "conditional", conditional(params, x), ndim=1, expected="[D]", equal_shapes=gaussian
        )
        loc = jax.tree.leaves(members)[0]
        noise = sampler(key, (num_samples, loc.shape[-1]), loc.dtype)
        z = jax.vmap(family.forward, in_axes=(None, 0))(members, noise)
        return Draw(z=z, noise=noise, members=members, z0=None, base=None, context=None)

    def no_reverse(params: Params, context: Any, z: Any) -> None:
        pass

    return Proposal(
        draw=draw,
        members_at=lambda params, context, z0: None,
        log_reverse=None,
        check_reverse=no_reverse,
        family=family,
        base_family=family,
        layout="one",
        shared=True,
    )


def hierarchical(
    base: Callable[[Params, Any], Parameters],
    conditionals: Callable[[Params, Any, Float[Array, " D0"]], Parameters],
    reverse: Callable[[Params, Any, Float[Array, "K D"]], Parameters],
    *,
    shared: bool = True,
    num_samples: int | None = None,
    context: Callable[[Params, Example], Any] | None = None,
    family: Family = diagonal_gaussian,
    base_family: Family = diagonal_gaussian,
    sampler: Sampler = standard_normal,
) -> Proposal:
    """The hierarchical proposal: `z_0 ~ q_0(z_0 | x)`, then `z_j ~ q_j(z_j | z_0, x)`, weighed with `r(z_0 | z_j, x)`.

    The augmented log-weight `log p(x, z_j) + log r(z_0 | z_j) - log q_0(z_0) - log q_j(z_j | z_0) + log pi_j(z_j)`
    makes the bound valid without the members' marginals, whatever `r` is.

    Args:
      base: `(params, x) -> (loc [D0], scale [D0])`, the parameters of q_0.
      conditionals: `(params, x, z0 [D0]) -> (loc [K, D], scale [K, D])`, a row for each member.
      reverse: `(params, x, z [K, D]) -> (loc [K, D0], scale [K, D0])`, row j being `r_j(. | z_j)`. It may treat the
        members differently only under the uniform weighting: under any other the bound would not be valid.
      shared: one z_0 for all members. False gives each sample a z_0 of its own; IWAE(h) when the members are equal.
      num_samples: K, if all members are one distribution. `conditionals` then returns one row, [1, D].
      context: `(params, x) -> context`, evaluated once an example; the three callables receive its value in place of
        x. This is the place for an encoder.
      family: the family of the members.
      base_family: the family of q_0 and r.
      sampler: draws the noise of z_0 and of all members in one call; receives the caller's key untouched, once.

    Returns:
      A proposal for `make_bound` and `make_log_weights`.

    Reference: Huang et al. (2019), section 3.2.
    """
    if num_samples is not None:
        num_samples = _checks.positive_integer("num_samples", num_samples)
    expected = "[K, D]" if num_samples is None else "[1, D] (num_samples was given: all members are equal)"
    equal_rows = 1 if num_samples is not None else None
    distinct: tuple[Layout, Layout] = ("rows", "table")
    equal: tuple[Layout, Layout] = ("one", "own")
    layout = (distinct if num_samples is None else equal)[0 if shared else 1]

    def members_at(params: Params, h: Any, z0: Float[Array, "K D0"]) -> Parameters:
        def at(one_z0: Float[Array, " D0"]) -> Parameters:
            rows = _checks.distribution_parameters(
                "conditionals",
                conditionals(params, h, one_z0),
                ndim=2,
                expected=expected,
                equal_shapes=family is diagonal_gaussian,
                rows=equal_rows,
            )
            return rows if num_samples is None else jax.tree.map(lambda leaf: leaf[0], rows)

        return at(z0[0]) if shared else jax.vmap(at)(z0)

    def draw(params: Params, x: Example, key: Any) -> Draw:
        h = x if context is None else context(params, x)
        base_parameters = _checks.distribution_parameters(
            "base", base(params, h), ndim=1, expected="[D0]", equal_shapes=base_family is diagonal_gaussian
        )
        base_loc = jax.tree.leaves(base_parameters)[0]
        abstract = jax.eval_shape(lambda: members_at(params, h, base_loc[None]))
        shape = jax.tree.leaves(abstract)[0].shape
        K, D = num_samples or shape[-2], shape[-1]
        num_z0, D0 = (1 if shared else K), base_loc.shape[-1]
        # One call for all the noise: the key is used once, and one generator is compiled instead of two.
        noise = sampler(key, (num_z0 * D0 + K * D,), base_loc.dtype)
        noise0, noise = noise[: num_z0 * D0].reshape(num_z0, D0), noise[num_z0 * D0 :].reshape(K, D)
        z0 = jax.vmap(base_family.forward, in_axes=(None, 0))(base_parameters, noise0)
        members = members_at(params, h, z0)
        noise = noise.astype(jax.tree.leaves(members)[0].dtype)
        own, axis = _own_members(layout, members)
        z = jax.vmap(family.forward, in_axes=(axis, 0))(own, noise)
        z0 = jnp.broadcast_to(z0, (K, D0))
        return Draw(z=z, noise=noise, members=members, z0=z0, base=base_parameters, context=h)

    def reverse_rows(params: Params, h: Any, z: Float[Array, "K D"]) -> Parameters:
        return _checks.distribution_parameters(
            "reverse",
            reverse(params, h, z),
            ndim=2,
            expected="[K, D0]",
            equal_shapes=base_family is diagonal_gaussian,
            rows=z.shape[0],
        )

    def log_reverse(params: Params, h: Any, z0: Float[Array, "K D0"], z: Float[Array, "K D"]) -> Float[Array, " K"]:
        rows = reverse_rows(params, h, z)
        if jax.tree.leaves(rows)[0].shape[-1] != z0.shape[-1]:
            got = jax.tree.leaves(rows)[0].shape
            raise ValueError(f"reverse: expected {z0.shape} to match z_0 from base, got {got}")
        return jax.vmap(base_family.log_prob)(rows, z0)

    return Proposal(
        draw=draw,
        members_at=members_at,
        log_reverse=log_reverse,
        check_reverse=_make_reverse_check(reverse_rows),
        family=family,
        base_family=base_family,
        layout=layout,
        shared=shared,
    )


def _make_reverse_check(reverse_rows: Callable[..., Parameters]) -> Callable[[Params, Any, Any], None]:
    """Make a function that raises if the reverse model's row for a given z depends on the place of the row.

    The parameters of the moment may hide it (an embedding that starts at zero), so the reverse model is tried on random
    ones, at trace time and outside the traced program, once for each set of shapes. Where it cannot be evaluated so,
    because it closes over values of an outer transformation, nothing is said.
    """

    @functools.cache
    def rows_differ(structure: Any, shapes: tuple[tuple[tuple[int, ...], Any], ...]) -> bool:
        random = np.random.default_rng(0)
        arrays = []
        for shape, dtype in shapes:
            is_float = jnp.issubdtype(dtype, jnp.floating)
            arrays.append((0.5 * random.standard_normal(shape) if is_float else np.zeros(shape)).astype(dtype))
        params, h, z = structure.unflatten(arrays)
        with jax.ensure_compile_time_eval():
            rows = jax.tree.leaves(jax.jit(reverse_rows)(params, h, np.repeat(z[:1], len(z), axis=0)))
            if any(isinstance(row, jax.core.Tracer) for row in rows):
                return False
            rows = [np.asarray(row) for row in rows]
        return any(bool(np.any(np.abs(row - row[:1]) > 1e-3 * (1.0 + np.abs(row)))) for row in rows)

    def check(params: Params, h: Any, z: Any) -> None:
        leaves, structure = jax.tree.flatten((params, h, z))
        is_array = [hasattr(leaf, "dtype") and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in leaves]
        if all(is_array) and rows_differ(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)):
            raise ValueError(
                "reverse: gives different rows for the same z, but a weighting other than the uniform one is valid "
                "only if r(z_0 | z) is the same for all members; give every row the same treatment, or use "
                "weighting=hj.uniform_weighting()"
            )

    return check
