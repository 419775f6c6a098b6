"""Functions with a `jax.custom_vjp`, which can be differentiated in reverse mode only, under every gradient rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.ode import odeint

import hiwae_jax as hj
from tests import images, models
from tests.small_images import KEY, K, X, params

XS, KEYS = jnp.stack([X, 1.0 - X]), jax.random.split(KEY, 2)


@jax.custom_vjp
def in_reverse(tree):
    """The same tree, which cannot be differentiated forward."""
    return tree


in_reverse.defvjp(lambda tree: (tree, None), lambda _, cotangent: (cotangent,))


def wrapped(function):
    """The same function, in reverse mode only."""
    return lambda *arguments: in_reverse(function(*arguments))


def hierarchical(place=None, *, shared=True):
    """The hierarchical proposal of the images, with one of its functions in reverse mode only."""
    functions = {name: getattr(images, name) for name in ("base", "conditionals", "reverse", "encode")}
    if place in functions:
        functions[place] = wrapped(functions[place])
    context = functions.pop("encode")
    return hj.hierarchical(*functions.values(), shared=shared, context=context)


def mean_gradient(bound):
    """Of the mean bound of a batch."""
    batch = jax.vmap(bound, in_axes=(None, 0, 0))
    return models.quick_jit(jax.value_and_grad(lambda params: jnp.mean(batch(params, XS, KEYS))))(params())


def assert_equal(bound, expected):
    """Value and gradient agree up to rounding."""
    found, expected = mean_gradient(bound), mean_gradient(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)


@pytest.mark.parametrize("gradient", hj.GRADIENTS)
def test_a_log_joint_in_reverse_mode_only_has_the_gradient_of_every_rule(gradient):
    proposal, options = images.iwae(K), {"gradient": gradient}
    assert_equal(
        hj.make_bound(wrapped(images.log_joint), proposal, **options),
        hj.make_bound(images.log_joint, proposal, **options),
    )


@pytest.mark.parametrize("place", ["log_joint", "base", "conditionals", "reverse", "encode"])
def test_every_function_of_a_shared_z0_may_run_in_reverse_mode_only(place):
    weighting = hj.power_heuristic(1.0)
    log_joint = wrapped(images.log_joint) if place == "log_joint" else images.log_joint
    assert_equal(
        hj.make_bound(log_joint, hierarchical(place), weighting=weighting),
        hj.make_bound(images.log_joint, hierarchical(), weighting=weighting),
    )


@pytest.mark.parametrize(("gradient", "chunk_size"), [("doubly_reparameterized", 3), ("score_function", None)])
def test_chunks_and_a_z0_of_each_sample(gradient, chunk_size):
    proposal = hierarchical(shared=False)
    options = {"gradient": gradient, "chunk_size": chunk_size, "weighting": hj.power_heuristic(0.0)}
    assert_equal(
        hj.make_bound(wrapped(images.log_joint), proposal, **options),
        hj.make_bound(images.log_joint, proposal, **options),
    )


def test_an_annealed_objective_with_free_bits():
    def log_prior(params, x, z):
        return -0.5 * jnp.sum(z**2)

    def objective(log_likelihood):
        made = hj.make_annealed_objective(log_likelihood, log_prior, images.iwae(K), free_bits=1.0)
        return lambda params, x, key: made(params, x, key, 0.3)

    assert_equal(objective(wrapped(images.log_joint)), objective(images.log_joint))


def test_the_derivative_is_the_one_that_the_user_gave():
    """It doubles the slope in z."""

    @jax.custom_vjp
    def steep(z):
        return z

    steep.defvjp(lambda z: (z, None), lambda _, cotangent: (2.0 * cotangent,))

    def same_slope(z):
        return 2.0 * z - jax.lax.stop_gradient(z)

    assert_equal(
        hj.make_bound(lambda params, x, z: images.log_joint(params, x, steep(z)), images.iwae(K)),
        hj.make_bound(lambda params, x, z: images.log_joint(params, x, same_slope(z)), images.iwae(K)),
    )


def test_the_solution_of_a_differential_equation():
    """The decoder's gradient under the default is that of the plain estimator, which uses automatic differentiation."""

    def log_joint(params, x, z):
        speed = params["decoder2"]["kernel"][: len(z), : len(z)]
        end = odeint(lambda y, t: jnp.tanh(speed @ y), z, jnp.linspace(0.0, 1.0, 2))[-1]
        return images.log_joint(params, x, end)

    bounds = [hj.make_bound(log_joint, images.iwae(2), gradient=gradient) for gradient in (None, "reparameterized")]
    (value, ours), (expected, plain) = (mean_gradient(bound) for bound in bounds)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for name in ("decoder1", "decoder2", "decoder3"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours[name], plain[name])
    assert np.abs(ours["base"]["kernel"] - plain["base"]["kernel"]).max() > 1e-3


def test_a_step_computes_no_more():
    """The compiler merges the second evaluation with the first."""

    def flops(log_joint):
        bound = hj.make_bound(log_joint, hierarchical(), weighting=hj.power_heuristic(1.0))
        step = jax.jit(hj.batched_value_and_grad(bound, draw=bound.draw))
        return step.lower(params(), XS, KEY).compile().cost_analysis()["flops"]

    assert flops(wrapped(images.log_joint)) < 1.02 * flops(images.log_joint)


def test_what_needs_forward_mode_says_so():
    bound = hj.make_bound(images.log_joint, hierarchical("conditionals", shared=False))
    with pytest.raises(TypeError, match=r"conditionals: .* forward mode.*use gradient='reparameterized'"):
        mean_gradient(bound)
    bound = hj.make_bound(wrapped(images.log_joint), images.iwae(K), backward_samples=2)
    with pytest.raises(ValueError, match=r"backward_samples: .*leave backward_samples out"):
        mean_gradient(bound)
