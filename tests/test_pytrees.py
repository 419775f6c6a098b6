"""Parameters may be any pytree: plain dicts, and those of Equinox, Linen and NNX."""

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hiwae_jax as hj
from tests import images
from tests.small_images import KEY, X, make, params


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
    """Parameters of one kind of pytree, and how to read them, or their gradient, as the plain dict."""
    if kind == "Equinox":
        return EquinoxModel(params()), lambda p: p.layers
    if kind == "Linen":
        variables = LinenModel().init(jax.random.key(0), params())
        return variables, lambda v: LinenModel().apply(v, params())
    if kind == "NNX":
        graphdef, state = nnx.split(NNXModel(params()), nnx.Param)
        return state, lambda s: nnx.merge(graphdef, s).plain()
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["Equinox", "Linen", "NNX"])
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
    same = lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    jax.tree.map(same, read(gradient), expected_gradient)


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
