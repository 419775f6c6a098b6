"""bfloat16, float32, float64 and integers: what is computed in which precision, and what mixes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import images
from tests.extremes import finite
from tests.models import quick_jit
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
    names = ("doubly_reparameterized", "refilled")
    bounds = [hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(1.0), gradient=name) for name in names]

    @quick_jit
    def results(narrow, params):
        wide = [make("shared", name)(params, X, KEY) for name in names]
        return [jax.value_and_grad(bound)(narrow, X, KEY) for bound in bounds], wide

    for (value, gradients), wide in zip(*results(narrow, params()), strict=True):
        assert value.dtype == jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.bfloat16)}
        assert finite(gradients)
        # From the same noise: what is left are the three digits of the networks.
        np.testing.assert_allclose(value, wide, rtol=0.02)


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        wide, x = jax.tree.map(lambda a: np.asarray(a, np.float64), (params(), X))
        # A step that single precision cannot tell from none.
        step = jax.tree.map(lambda a: 1e-8 * np.sign(a), wide)

        @quick_jit
        def results(params, step):
            doubly = jax.value_and_grad(make("shared", "doubly_reparameterized"))(params, x, KEY)
            moved = make("shared", "reparameterized")(jax.tree.map(jnp.add, params, step), x, KEY)
            return doubly, jax.grad(make("shared", "reparameterized"))(params, x, KEY), moved

        (value, gradients), plain, moved = results(wide, step)
        assert {leaf.dtype for leaf in jax.tree.leaves((value, gradients))} == {jnp.dtype(jnp.float64)}
        expected = sum(jax.tree.leaves(jax.tree.map(np.vdot, plain, step)))
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


PLAIN_AND_DEFAULT = ["reparameterized", "doubly_reparameterized"]
ALL = [*PLAIN_AND_DEFAULT, "refilled", "path_squared", "authors"]
# The estimators meet every layout of members; chunks and drawn samples meet every proposal and every estimator once.
MIXED = [(name, {}, PLAIN_AND_DEFAULT) for name in ("independent", "joint")]
MIXED += [(name, {}, ALL) for name in ("shared", "own")]
for of_model in ({"chunk_size": 2}, {"backward_samples": 2}):
    MIXED += [("independent", of_model, ALL[:1]), ("joint", of_model, ALL[1:2])]
    MIXED += [("shared", of_model, ALL[2:4]), ("own", of_model, ALL[1::3])]


@pytest.mark.parametrize(("name", "options", "gradients"), MIXED, ids=str)
def test_narrow_networks_and_wide_data_may_be_mixed(name, options, gradients):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        x = np.ones(2)
        for gradient in gradients:
            bound = narrow_bound(name, gradient=gradient, **options)
            abstract = jax.eval_shape(jax.value_and_grad(bound), ONE, x, KEY)
            assert (abstract[0].dtype, abstract[1]["a"].dtype) == (jnp.float64, jnp.float32)


@pytest.mark.parametrize("name", ["independent", "shared", "own", "joint"])
def test_wide_data_change_the_gradient_of_narrow_networks_by_rounding(name):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        gradient = jax.grad(narrow_bound(name, gradient="doubly_reparameterized"))
        of_both = quick_jit(lambda *data: [gradient(ONE, x, KEY)["a"] for x in data])
        wide, narrow = of_both(np.ones(2, np.float64), np.ones(2, np.float32))
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
    of_both = quick_jit(lambda *data: [jax.value_and_grad(bound)(ONE, x, KEY) for x in data])
    integers, floats = of_both(np.array([1, 2], np.int32), np.array([1, 2], np.float32))
    chex.assert_trees_all_close(integers, floats, rtol=1e-6)
