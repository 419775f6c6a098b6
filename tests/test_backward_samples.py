"""A backward pass for some of the samples, drawn by their weights: the same value, and the same gradient on average."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from hiwae_jax._systematic import systematic_indices
from tests import test_gradients_paired as four  # K = 4 members in D = 3
from tests.test_gradients_paired import LARGEST_Z, paired

X = jnp.array([0.8, -0.5])
KEY = jax.random.key(4)


def independent():
    def conditional(params, x):
        z0 = params["base"][0] @ x
        return params["shift"][0] + params["loc"][0] @ z0, jnp.exp(0.4 * jnp.tanh(params["scale"][0] @ z0))

    return hj.independent(conditional, num_samples=four.K)


def hierarchical(shared=True):
    return hj.hierarchical(four.base, four.conditionals, four.reverse, shared=shared)


CASES = [
    {"gradient": "reparameterized", "alpha": 1.0, "backward_samples": 1, "beta": 0.3, "free_bits": 1.0},
    {"gradient": "doubly_reparameterized", "alpha": 0.0, "backward_samples": 2, "proposal": independent()},
    # Here a sample of small weight may have a large direction: drawn by the weights alone the ratio would be 1.6.
    {"gradient": "doubly_reparameterized", "alpha": 3.0, "backward_samples": 1},
    {"gradient": "refilled", "alpha": 3.0, "backward_samples": 1},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['gradient']}, M {case['backward_samples']}")
def test_the_gradient_is_unbiased_for_all_parameters(case):
    z, ratio = paired(against=case["gradient"], **case)
    assert z < LARGEST_Z
    assert 1.0 < ratio < (1.4 if case["gradient"] != "reparameterized" else 2.5)


def weights_of(seed, K):
    return np.random.default_rng(seed).dirichlet(np.full(K, 0.5)).astype(np.float32)


@pytest.mark.parametrize("num_samples", [1, 3, 7])
def test_expected_counts_are_the_weights(num_samples):
    """The mean over a fine grid of the uniform number, and no count further than one from its mean."""
    weights = np.stack([weights_of(0, 5), [0.0, 0.3, 0.0, 0.7, 0.0], [0.2] * 5, 1e-3 * weights_of(1, 5)])
    grid = (np.arange(4_000) + 0.5) / 4_000

    @jax.jit
    def counts(weights, grid):
        def one(weights, uniform):
            chosen = systematic_indices(uniform, weights, num_samples=num_samples)
            return jnp.sum(chosen[:, None] == jnp.arange(5)[None], axis=0, dtype=jnp.float32)

        return jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))(weights, grid)

    table = np.asarray(counts(jnp.asarray(weights, jnp.float32), jnp.asarray(grid, jnp.float32)))
    expected = num_samples * weights / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(table.mean(1), expected, atol=2e-3)
    assert np.max(np.abs(table - expected[:, None])) < 1.0 + 1e-5
    assert np.all(table[:, :, :].sum(-1) == num_samples)


def test_nothing_of_weight_zero_is_drawn_at_either_end():
    ends = jnp.array([0.0, np.nextafter(np.float32(1.0), np.float32(0.0))])
    rows = jnp.array([[0.0, 0.0, 1e-30, 0.3, 0.0], [0.0, 1e-7, 0.9, 0.0, 0.0]])
    for row in rows:
        for uniform in ends:
            chosen = systematic_indices(uniform, row, num_samples=3)
            assert bool(jnp.all(row[chosen] > 0.0))
    # All zero: some index, in range.
    assert 0 <= int(systematic_indices(ends[1], jnp.zeros(4), num_samples=1)[0]) < 4


def bound(proposal, gradient, alpha, backward_samples, log_joint=None):
    return hj.make_bound(
        log_joint or (lambda p, x, z: four.log_likelihood(p, x, z) + four.log_prior(p, x, z)),
        proposal,
        weighting=hj.power_heuristic(alpha),
        gradient=gradient,
        backward_samples=backward_samples,
    )


def parameters():
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), four.params())


def test_the_value_is_unchanged_to_the_last_bit():
    for proposal, gradient, alpha in (
        (independent(), "doubly_reparameterized", 0.0),
        (hierarchical(), "reparameterized", 1.0),
    ):
        values = [bound(proposal, gradient, alpha, M)(parameters(), X, KEY) for M in (None, 1, 6)]
        np.testing.assert_array_equal(values[1:], values[:1] * 2)


def test_many_backward_samples_come_close_to_the_full_gradient():
    """M may exceed K: counts are within one of M times the weights, so that the error falls like 1/M."""
    bounds = [bound(hierarchical(), "doubly_reparameterized", 1.0, M) for M in (None, 5_000)]
    full, drawn = jax.jit(lambda p: [ravel_pytree(jax.grad(f)(p, X, KEY))[0] for f in bounds])(parameters())
    assert float(jnp.max(jnp.abs(full - drawn))) < 5e-3 * float(jnp.max(jnp.abs(full)))


SHIFTS = {
    "one dominates": (1e4, 0.0),
    "some impossible": (-np.inf, 0.0),
    "all impossible": (-np.inf, -np.inf),
}


@pytest.mark.parametrize("gradient", ["doubly_reparameterized", "refilled"])
def test_extreme_weights_give_no_silent_nan(gradient):
    proposal = hierarchical()

    @jax.jit
    def value_and_gradient(params, shift):
        def log_joint(p, x, z):
            return four.log_likelihood(p, x, z) + shift[(z[0] > 0).astype(jnp.int32)]

        return jax.value_and_grad(bound(proposal, gradient, 1.0, 1, log_joint))(params, X, KEY)

    signs = np.asarray(proposal.draw(parameters(), X, KEY).z[:, 0] > 0)
    assert 0 < signs.sum() < len(signs)
    for title, shift in SHIFTS.items():
        value, tree = value_and_gradient(parameters(), jnp.array(shift))
        assert np.all(np.isfinite(ravel_pytree(tree)[0])), title
        assert float(value) == -np.inf if title == "all impossible" else np.isfinite(value), title
