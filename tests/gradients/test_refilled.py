"""The refilled-slot estimator: unbiased by quadrature, and the same as others where it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from hiwae_jax._gradients.leave_out import leave_two_out
from tests import models
from tests.gradients import paired_draws as four  # K = 4 members in D = 3

ESTIMATORS = ("reparameterized", "refilled", "path_squared")


def defensive():
    def one(name):
        return lambda params, x: (params[name][:1], jnp.exp(params[name][1:]))

    return hj.defensive(one("narrow"), one("broad"), num_samples=2, sampler=models.leading)


def hierarchical():
    """Scales at which a grid in five dimensions is exact enough."""

    def base(params, x):
        loc, scale = models.scalar_base(params, x)
        return loc, 0.4 * scale

    def conditionals(params, x, z0):
        loc, scale = models.scalar_conditionals(params, x, z0)
        return loc, 0.45 * scale

    return hj.hierarchical(base, conditionals, models.scalar_reverse, sampler=models.leading)


PROPOSALS = {
    # noise: that of the samples and that of the refills
    "defensive": (defensive, 0.5, 4),
    "hierarchical": (hierarchical, 0.25, 5),
}
CASES = [
    # Accuracy is that of the grid; path-squared is off by its bias at beta 1 and at beta 0.3.
    {"name": "defensive", "alpha": 0.5, "nodes": 20, "accuracy": 1e-6, "bias": (3e-2, 3e-2)},
    {"name": "defensive", "alpha": 1.0, "nodes": 20, "accuracy": 1e-6, "bias": (0.0, 3e-2)},
    {"name": "defensive", "alpha": 3.0, "nodes": 24, "accuracy": 3e-4, "bias": (0.3, 0.1)},
    {"name": "hierarchical", "alpha": 2.0, "nodes": 11, "accuracy": 2e-4, "bias": (0.1, 0.05)},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}, alpha {case['alpha']}")
def test_the_mean_gradient_is_that_of_the_plain_estimator(case):
    make, spread, dimensions = PROPOSALS[case["name"]]
    with jax.enable_x64(True):
        params = {
            **models.scalar_params(spread),
            "narrow": jnp.array([0.15, -0.8]),
            "broad": jnp.array([-0.1, -0.7]),
        }
        means = models.mean_gradients(
            make(),
            hj.power_heuristic(case["alpha"]),
            ESTIMATORS,
            params,
            dimensions=dimensions,
            nodes=case["nodes"],
            betas=(1.0, 0.3),
        )
    for beta, bias in zip((1.0, 0.3), case["bias"], strict=True):
        plain, ours, biased = (means[gradient, beta] for gradient in ESTIMATORS)
        assert ours[0] == pytest.approx(plain[0], rel=1e-12)
        np.testing.assert_allclose(ours[1], plain[1], atol=case["accuracy"])
        assert np.max(np.abs(biased[1] - plain[1])) >= bias  # the control


def proposal(num_samples=None, members=four.K):
    def conditionals(params, x, z0):
        return jax.tree.map(lambda rows: rows[:members], four.conditionals(params, x, z0))

    return hj.hierarchical(four.base, conditionals, four.reverse, num_samples=num_samples, sampler=models.leading)


def gradients(bounds, dtype):
    """The gradients of several bounds in one compiled program, on the same noise in either precision."""
    with jax.enable_x64(dtype == np.float64):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), four.params())
        noise = jnp.asarray(np.random.default_rng(2).normal(size=40), dtype)
        x = jnp.asarray([0.8, -0.5], dtype)
        trees = models.quick_jit(lambda p: [jax.value_and_grad(bound)(p, x, noise) for bound in bounds])(params)
        return [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in trees]


def bound(proposal, alpha, gradient, extra=lambda z: jnp.zeros((), z.dtype)):
    def log_joint(params, x, z):
        return four.log_likelihood(params, x, z) + four.log_prior(params, x, z) + extra(z)

    return hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(alpha), gradient=gradient)


def test_without_scores_of_other_members_it_is_doubly_reparameterized():
    """Under the uniform weighting and with equal members to the last bit; and one sample has no slot to refill."""
    cases = [(proposal(), 0.0), (proposal(num_samples=3, members=1), 1.0), (proposal(members=1), 2.0)]
    bounds = [
        bound(proposal, alpha, gradient)
        for proposal, alpha in cases
        for gradient in ("refilled", "doubly_reparameterized")
    ]
    results = gradients(bounds, np.float32)
    for ours, theirs in zip(results[:4:2], results[1:4:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(results[4], results[5], rtol=1e-5, atol=1e-6)


def test_weights_that_underflow_count_once_the_dominating_sample_has_left():
    """One sample of four stands out by 40 or by 1e4: no difference to the gradient, in either precision."""

    def dominated(shift):
        return lambda z: jnp.where(z[0] > 1.2, jnp.asarray(shift, z.dtype), 0.0)

    bounds = [bound(proposal(), 3.0, "refilled", dominated(shift)) for shift in (40.0, 1e4)]
    single, double = (gradients(bounds, dtype) for dtype in (np.float32, np.float64))
    expected = double[0][1:]  # after the value; here nothing underflows
    for (value, *gradient), shift in zip((*single, *double), (40.0, 1e4) * 2, strict=True):
        assert value > shift - 20.0
        np.testing.assert_allclose(gradient, expected, atol=2e-5 * np.max(np.abs(expected)))


@pytest.mark.parametrize("K", [1, 2, 5])
def test_sums_without_two_are_those_of_brute_force(K):
    random = np.random.default_rng(0)
    rows = random.normal(size=(4, K)) * 3.0
    rows[1, 0], rows[2, K // 2 :], rows[3] = 800.0, -np.inf, -np.inf  # one dominates; some are zero; all are
    with jax.enable_x64(True):
        of_all = lambda row: jax.vmap(leave_two_out(row))(jnp.arange(K))
        shift, total = models.quick_jit(jax.vmap(of_all))(jnp.asarray(rows))
        ours = np.asarray(shift + jnp.log(total))
    for row, table in zip(rows, ours, strict=True):
        for i in range(K):
            for j in range(K):
                rest = [row[m] for m in range(K) if m not in (i, j)]
                expected = np.logaddexp.reduce(rest) if rest else -np.inf
                assert table[i, j] == pytest.approx(expected, rel=1e-12, abs=1e-12)
