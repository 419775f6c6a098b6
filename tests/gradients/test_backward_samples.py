"""A backward pass for some of the samples, drawn by their weights: the same value, and the same gradient on average."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from tests import models
from tests.gradients import paired_draws as four
from tests.gradients.paired_draws import LARGEST_Z, paired

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
    {"gradient": "doubly_reparameterized", "alpha": 0.0, "backward_samples": 6, "proposal": independent()},
    # Here a sample of small weight may have a large direction: drawn by the weights alone the ratio would be 1.6.
    {"gradient": "doubly_reparameterized", "alpha": 3.0, "backward_samples": 1},
    {"gradient": "refilled", "alpha": 3.0, "backward_samples": 1},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['gradient']}, M {case['backward_samples']}")
def test_the_gradient_is_unbiased_for_all_parameters(case):
    z, ratio = paired(against=case["gradient"], **case)
    assert z < LARGEST_Z
    assert 1.0 < ratio < (1.4 if case["gradient"] != "reparameterized" else 2.5)


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
        bounds = [bound(proposal, gradient, alpha, M) for M in (None, 1, 6)]
        values = [models.quick_jit(f)(parameters(), X, KEY) for f in bounds]
        np.testing.assert_array_equal(values[1:], values[:1] * 2)


SHIFTS = {
    "one dominates": (1e4, 0.0),
    "some impossible": (-np.inf, 0.0),
    "all impossible": (-np.inf, -np.inf),
}


def test_extreme_weights_give_no_silent_nan():
    proposal, gradients = hierarchical(), ("doubly_reparameterized", "refilled")

    @models.quick_jit
    def evaluate(params, shift):
        def log_joint(p, x, z):
            return four.log_likelihood(p, x, z) + shift[(z[0] > 0).astype(jnp.int32)]

        bounds = [bound(proposal, gradient, 1.0, 1, log_joint) for gradient in gradients]
        signs = proposal.draw(params, X, KEY).z[:, 0] > 0
        return jnp.sum(signs), [jax.value_and_grad(f)(params, X, KEY) for f in bounds]

    for title, shift in SHIFTS.items():
        count, results = evaluate(parameters(), jnp.array(shift))
        assert 0 < int(count) < four.K
        for gradient, (value, tree) in zip(gradients, results, strict=True):
            assert np.all(np.isfinite(ravel_pytree(tree)[0])), (gradient, title)
            assert float(value) == -np.inf if title == "all impossible" else np.isfinite(value), (gradient, title)
