"""Discrete latents, bad input: errors that name the argument, what was expected and what came."""

import typing

import jax
import jax.numpy as jnp
import pytest

from hiwae_jax._discrete.bound import DiscreteFamily, DiscreteGradientName, bernoulli, categorical
from hiwae_jax._discrete.score_function import SIGNALS, vimco
from tests.discrete.small_bound import KEY, PARAMS, X, small_bound


def test_what_is_no_function_family_or_gradient():
    with pytest.raises(ValueError, match=r"gradient: expected one of 'score_function', 'vimco', .* got 'reinforce'"):
        small_bound("reinforce")
    with pytest.raises(TypeError, match=r"family: expected hj.bernoulli, hj.categorical or a DiscreteFamily, got str"):
        small_bound(family="bernoulli")
    with pytest.raises(TypeError, match=r"log_joint: expected a function .* got int"):
        small_bound(log_joint=3)
    with pytest.raises(TypeError, match=r"conditional: expected a function .* got float"):
        small_bound(conditional=0.5)


def test_a_checker_of_types_knows_the_names_of_the_gradients():
    assert typing.get_args(DiscreteGradientName) == tuple(SIGNALS)


def test_number_of_samples():
    with pytest.raises(ValueError, match=r"num_samples: expected an integer of at least 1, got 0"):
        small_bound(num_samples=0)
    with pytest.raises(ValueError, match=r'num_samples: vimco .* at least 2, got 1; .*gradient="score_function"'):
        small_bound(num_samples=1)
    with pytest.raises(ValueError, match=r"log_weights: vimco compares .* at least 2, got 1"):
        vimco(jnp.zeros((3, 1)), jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"log_proposal: expected one log-density .* shape \(3,\), got \(2,\)"):
        vimco(jnp.zeros(3), jnp.zeros(2))


@pytest.mark.parametrize("family", [bernoulli, categorical])
def test_keys(family):
    logits = jnp.zeros((3, 2)[: 1 + (family is categorical)])
    bound = small_bound(family=family, conditional=lambda params, x: logits)
    with pytest.raises(TypeError, match=r"key: expected a typed key from jax.random.key\(seed\), got uint32"):
        bound(PARAMS, X, jax.random.PRNGKey(0))
    with pytest.raises(TypeError, match=r"key: expected a typed key .* got int"):
        bound(PARAMS, X, 0)
    with pytest.raises(ValueError, match=r"key: expected one key \(shape \(\)\) for one example, got .* shape \(4,\)"):
        bound(PARAMS, X, jax.random.split(KEY, 4))


def trace(bound):
    return jax.eval_shape(lambda: bound(PARAMS, X, KEY))


def test_shapes_and_dtypes():
    with pytest.raises(ValueError, match=r"parameters: expected one array of logits \[D\] .* got shape \(2, 3\)"):
        trace(small_bound(conditional=lambda params, x: jnp.zeros((2, 3))))
    with pytest.raises(ValueError, match=r"parameters: expected one array of logits \[D, C\] .* got shape \(3,\)"):
        trace(small_bound(family=categorical))
    with pytest.raises(ValueError, match=r"parameters: expected one array of logits \[D\] for one example, got tuple"):
        trace(small_bound(conditional=lambda params, x: (jnp.zeros(3), jnp.ones(3))))
    with pytest.raises(TypeError, match=r"parameters: expected floating-point logits \[D\], got dtype int32"):
        trace(small_bound(conditional=lambda params, x: jnp.arange(3)))
    with pytest.raises(ValueError, match=r"z: expected shape \(1,\) as the logits have, got \(3,\)"):
        trace(small_bound(log_joint=lambda params, x, z: bernoulli.log_prob(jnp.zeros(1), z)))
    with pytest.raises(ValueError, match=r"log_joint: expected a scalar .* z of shape \(3,\), got shape \(3,\)"):
        trace(small_bound(log_joint=lambda params, x, z: z))
    short = DiscreteFamily(lambda key, parameters, num_samples: jnp.zeros((2, 3)), bernoulli.log_prob)
    with pytest.raises(ValueError, match=r"family.sample: expected 4 samples along the first axis, got shape \(2, 3\)"):
        trace(small_bound(family=short))
    long = bernoulli._replace(log_prob=lambda parameters, z: z)
    with pytest.raises(ValueError, match=r"family.log_prob: expected a scalar .* got shape \(3,\)"):
        trace(small_bound(family=long))
