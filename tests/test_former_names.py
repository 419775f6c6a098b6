"""Names that have been replaced still work, and say by which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj


def test_the_parameters_of_a_draw():
    draw = hj.independent(lambda params, x: (x, jnp.ones(2)), num_samples=3).draw(None, jnp.zeros(2), jax.random.key(0))
    with pytest.warns(DeprecationWarning, match=r"Draw\.members: use Draw\.parameters"):
        assert draw.members is draw.parameters
    with pytest.warns(DeprecationWarning, match=r"Draw\.members: use Draw\.parameters"):
        made = hj.Draw(z=draw.z, members=draw.parameters, context=draw.context)
    assert jax.tree.structure(made) == jax.tree.structure(draw)
    np.testing.assert_array_equal(made.parameters[0], draw.parameters[0])


def test_a_weighting_that_compares_densities():
    for weighting, compares in ((hj.power_heuristic(1.0), True), (hj.uniform_weighting(), False)):
        with pytest.warns(DeprecationWarning, match="use compares_densities"):
            assert weighting.of_densities is weighting.compares_densities is compares


def test_the_traits_of_a_reverse_model():
    proposal = hj.independent(lambda params, x: (x, x), num_samples=3)
    with pytest.warns(DeprecationWarning, match="use reverse_traits"):
        assert proposal.reverse_kind is proposal.reverse_traits is None
