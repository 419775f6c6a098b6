"""Matrix products for pairs of members and samples, against the same pair by pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from hiwae_jax import _cross_paths
from hiwae_jax._pairs import Own, gaussian_pairs, one_by_one

K, D, PLACE = 5, 3, 2
PLAIN = one_by_one(hj.diagonal_gaussian)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def members(seed=0, *, shift=0.0, scale=1.0):
    """K members some scales from one another, all of them far from the origin."""
    return shift + scale * normal(seed, K, D), scale * jnp.exp(0.3 * normal(seed + 1, K, D))


def close(ours, theirs, rtol=1e-5):
    """Equal relative to the largest number of each leaf."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.max(jnp.abs(b))))


@pytest.mark.parametrize("with_own", [False, True])
@pytest.mark.parametrize("moving", [(0,), (1,), (0, 1)])
def test_densities_and_their_derivatives(with_own, moving):
    parameters, z = members(shift=10.0), 10.0 + normal(7, D)
    own_of = lambda parameters: Own(PLACE, jax.tree.map(lambda leaf: leaf[PLACE], parameters)) if with_own else None

    def of(pairs):
        return lambda parameters, z: pairs.log_prob(parameters, z, own_of(parameters))

    arguments, directions = (parameters, z), (members(9), normal(8, D))
    np.testing.assert_array_equal(of(gaussian_pairs)(*arguments), of(PLAIN)(*arguments))
    for function in (jax.jacrev, jax.jacfwd, lambda f, argnums: jax.jacfwd(jax.jacrev(f, argnums), argnums)):
        close(*(function(of(pairs), argnums=moving)(*arguments) for pairs in (gaussian_pairs, PLAIN)))
    only = [
        argument if n in moving else jax.tree.map(jnp.zeros_like, argument) for n, argument in enumerate(directions)
    ]
    close(*(jax.jvp(of(pairs), arguments, tuple(only)) for pairs in (gaussian_pairs, PLAIN)))


def test_moves_slopes_and_their_products():
    parameters, tangents, z, weights = members(shift=10.0), members(9), 10.0 + normal(7, D), normal(6, 2, K)
    for pairs in (gaussian_pairs, PLAIN):
        moves = pairs.move(jnp.eye(K), parameters, tangents, z)
        slopes = pairs.slope(jnp.eye(K), parameters, z)
        close(pairs.move(weights, parameters, tangents, z), weights @ moves)
        close(pairs.slope(weights, parameters, z), weights @ slopes)
        close(pairs.work(weights[0], parameters, tangents, z), weights[0] @ jnp.sum(moves * slopes, axis=1))
        noise = jax.vmap(hj.diagonal_gaussian.inverse, in_axes=(0, None))(parameters, z)
        close(moves, tangents[0] + tangents[1] * noise)
        close(slopes, -noise / parameters[1])


def test_the_own_member_is_as_accurate_as_alone_where_members_are_far_apart():
    """Distances of 1e6 scales: their squares, multiplied out, have no digit left."""
    loc, scale = normal(1, K, D), jnp.full((K, D), 1e-6)
    noise = normal(2, D)
    z = loc[PLACE] + scale[PLACE] * noise

    def total(pairs, own):
        densities = lambda parameters: pairs.log_prob(
            parameters, z, Own(PLACE, jax.tree.map(lambda leaf: leaf[PLACE], parameters)) if own else None
        )
        return jax.grad(lambda parameters: densities(parameters)[PLACE])((loc, scale))

    exact = total(PLAIN, own=True)
    close(total(gaussian_pairs, own=True), exact)
    # A control.
    multiplied_out = total(gaussian_pairs, own=False)[1]
    assert float(jnp.max(jnp.abs(multiplied_out - exact[1]))) > 0.5 * float(jnp.max(jnp.abs(exact[1])))


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_the_estimator_is_the_same_by_products_and_by_sums(alpha, chunk_size, monkeypatch):
    proposal = hj.hierarchical(
        lambda params, x: (params["base"] + x, jnp.ones(D)),
        lambda params, x, z0: (params["loc"] + jnp.tanh(z0 + x)[None, :], jnp.exp(params["log_scale"])),
        lambda params, x, z: (params["reverse"][None, :] * z, jnp.ones_like(z)),
    )
    bound = hj.make_bound(
        lambda params, x, z: -0.5 * jnp.sum((x - params["model"] * z) ** 2 + z**2),
        proposal,
        weighting=hj.power_heuristic(alpha),
        chunk_size=chunk_size,
    )
    vectors = dict(zip(("base", "reverse", "model"), normal(3, 3, D), strict=True))
    params = vectors | {"loc": normal(4, K, D), "log_scale": 0.3 * normal(5, K, D)}
    arguments = params, normal(6, D), jax.random.key(7)
    found = []
    for least in (1, 100):
        monkeypatch.setattr(_cross_paths, "PRODUCTS_FROM", least)
        # A new function for each, or the second would be the first one, compiled.
        found.append(jax.jit(jax.value_and_grad(lambda *arguments: bound(*arguments)))(*arguments))
    close(*found, rtol=1e-4)
    assert any(np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(*map(jax.tree.leaves, found), strict=True))
