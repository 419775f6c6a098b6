"""The recipes for several bounds, as they stand in the documentation: their gradients on a Gaussian model."""

import doctest
import math
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj

RECIPES = pathlib.Path(__file__).resolve().parent.parent / "docs" / "recipes.md"
M, K, D = 3, 2, 2
X, KEY = jnp.array([0.7, -1.2]), jax.random.key(5)
PARAMS = {"model": jnp.float32(1.3), "proposal": jnp.array([0.4, -0.2])}


@pytest.fixture(scope="module")
def recipes():
    """The names that the first two sections define; their lines with an output run as doctests."""
    introduction, several, *_ = RECIPES.read_text().split("\n## ")
    names = {}
    for example in doctest.DocTestParser().get_examples(introduction + several):
        if not example.want:
            exec(example.source, names)
    return names


def own_log_weights(params, noise):
    """`log p(x, z) - log q(z | x)` of the recipes' model for noise [..., D], without a mixing weight."""
    loc, log_scale = params["proposal"]
    z = loc * X + jnp.exp(log_scale) * noise
    log_p = -0.5 * jnp.sum((X - params["model"] * z) ** 2) - 0.5 * jnp.sum(z**2)
    log_q = jnp.sum(-0.5 * noise**2 - log_scale - 0.5 * math.log(2.0 * math.pi))
    return log_p - log_q


def own_bound(params, noise):
    """The IWAE of all rows of `noise` [N, D]."""
    log_weights = jax.vmap(own_log_weights, in_axes=(None, 0))(params, noise)
    return jnp.log(jnp.mean(jnp.exp(log_weights)))


def own_miwae(params, noise):
    return jnp.mean(jax.vmap(own_bound, in_axes=(None, 0))(params, noise))


def sampler(key, shape, dtype=jnp.float32):
    """Any noise will do for identities that hold draw by draw; this compiles faster than a normal one."""
    seed = jax.random.key_data(key)[-1].astype(dtype)
    return 1.5 * jnp.sin(seed * jnp.arange(1.0, 1.0 + math.prod(shape))).reshape(shape)


def noise_of(num_bounds, num_samples):
    """The noise at the keys that the recipes split."""
    return jax.vmap(lambda key: sampler(key, (num_samples, D)))(jax.random.split(KEY, num_bounds))


def ingredients(recipes, num_samples):
    proposal = hj.independent(recipes["conditional"], num_samples=num_samples, sampler=sampler)
    bound = hj.make_bound(recipes["log_joint"], proposal, gradient="reparameterized")
    return bound, hj.make_log_weights(recipes["log_joint"], proposal)


def assert_close(ours, theirs):
    chex.assert_trees_all_close(ours, theirs, rtol=2e-5, atol=1e-6)


def test_piwae_gives_the_model_one_large_bound_and_the_proposal_several_small_ones(recipes):
    objective = recipes["piwae"](*ingredients(recipes, K), num_bounds=M)

    @jax.jit
    def gradients(params):
        noise = noise_of(M, K)
        together = jax.value_and_grad(own_bound)(params, noise.reshape(M * K, D))
        return jax.value_and_grad(objective)(params, X, KEY), together, jax.value_and_grad(own_miwae)(params, noise)

    (value, ours), (large, together), (small, separate) = gradients(PARAMS)
    assert_close(value, large + small)
    assert_close(ours, {"model": together["model"], "proposal": separate["proposal"]})
    assert abs(float(together["model"] - separate["model"])) > 1e-2
    assert np.max(np.abs(together["proposal"] - separate["proposal"])) > 1e-2


@pytest.mark.parametrize(("num_bounds", "num_samples"), [(M, K), (1, K), (M, 1)])
def test_miwae_is_the_iwae_at_one_bound_and_the_elbo_at_one_sample(recipes, num_bounds, num_samples):
    objective = recipes["miwae"](ingredients(recipes, num_samples)[0], num_bounds=num_bounds)

    def expected(params):
        noise = noise_of(num_bounds, num_samples)
        if num_bounds == 1:
            return own_bound(params, noise[0])
        if num_samples == 1:
            return jnp.mean(jax.vmap(own_log_weights, in_axes=(None, 0))(params, noise[:, 0]))
        return own_miwae(params, noise)

    ours, theirs = jax.jit(
        lambda params: (jax.value_and_grad(objective)(params, X, KEY), jax.value_and_grad(expected)(params))
    )(PARAMS)
    assert_close(ours, theirs)


def test_ciwae_is_the_iwae_at_zero_the_elbo_at_one_and_linear_between(recipes):
    log_weights = ingredients(recipes, K)[1]

    @jax.jit
    def everything(params):
        noise = sampler(KEY, (K, D))

        def elbo(params):
            return jnp.mean(jax.vmap(own_log_weights, in_axes=(None, 0))(params, noise))

        def iwae(params):
            return own_bound(params, noise)

        both = [jax.value_and_grad(function)(params) for function in (iwae, elbo)]
        mixtures = []
        for beta in (0.0, 1.0, 0.3):
            mixtures.append(jax.value_and_grad(recipes["ciwae"](log_weights, beta=beta))(params, X, KEY))
        return mixtures, both

    mixtures, (iwae, elbo) = everything(PARAMS)
    assert_close(mixtures[0], iwae)
    assert_close(mixtures[1], elbo)
    assert_close(mixtures[2], jax.tree.map(lambda a, b: 0.7 * a + 0.3 * b, iwae, elbo))
