"""Weights that overflow, vanish, dominate or are impossible: the value is right, the gradient neither NaN nor lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import hiwae_jax as hj
from hiwae_jax import GRADIENTS
from tests import images, models
from tests.extremes import SHIFTS
from tests.small_images import KEY, PROPOSALS, X, make, params

# Independent samples have no scores of other members, so that some of the estimators are one.
ESTIMATORS = dict.fromkeys(PROPOSALS, GRADIENTS) | {"independent": ("reparameterized", "doubly_reparameterized")}


@pytest.mark.parametrize("name", ["independent", "shared", "own z_0"])
def test_extreme_weights(name):
    @models.quick_jit  # one program for all estimators
    def evaluate(params, shift):
        def log_joint(p, x, z):
            return images.log_joint(p, x, z) + shift[(z[0] > 0).astype(jnp.int32)]

        signs = PROPOSALS[name].draw(params, X, KEY).z[:, 0] > 0
        log_weights = hj.make_log_weights(images.log_joint, PROPOSALS[name], weighting=hj.power_heuristic(1.0))
        bounds = {gradient: make(name, gradient, log_joint=log_joint) for gradient in ESTIMATORS[name]}
        results = {gradient: jax.value_and_grad(bound)(params, X, KEY) for gradient, bound in bounds.items()}
        return signs, log_weights(params, X, KEY), results

    signs, log_weights, unshifted = evaluate(params(), jnp.zeros(2))
    # The seed is such that both signs occur.
    assert np.any(signs)
    assert not np.all(signs)
    log_weights = np.asarray(log_weights, np.float64)
    for title, shift in SHIFTS.items():
        expected_value = scipy.special.logsumexp(log_weights + np.where(signs, shift[1], shift[0]))
        for gradient, (value, gradients) in evaluate(params(), jnp.array(shift))[2].items():
            message = f"{gradient}, {title}"
            np.testing.assert_allclose(value, expected_value, rtol=1e-5, err_msg=message)
            flat, expected = (
                np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
                for tree in (gradients, unshifted[gradient][1])
            )
            assert np.all(np.isfinite(flat)), message
            if title in ("large", "small") and not (name == "shared" and gradient == "score_function"):
                # All by the same amount, beside which 1e-3 is rounding. A shared z_0 is scored with the bound itself.
                np.testing.assert_allclose(flat, expected, atol=5e-3 * np.max(np.abs(expected)), err_msg=message)
            elif title == "all impossible":
                np.testing.assert_array_equal(flat, 0.0)
            else:
                assert np.max(np.abs(flat)) > 1e-3, message
