"""Samples along a chain of maps: `E[sum_j w_j] = p(x)`, and densities that integrate to one."""

import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import models
from tests.proposals.scalar_weights import X, mean_total_weights, params, powers


def sinh_arcsinh(bend):
    """A user's own map: `y = sinh(arcsinh(z) + bend)`."""

    def shifted(z, by):
        u = jnp.arcsinh(z) + by
        return jnp.sinh(u), jnp.sum(jnp.log(jnp.cosh(u)) - 0.5 * jnp.log1p(z**2))

    return hj.Bijection(lambda params, h, z: shifted(z, bend), lambda params, h, y: shifted(y, -bend))


def flow_base(params, h):
    dimensions = h["dimensions"]
    return jnp.full(dimensions, 0.1) + params["loc"][0], jnp.full(dimensions, 1.1)


AFFINE = hj.affine_map(lambda params, h: (params["loc"][1:] + 0.2 * h["x"], -jnp.exp(params["log_scale"][:1] + 0.1)))
FLOWS = {
    "no map": (1, [], 60),
    "affine, own": (1, [AFFINE, sinh_arcsinh(0.4)], 120),
    "own, affine": (1, [sinh_arcsinh(-0.3), AFFINE], 120),
    "coupling": (
        2,
        [
            # A negative scale turns the second axis round; its volume is that of the positive one.
            hj.coupling_map(lambda params, h, z: (jnp.sin(z[::-1]), -jnp.exp(0.2 * z[::-1] / 2.0)), kept=[True, False]),
            hj.coupling_map(lambda params, h, z: (params["loc"] * z[1], jnp.full(2, 1.2)), kept=[False, True]),
        ],
        60,
    ),
}


def flow(name):
    dimensions, maps, _ = FLOWS[name]
    return hj.flow_chain(
        flow_base, maps, context=lambda params, x: {"x": x, "dimensions": dimensions}, sampler=models.leading
    )


@pytest.mark.parametrize("name", FLOWS)
def test_flow_chain_weights_integrate_to_the_evidence(name):
    dimensions, maps, nodes = FLOWS[name]
    weightings = [*powers(0.0, 1.0, 3.0), models.learned(len(maps) + 1)]
    ratios = mean_total_weights(flow(name), weightings, models.quadrature(dimensions, nodes))
    # The scalar model in two dimensions is two independent ones.
    accuracy = 1e-7 if dimensions == 1 else 1e-4
    np.testing.assert_allclose(ratios / models.scalar_evidence(params()) ** (dimensions - 1), 1.0, rtol=accuracy)


@pytest.mark.parametrize("name", ["own, affine", "coupling"])
def test_every_density_of_a_flow_chain_integrates_to_one_and_its_own_samples_have_it(name):
    dimensions, maps, _ = FLOWS[name]
    proposal = flow(name)
    axis = np.linspace(-14.0, 14.0, 141 if dimensions > 1 else 2_801)
    grid, _ = models.product_rule(axis, np.ones_like(axis), dimensions)

    @models.quick_jit
    def densities(noise, grid):
        draw = proposal.draw(params(), jnp.asarray(X), noise)
        own, pairs = (f(draw.parameters, draw.z) for f in (proposal.own_densities, proposal.pair_densities))
        return own, pairs, jnp.exp(proposal.pair_densities(draw.parameters, grid))

    own, pairs, on_grid = densities(jnp.asarray([0.7, -1.2][:dimensions]), grid)
    np.testing.assert_allclose(own, np.diagonal(pairs), atol=1e-12)
    assert on_grid.shape == (len(grid), len(maps) + 1)
    np.testing.assert_allclose(np.sum(on_grid, axis=0) * (axis[1] - axis[0]) ** dimensions, 1.0, atol=1e-6)
