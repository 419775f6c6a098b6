"""A model that is evaluated a chunk of samples at a time: the same numbers, in memory that does not grow with K."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import images, models

SIZES = {"pixels": 12, "hidden": 6, "latent": 3}


def value_and_gradient(proposal, alpha, gradient, chunk_size, backward_samples=None):
    bound = hj.make_bound(
        images.log_joint,
        proposal,
        weighting=hj.power_heuristic(alpha),
        gradient=gradient,
        backward_samples=backward_samples,
        chunk_size=chunk_size,
    )
    return models.quick_jit(jax.value_and_grad(bound, argnums=(0, 1)))


@pytest.mark.parametrize(
    ("alpha", "gradient", "backward_samples"),
    [
        (0.0, "doubly_reparameterized", None),
        (1.0, "reparameterized", None),
        (1.0, "doubly_reparameterized", None),
        (1.0, "refilled", None),
        (1.0, "doubly_reparameterized", 3),
    ],
)
def test_chunks_change_nothing_but_the_rounding(alpha, gradient, backward_samples):
    params = images.init(5, **SIZES)
    arguments = params, jnp.linspace(0.0, 1.0, 12), jax.random.key(1)
    whole = value_and_gradient(images.hiwae(), alpha, gradient, None, backward_samples)(*arguments)
    # Two does not divide five, and is fewer than the three of the backward pass.
    chunked = value_and_gradient(images.hiwae(), alpha, gradient, 2, backward_samples)(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), chunked, whole)


def test_log_weights_and_the_annealed_objective_take_chunks_too():
    params = images.init(5, **SIZES)
    arguments = params, jnp.linspace(0.0, 1.0, 12), jax.random.key(1)
    proposal = images.iwae(5)
    whole = hj.make_log_weights(images.log_joint, proposal)(*arguments)
    chunked = hj.make_log_weights(images.log_joint, proposal, chunk_size=2)(*arguments)
    np.testing.assert_allclose(chunked, whole, rtol=1e-6)
    objective = hj.make_annealed_objective(
        images.log_joint, lambda params, x, z: jnp.zeros(()), proposal, free_bits=0.1, chunk_size=3
    )
    same = hj.make_annealed_objective(images.log_joint, lambda params, x, z: jnp.zeros(()), proposal, free_bits=0.1)
    np.testing.assert_allclose(objective(*arguments, 0.5), same(*arguments, 0.5), rtol=1e-6)


def test_memory_for_the_model_does_not_grow_with_the_number_of_samples():
    sizes = {"pixels": 200, "hidden": 100, "latent": 2}

    def temporaries(num_samples, chunk_size):
        arguments = jax.eval_shape(lambda: (images.init(num_samples, **sizes), jnp.zeros(200), jax.random.key(0)))
        function = value_and_gradient(images.iwae(num_samples), 0.0, "doubly_reparameterized", chunk_size)
        return function.lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    few, many = temporaries(50, None), temporaries(1_000, 50)
    # A thousand samples themselves, their noise and their weights are what is left.
    assert many < few + 1_000 * 4 * 30
    assert temporaries(1_000, None) > 10 * few


@pytest.mark.optimized
def test_memory_for_pairs_of_members_does_not_grow_with_their_number():
    """One [K, K] array of the largest K would be 2.56 MB, one [K, K, D] 7.68 MB."""

    def temporaries(num_samples, chunk_size):
        arguments = jax.eval_shape(lambda: (images.init(num_samples, **SIZES), jnp.zeros(12), jax.random.key(0)))
        bound = hj.make_bound(
            images.log_joint,
            images.hiwae(),
            weighting=hj.power_heuristic(1.0),
            gradient="refilled",
            chunk_size=chunk_size,
        )
        compiled = jax.jit(jax.value_and_grad(bound)).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # What grows: rows of a chunk, samples, members, the head of the conditionals with its gradient.
    few, many = temporaries(200, 10), temporaries(800, 10)
    assert many < 6 * few
    assert many < 4 * 800 * 800


@pytest.mark.parametrize("case", ["separate z_0", "free bits", "learned", "flow chain", "markov"])
def test_chunks_where_a_row_knows_more_than_its_sample(case):
    params = images.init(4, **SIZES)
    arguments = params, jnp.linspace(0.0, 1.0, 12), jax.random.key(1), 0.5
    proposal = images.hiwae(shared=case != "separate z_0")
    weighting = hj.power_heuristic(1.0)
    if case in ("learned", "markov"):
        weighting = hj.learned_weighting(lambda params, h, z, z0: jnp.stack([z[0], z[1], 0.0 * z[0], -z[1]]))
    if case == "markov":
        step = lambda params, x, z, number: (0.5 * z + x[:3], jnp.full(3, 0.9))
        proposal = hj.markov(lambda params, x: (x[:3], jnp.ones(3)), step, step, num_samples=4)
    if case == "flow chain":
        start = lambda params, x: images.base(params, images.encode(params, x))
        maps = [hj.affine_map(lambda params, h: (jnp.full(3, 0.3), jnp.full(3, 1.5)))] * 3
        proposal = hj.flow_chain(start, maps)

    def results(chunk_size):
        objective = hj.make_annealed_objective(
            images.log_joint,
            lambda params, x, z: -0.5 * jnp.sum(z**2),
            proposal,
            weighting=weighting,
            free_bits=0.5 if case == "free bits" else 0.0,
            chunk_size=chunk_size,
        )
        return models.quick_jit(jax.value_and_grad(objective))(*arguments)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), results(3), results(None))


def test_a_chunk_has_at_least_one_sample():
    with pytest.raises(ValueError, match="chunk_size: expected"):
        hj.make_bound(images.log_joint, images.iwae(5), chunk_size=0)
