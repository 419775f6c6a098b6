"""Matrix products for pairs of members and samples, against the same pair by pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from hiwae_jax._families.gaussian_pairs import gaussian_pairs
from hiwae_jax._families.pairs import Own, PathWeights, one_by_one
from hiwae_jax._gradients import cross_paths
from tests.models import quick_jit

K, D, PLACE = 5, 3, 2
PLAIN = one_by_one(hj.diagonal_gaussian)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def members(seed=0, *, shift=0.0, scale=1.0):
    """K members some scales from one another, all of them far from the origin."""
    return shift + scale * normal(seed, K, D), scale * jnp.exp(0.3 * normal(seed + 1, K, D))


def close(ours, theirs, rtol=1e-5):
    """Equal relative to the largest number of each leaf."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.max(jnp.abs(b))))


@pytest.mark.parametrize("with_own", [False, True])
def test_densities_and_their_derivatives(with_own):
    """In the members, in the point, and in both, of which second derivatives have all blocks."""
    parameters, z = members(shift=10.0), 10.0 + normal(7, D)
    own_of = lambda parameters: Own(PLACE, jax.tree.map(lambda leaf: leaf[PLACE], parameters)) if with_own else None

    def of(pairs):
        return lambda parameters, z: pairs.log_prob(parameters, z, own_of(parameters))

    arguments, directions = (parameters, z), (members(9), normal(8, D))
    np.testing.assert_array_equal(of(gaussian_pairs)(*arguments), of(PLAIN)(*arguments))

    def derivatives(pairs, *arguments):
        found = [jax.jacfwd(jax.jacrev(of(pairs), (0, 1)), (0, 1))(*arguments)]
        for moving in ((0,), (1,), (0, 1)):
            found += [function(of(pairs), argnums=moving)(*arguments) for function in (jax.jacrev, jax.jacfwd)]
            only = [
                argument if n in moving else jax.tree.map(jnp.zeros_like, argument)
                for n, argument in enumerate(directions)
            ]
            found.append(jax.jvp(of(pairs), arguments, tuple(only)))
        return found

    # One program: compiling many is most of the time.
    both = quick_jit(lambda *arguments: [derivatives(pairs, *arguments) for pairs in (gaussian_pairs, PLAIN)])
    close(*both(*arguments))


def test_paths_and_their_scores():
    parameters, tangents, z = members(shift=10.0), members(9), 10.0 + normal(7, D)
    own, own_tangent = (jax.tree.map(lambda leaf: leaf[PLACE], tree) for tree in (parameters, tangents))
    weights, drawn_slope = PathWeights(*normal(6, 6, K)), normal(5, D)
    noise = jax.vmap(hj.diagonal_gaussian.inverse, in_axes=(0, None))(parameters, z)
    moves, slopes = tangents[0] + tangents[1] * noise, -noise / parameters[1]
    correction = weights.from_member[:, None] * slopes + jnp.outer(weights.from_own, drawn_slope)
    correction = correction + jnp.outer(weights.from_mean, weights.partition @ slopes)
    correction = correction.at[PLACE].add(weights.along_own @ slopes)
    expected = weights.direction @ moves, jnp.sum(correction * moves)
    for pairs in (gaussian_pairs, PLAIN):
        paths = lambda weights, slope, own, pairs=pairs: pairs.paths(
            weights, parameters, tangents, z, slope, Own(PLACE, own), own_tangent
        )
        close(quick_jit(paths)(weights, drawn_slope, own), expected)


def test_the_own_member_is_as_accurate_as_alone_where_members_are_far_apart():
    """Distances of 1e6 scales: their squares, multiplied out, have no digit left."""
    loc, scale = normal(1, K, D), jnp.full((K, D), 1e-6)
    noise = normal(2, D)
    z = loc[PLACE] + scale[PLACE] * noise

    def total(pairs, own):
        densities = lambda parameters: pairs.log_prob(
            parameters, z, Own(PLACE, jax.tree.map(lambda leaf: leaf[PLACE], parameters)) if own else None
        )
        return quick_jit(jax.grad(lambda parameters: densities(parameters)[PLACE]))((loc, scale))

    exact = total(PLAIN, own=True)
    close(total(gaussian_pairs, own=True), exact)
    # A control.
    multiplied_out = total(gaussian_pairs, own=False)[1]
    assert float(jnp.max(jnp.abs(multiplied_out - exact[1]))) > 0.5 * float(jnp.max(jnp.abs(exact[1])))


@pytest.mark.parametrize(("alpha", "chunk_size"), [(0.5, None), (1.0, None), (3.0, 2)])
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

    @quick_jit
    def both_ways(*arguments):
        found = []
        for least in (1, 100):
            monkeypatch.setattr(cross_paths, "PRODUCTS_FROM", least)
            # A new function for each, or the second would be the first one, traced.
            found.append(jax.value_and_grad(lambda *arguments: bound(*arguments))(*arguments))
        return found

    found = both_ways(*arguments)
    close(*found, rtol=1e-4)
    assert any(np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(*map(jax.tree.leaves, found), strict=True))


def test_rounding_where_members_share_a_cluster_far_from_the_others():
    """Two clusters, 100 standard deviations from their mean: derivatives in a scale have three digits, others five."""
    distance, eps = 100.0, float(np.finfo(np.float32).eps)
    loc = distance * jnp.array([-1.0, -1.0, 1.0, 1.0])[:, None] + 0.5 * normal(1, 4, D)
    scale, z = jnp.full((4, D), 0.9), loc[0] + normal(2, D)
    slopes = []
    for pairs in (gaussian_pairs, PLAIN):
        of_neighbour = lambda parameters, pairs=pairs: pairs.log_prob(parameters, z, None)[1]
        slopes.append(quick_jit(jax.grad(of_neighbour))((loc, scale)))
    for ours, theirs, error in zip(*slopes, (distance, distance**2), strict=True):
        assert float(jnp.max(jnp.abs(ours - theirs))) < 4.0 * eps * error
