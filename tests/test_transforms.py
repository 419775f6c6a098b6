"""Bounds compose with the transformations of JAX, keep their value under every estimator, and survive extremes."""

import functools

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from hiwae_jax._gradients import GRADIENTS
from tests import images

SIZES = {"pixels": 12, "hidden": 6, "latent": 3}
K = 4
PROPOSALS = {
    "independent": images.iwae(K),
    "shared": images.hiwae(),
    "own z_0": images.hiwae(shared=False),
    "equal members": hj.hierarchical(
        images.base,
        lambda p, h, z0: jax.tree.map(lambda a: a[:1], images.conditionals(p, h, z0)),
        images.reverse,
        num_samples=K,
        context=images.encode,
    ),
}
X = jnp.asarray(np.random.default_rng(0).integers(0, 2, SIZES["pixels"]), jnp.float32)
KEY = jax.random.key(7)


@functools.cache
def params():
    return images.init(K, **SIZES)


def make(name, gradient, alpha=1.0, log_joint=images.log_joint):
    return hj.make_bound(log_joint, PROPOSALS[name], weighting=hj.power_heuristic(alpha), gradient=gradient)


@pytest.mark.parametrize(
    ("name", "alpha"),
    [("independent", 0.0), ("shared", 1.0), ("own z_0", 1.0)],
)
def test_the_value_is_the_same_to_the_last_bit_for_every_estimator(name, alpha):
    """Operation by operation; in one compiled program with a gradient the compiler may contract a product and a sum."""
    x = jnp.stack([X, 1.0 - X, X * 0.0])
    keys = jax.random.split(KEY, 3)
    batched = {gradient: jax.vmap(make(name, gradient, alpha), in_axes=(None, 0, 0)) for gradient in GRADIENTS}
    values = {gradient: np.asarray(bound(params(), x, keys)) for gradient, bound in batched.items()}
    for gradient, value in values.items():
        np.testing.assert_array_equal(value, values["reparameterized"], err_msg=gradient)
    if name == "shared":
        bound = batched["refilled"]
        both = jax.jit(jax.value_and_grad(lambda p: jnp.sum(bound(p, x, keys))))(params())
        np.testing.assert_allclose(both[0], np.sum(values["refilled"]), rtol=1e-6)
    log_weights = hj.make_log_weights(images.log_joint, PROPOSALS[name], weighting=hj.power_heuristic(alpha))
    total = jax.nn.logsumexp(log_weights(params(), X, keys[0]))
    np.testing.assert_allclose(total, values["reparameterized"][0], rtol=1e-6)


PAIRS = [(name, "doubly_reparameterized") for name in PROPOSALS]
PAIRS += [("shared", "reparameterized")]


@pytest.mark.parametrize(("name", "gradient"), PAIRS)
def test_transformations_agree(name, gradient):
    bound = make(name, gradient)
    x, keys = jnp.stack([X, 1.0 - X]), jnp.stack([KEY, jax.random.key(8)])

    @jax.jit  # one program for all: compiling is most of the time
    def transformed(params, direction):
        value, one = jax.value_and_grad(bound)(params, X, KEY)
        primal, tangent = jax.jvp(lambda p: bound(p, X, KEY), (params,), (direction,))
        each = jax.vmap(jax.grad(bound), in_axes=(None, 0, 0))(params, x, keys)
        batch = jax.vmap(bound, in_axes=(None, 0, 0))
        mean = jax.grad(lambda p: jnp.mean(batch(p, x, keys)))(params)
        _, scanned = jax.lax.scan(lambda c, row: (c, jax.grad(bound)(c, *row)), params, (x, keys))
        return value, one, primal, tangent, each, mean, scanned

    flat, unravel = ravel_pytree(params())
    direction = unravel(jnp.sign(jax.random.normal(jax.random.key(1), flat.shape)))
    value, one, primal, tangent, each, mean, scanned = transformed(params(), direction)
    np.testing.assert_allclose(primal, value, rtol=1e-6)
    expected = ravel_pytree(one)[0] @ ravel_pytree(direction)[0]
    np.testing.assert_allclose(tangent, expected, rtol=2e-4, atol=2e-4)

    def same(ours, theirs):
        np.testing.assert_allclose(ravel_pytree(ours)[0], ravel_pytree(theirs)[0], rtol=1e-3, atol=2e-5)

    same(jax.tree.map(lambda g: g[0], each), one)
    same(scanned, each)
    same(jax.tree.map(lambda g: jnp.mean(g, axis=0), each), mean)


@pytest.mark.parametrize(("name", "gradient"), [*PAIRS[:1], *PAIRS[2:], ("own z_0", "refilled")])
def test_the_gradient_is_the_same_through_what_was_drawn_before(name, gradient):
    """Nothing reaches the parameters beside the draw that should go through it, nor twice."""
    bound = make(name, gradient)
    x, key = jnp.stack([X, 1.0 - X]), KEY

    @jax.jit
    def both(params):
        keys = jax.random.split(key, 2)
        mean = lambda p: jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(p, x, keys))
        ahead = hj.batched_value_and_grad(bound, draw=bound.draw, chunk_size=1)
        return jax.value_and_grad(mean)(params), ahead(params, x, key)

    expected, ours = both(params())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, expected)


def test_a_model_may_close_over_what_is_differentiated():
    """The gradient is seen also when the log-joint takes its parameters from an enclosing function."""

    def closed(p):
        return make("shared", "doubly_reparameterized", log_joint=lambda _, x, z: images.log_joint(p, x, z))(p, X, KEY)

    expected = jax.jit(jax.grad(lambda p: make("shared", "doubly_reparameterized")(p, X, KEY)))(params())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.jit(jax.grad(closed))(params()),
        expected,
    )


def test_second_derivatives_exist():
    bound = make("shared", "doubly_reparameterized")
    product = jax.jit(lambda p: jax.jvp(jax.grad(lambda p: bound(p, X, KEY)), (p,), (p,))[1])(params())
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(product))


def test_one_key_gives_one_result():
    bound = jax.jit(jax.value_and_grad(make("own z_0", "doubly_reparameterized")))
    jax.tree.map(np.testing.assert_array_equal, bound(params(), X, KEY), bound(params(), X, KEY))
    assert float(bound(params(), X, KEY)[0]) != float(bound(params(), X, jax.random.key(8))[0])


def finite(tree):
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))


# What is added to the log-joint where the first coordinate is negative, and where it is positive.
SHIFTS = {
    "large": (1e4, 1e4),
    "small": (-1e4, -1e4),
    "some dominate": (1e4, 0.0),
    "some impossible": (-np.inf, 0.0),
    "all impossible": (-np.inf, -np.inf),
}


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", ["independent", "shared", "own z_0"])
def test_extreme_weights_give_no_silent_nan(name, gradient):
    @jax.jit
    def value_and_gradient(params, shift):
        def log_joint(p, x, z):
            return images.log_joint(p, x, z) + shift[(z[0] > 0).astype(jnp.int32)]

        return jax.value_and_grad(make(name, gradient, log_joint=log_joint))(params, X, KEY)

    # The seed is such that both signs occur.
    signs = PROPOSALS[name].draw(params(), X, KEY).z[:, 0] > 0
    assert bool(jnp.any(signs))
    assert not bool(jnp.all(signs))
    for title, shift in SHIFTS.items():
        value, gradients = value_and_gradient(params(), jnp.array(shift))
        assert finite(gradients), title
        assert float(value) == -np.inf if title == "all impossible" else finite(value), title


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
        assert finite((value, gradients))


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a.astype(jnp.float64), params())
        value, gradients = jax.jit(jax.value_and_grad(make("shared", "doubly_reparameterized")))(
            wide, X.astype(jnp.float64), KEY
        )
        assert {leaf.dtype for leaf in jax.tree.leaves((value, gradients))} == {jnp.dtype(jnp.float64)}


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
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), integers, floats)


class EquinoxModel(eqx.Module):
    """Parameters in the manner of Equinox: a pytree that is its own module."""

    layers: dict

    def __getitem__(self, name):
        return self.layers[name]


class LinenModel(flax.linen.Module):
    """Parameters in the manner of Linen: the network is called through its variables."""

    @flax.linen.compact
    def __call__(self, initial):
        return {
            name: {part: self.param(f"{name}_{part}", lambda key, a=array: a) for part, array in layer.items()}
            for name, layer in initial.items()
        }


class NNXModel(nnx.Module):
    """Parameters in the manner of NNX."""

    def __init__(self, initial):
        self.layers = nnx.data(jax.tree.map(nnx.Param, initial))

    def plain(self):
        return jax.tree.map(lambda p: p[...], self.layers, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))


def as_kind(kind):
    """Parameters of one kind of pytree, and how to read them as the plain dict."""
    if kind == "Equinox":
        return EquinoxModel(params()), lambda p: p.layers
    if kind == "Linen":
        variables = LinenModel().init(jax.random.key(0), params())
        return variables, lambda v: LinenModel().apply(v, params())
    if kind == "NNX":
        graphdef, state = nnx.split(NNXModel(params()), nnx.Param)
        return state, lambda s: nnx.merge(graphdef, s).plain()
    return params(), lambda p: p


@pytest.mark.parametrize("kind", ["dict", "Equinox", "Linen", "NNX"])
def test_params_may_be_any_pytree(kind):
    own, read = as_kind(kind)
    proposal = hj.hierarchical(
        lambda p, h: images.base(read(p), h),
        lambda p, h, z0: images.conditionals(read(p), h, z0),
        lambda p, h, z: images.reverse(read(p), h, z),
        context=lambda p, x: images.encode(read(p), x),
    )
    bound = hj.make_bound(lambda p, x, z: images.log_joint(read(p), x, z), proposal, weighting=hj.power_heuristic(1.0))
    value, gradient = jax.jit(jax.value_and_grad(bound))(own, X, KEY)
    expected, expected_gradient = jax.jit(jax.value_and_grad(make("shared", None)))(params(), X, KEY)
    np.testing.assert_array_equal(value, expected)
    sizes = sorted(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose(
        sizes, sorted(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected_gradient)), rtol=1e-6
    )


@pytest.mark.parametrize("gradient", ["reparameterized", "doubly_reparameterized", "refilled"])
def test_params_may_have_functions_among_their_leaves(gradient):
    """As the layers of Equinox do, under its own transformations."""
    networks = {name: eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(i)) for i, name in enumerate(("q", "p", "r"))}
    proposal = hj.hierarchical(
        lambda p, x: (p["q"](x), jnp.ones(2)),
        lambda p, x, z0: (z0[None] + jnp.arange(3.0)[:, None], jnp.ones((3, 2))),
        lambda p, x, z: (jax.vmap(p["r"])(z), jnp.ones_like(z)),
        shared=False,
    )
    log_joint = lambda p, x, z: -0.5 * jnp.sum((x - p["p"](z)) ** 2) - 0.5 * jnp.sum(z**2)
    bound = hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(1.0), gradient=gradient)
    x = jnp.ones(2)
    value, ours = eqx.filter_jit(eqx.filter_value_and_grad(bound))(networks, x, KEY)
    arrays, others = eqx.partition(networks, eqx.is_array)
    expected, theirs = jax.jit(jax.value_and_grad(lambda arrays: bound(eqx.combine(arrays, others), x, KEY)))(arrays)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for one, other in zip(jax.tree.leaves(eqx.filter(ours, eqx.is_array)), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
