"""Weights that overflow, vanish, dominate or are impossible: no silent NaN in the bound nor in its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hiwae_jax._gradients import GRADIENTS
from tests import images
from tests.extremes import SHIFTS, finite
from tests.small_images import KEY, PROPOSALS, X, make, params


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
