"""Weights that overflow, vanish, dominate or are impossible: the value is right, the gradient neither NaN nor lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from hiwae_jax import GRADIENTS
from tests import images
from tests.extremes import SHIFTS
from tests.small_images import KEY, PROPOSALS, X, make, params


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", ["independent", "shared", "own z_0"])
def test_extreme_weights(name, gradient):
    @jax.jit
    def value_and_gradient(params, shift):
        def log_joint(p, x, z):
            return images.log_joint(p, x, z) + shift[(z[0] > 0).astype(jnp.int32)]

        return jax.value_and_grad(make(name, gradient, log_joint=log_joint))(params, X, KEY)

    # The seed is such that both signs occur.
    signs = PROPOSALS[name].draw(params(), X, KEY).z[:, 0] > 0
    assert np.any(signs)
    assert not np.all(signs)
    log_weights = hj.make_log_weights(images.log_joint, PROPOSALS[name], weighting=hj.power_heuristic(1.0))
    log_weights = np.asarray(log_weights(params(), X, KEY), np.float64)
    _, unshifted = value_and_gradient(params(), jnp.zeros(2))
    for title, shift in SHIFTS.items():
        value, gradients = value_and_gradient(params(), jnp.array(shift))
        expected = scipy.special.logsumexp(log_weights + np.where(signs, shift[1], shift[0]))
        np.testing.assert_allclose(value, expected, rtol=1e-5, err_msg=title)
        flat, expected = ravel_pytree(gradients)[0], ravel_pytree(unshifted)[0]
        assert np.all(np.isfinite(flat)), title
        if title in ("large", "small"):  # all by the same amount, beside which 1e-3 is rounding
            np.testing.assert_allclose(flat, expected, atol=5e-3 * np.max(np.abs(expected)), err_msg=title)
        elif title == "all impossible":
            np.testing.assert_array_equal(flat, 0.0)
        else:
            assert np.max(np.abs(flat)) > 1e-3, title
