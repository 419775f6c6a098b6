"""bfloat16, float32, float64 and integers: what is computed in which precision, and what mixes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import images
from tests.extremes import finite
from tests.small_images import KEY, X, make, params


def test_narrow_networks_give_float32_bounds():
    narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params())

    def log_joint(p, x, z):
        return images.log_joint(p, x.astype(jnp.bfloat16), z.astype(jnp.bfloat16))

    def in_bfloat16(function):
        return lambda p, *rest: function(p, *(a.astype(jnp.bfloat16) for a in rest))

    proposal = hj.hierarchical(
        images.base,
        in_bfloat16(images.conditionals),
        in_bfloat16(images.reverse),
        context=in_bfloat16(images.encode),
    )
    for gradient in ("doubly_reparameterized", "refilled"):
        bound = hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(1.0), gradient=gradient)
        value, gradients = jax.jit(jax.value_and_grad(bound))(narrow, X, KEY)
        assert value.dtype == jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.bfloat16)}
        assert finite(gradients)
        # From the same noise: what is left are the three digits of the networks.
        np.testing.assert_allclose(value, jax.jit(make("shared", gradient))(params(), X, KEY), rtol=0.02)


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a.astype(jnp.float64), params())
        value, gradients = jax.jit(jax.value_and_grad(make("shared", "doubly_reparameterized")))(
            wide, X.astype(jnp.float64), KEY
        )
        assert {leaf.dtype for leaf in jax.tree.leaves((value, gradients))} == {jnp.dtype(jnp.float64)}
        # A step that single precision cannot tell from none.
        step = jax.tree.map(lambda a: 1e-8 * jnp.sign(a), wide)
        both = jax.jit(jax.value_and_grad(make("shared", "reparameterized")))
        plain = both(wide, X.astype(jnp.float64), KEY)[1]
        moved = both(jax.tree.map(jnp.add, wide, step), X.astype(jnp.float64), KEY)[0]
        expected = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, plain, step)))
        np.testing.assert_allclose(moved - value, expected, rtol=1e-4)


ONE = {"a": jnp.float32(0.5)}


def narrow_proposals():
    """Proposals of float32 arrays, whatever the data are."""
    f = jnp.float32
    conditional = lambda p, x: (p["a"] * jnp.ones(2, f), jnp.ones(2, f))
    conditionals = lambda p, x, z0: (z0[None] + p["a"] * jnp.arange(3, dtype=f)[:, None], jnp.ones((3, 2), f))
    reverse = lambda p, x, z: (p["a"] * z, jnp.ones_like(z))
    covariance = lambda p: jnp.linalg.cholesky(0.5 * jnp.eye(3, dtype=f) + p["a"])
    return {
        "independent": hj.independent(conditional, num_samples=3),
        "shared": hj.hierarchical(conditional, conditionals, reverse),
        "own": hj.hierarchical(conditional, conditionals, reverse, shared=False),
        "joint": hj.joint_gaussian(
            lambda p, x: (p["a"] * jnp.ones((3, 2), f), jnp.broadcast_to(covariance(p), (2, 3, 3)))
        ),
    }


def narrow_bound(name, **options):
    log_joint = lambda p, x, z: -0.5 * jnp.sum((x - p["a"] * z) ** 2) - 0.5 * jnp.sum(z**2)
    return hj.make_bound(log_joint, narrow_proposals()[name], weighting=hj.power_heuristic(1.0), **options)


@pytest.mark.parametrize("name", ["independent", "shared", "own", "joint"])
@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"backward_samples": 2}], ids=str)
def test_narrow_networks_and_wide_data_may_be_mixed(name, options):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        x, names = np.ones(2), ["reparameterized", "doubly_reparameterized"]
        for gradient in names if name == "joint" else [*names, "refilled", "path_squared", "authors"]:
            bound = narrow_bound(name, gradient=gradient, **options)
            abstract = jax.eval_shape(jax.value_and_grad(bound), ONE, x, KEY)
            assert (abstract[0].dtype, abstract[1]["a"].dtype) == (jnp.float64, jnp.float32)


@pytest.mark.parametrize("name", ["independent", "shared", "own", "joint"])
def test_wide_data_change_the_gradient_of_narrow_networks_by_rounding(name):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        gradient = jax.jit(jax.grad(narrow_bound(name, gradient="doubly_reparameterized")))
        wide, narrow = (gradient(ONE, np.ones(2, dtype), KEY)["a"] for dtype in (np.float64, np.float32))
        np.testing.assert_allclose(wide, narrow, rtol=1e-4)


@pytest.mark.parametrize("options", [{"chunk_size": 2}, {"backward_samples": 2}], ids=str)
def test_a_flow_chain_of_integer_data(options):
    def scaled(p, x):
        return p["a"] * x.astype(jnp.float32)

    proposal = hj.flow_chain(
        lambda p, x: (scaled(p, x), jnp.ones(2)), [hj.affine_map(lambda p, x: (scaled(p, x), 0.5 * jnp.ones(2)))] * 2
    )
    log_joint = lambda p, x, z: -0.5 * jnp.sum((x.astype(jnp.float32) - p["a"] * z) ** 2) - 0.5 * jnp.sum(z**2)
    bound = hj.make_bound(log_joint, proposal, **options)
    integers, floats = (jax.value_and_grad(bound)(ONE, jnp.array([1, 2], t), KEY) for t in (jnp.int32, jnp.float32))
    chex.assert_trees_all_close(integers, floats, rtol=1e-6)
