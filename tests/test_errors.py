"""Bad input: an error that names the argument, what was expected and what came, before any work is lost."""

import jax
import jax.numpy as jnp
import pytest

import hiwae_jax as hj
from tests.unit_normal import (
    KEY,
    UNIT,
    X,
    base,
    conditional,
    hierarchical_bound,
    identity,
    independent_bound,
    log_joint,
)


def test_unknown_gradient():
    with pytest.raises(ValueError, match=r"gradient: expected one of 'reparameterized', .* got 'dreg'"):
        independent_bound(gradient="dreg")


def test_what_is_no_proposal_weighting_or_function():
    with pytest.raises(TypeError, match=r"proposal: expected what hj.independent, .* return, got function"):
        hj.make_bound(log_joint, conditional)
    with pytest.raises(TypeError, match=r"weighting: expected what .* returns, got float"):
        independent_bound(weighting=1.0)
    with pytest.raises(TypeError, match=r"log_joint: expected a function \(params, x, z\) -> scalar, got int"):
        hj.make_bound(3, hj.independent(conditional, num_samples=3))


@pytest.mark.parametrize("num_samples", [0, -1, 2.5, True, None])
def test_number_of_samples(num_samples):
    with pytest.raises(ValueError, match="num_samples: expected an integer of at least 1"):
        hj.independent(conditional, num_samples=num_samples)


@pytest.mark.parametrize("make", [independent_bound, hierarchical_bound])
def test_keys(make):
    bound = make()
    with pytest.raises(TypeError, match=r"key: expected a typed key from jax.random.key\(seed\), got uint32"):
        bound(None, X, jax.random.PRNGKey(0))
    with pytest.raises(TypeError, match=r"key: expected a typed key .* got int"):
        bound(None, X, 0)
    with pytest.raises(
        ValueError, match=r"key: expected one key \(shape \(\)\) for one example, got keys of shape \(4,\)"
    ):
        bound(None, X, jax.random.split(KEY, 4))


def test_log_joint_must_be_a_scalar_of_floats():
    with pytest.raises(
        ValueError, match=r"log_joint: expected a scalar \(shape \(\)\) for one z of shape \(2,\), got shape \(2,\)"
    ):
        independent_bound(log_joint=lambda params, x, z: -0.5 * z**2)(None, X, KEY)
    with pytest.raises(TypeError, match=r"log_joint: expected a floating-point scalar, got dtype int32"):
        independent_bound(log_joint=lambda params, x, z: jnp.sum(z > 0))(None, X, KEY)
    with pytest.raises(TypeError, match=r"log_joint: expected a scalar array, got NoneType"):
        independent_bound(log_joint=lambda params, x, z: None)(None, X, KEY)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            (jnp.zeros((3, 2)), jnp.ones((3, 2))),
            r"conditional: expected arrays \[D\] for one example, got \(3, 2\), \(3, 2\)",
        ),
        (
            (jnp.zeros(2), jnp.ones(1)),
            r"conditional: expected a pair of arrays of equal shape \[D\], got \(2,\), \(1,\)",
        ),
        ((jnp.zeros(2),), r"conditional: expected a pair of arrays"),
        ((), r"conditional: expected arrays \[D\] for one example, got nothing"),
        ((jnp.zeros(2, jnp.int32), jnp.ones(2)), r"conditional: expected floating-point arrays \[D\], got dtype int32"),
    ],
)
def test_conditional(returned, message):
    with pytest.raises((ValueError, TypeError), match=message):
        independent_bound(lambda params, x: returned)(None, X, KEY)


@pytest.mark.parametrize("shared", [True, False])
def test_shapes_of_the_hierarchical_callables(shared):
    with pytest.raises(ValueError, match=r"base: expected arrays \[D0\] for one example, got \(1, 2\)"):
        hierarchical_bound(base=lambda p, x: (jnp.zeros((1, 2)), jnp.ones((1, 2))), shared=shared)(None, X, KEY)
    with pytest.raises(ValueError, match=r"conditionals: expected arrays \[K, D\] for one example, got \(2,\)"):
        hierarchical_bound(conditionals=lambda p, x, z0: UNIT, shared=shared)(None, X, KEY)
    with pytest.raises(ValueError, match=r"conditionals: expected a pair of arrays of equal shape \[K, D\]"):
        hierarchical_bound(conditionals=lambda p, x, z0: (jnp.zeros((3, 2)), jnp.ones((1, 2))), shared=shared)(
            None, X, KEY
        )
    with pytest.raises(ValueError, match=r"reverse: expected 3 rows, one for each sample, as \[K, D0\]; got \(1, 2\)"):
        hierarchical_bound(reverse=lambda p, x, z: (z[:1], jnp.ones((1, 2))), shared=shared)(None, X, KEY)
    with pytest.raises(ValueError, match=r"reverse: expected \(3, 2\) to match z_0 from base, got \(3, 1\)"):
        hierarchical_bound(reverse=lambda p, x, z: (z[:, :1], jnp.ones((3, 1))), shared=shared)(None, X, KEY)


def test_equal_members_are_given_as_one_row():
    with pytest.raises(
        ValueError, match=r"conditionals: expected 1 rows, .* as \[1, D\] \(num_samples was given: all members"
    ):
        hierarchical_bound(num_samples=3)(None, X, KEY)


def test_free_bits_and_draws():
    with pytest.raises(ValueError, match="free_bits: expected a number of at least 0"):
        hj.make_annealed_objective(log_joint, log_joint, hj.independent(conditional, num_samples=2), free_bits=-0.1)
    log_weights = hj.make_log_weights(log_joint, hj.independent(conditional, num_samples=2))
    with pytest.raises(ValueError, match="num_draws: at least 2"):
        hj.make_log_evidence(log_weights, num_draws=1)


def test_numbers_of_antithetic_and_defensive_samples():
    with pytest.raises(ValueError, match=r"num_samples: antithetic samples come in pairs; .* even number, got 3"):
        hj.antithetic(conditional, num_samples=3)
    for num_broad in (3, 4):
        with pytest.raises(ValueError, match=rf"num_broad: expected fewer than num_samples = 3, got {num_broad}"):
            hj.defensive(conditional, conditional, num_samples=3, num_broad=num_broad)
    with pytest.raises(ValueError, match="num_broad: expected an integer of at least 1, got 0"):
        hj.defensive(conditional, conditional, num_samples=3, num_broad=0)
    narrower = hj.defensive(conditional, lambda p, x: (jnp.zeros(1), jnp.ones(1)), num_samples=3)
    with pytest.raises(ValueError, match=r"broad: expected arrays of the shapes of conditional, .*\(2,\).*\(1,\)"):
        hj.make_bound(log_joint, narrower)(None, X, KEY)


def test_maps_of_a_flow_chain():
    with pytest.raises(TypeError, match=r"maps: expected hj.Bijection\(forward, inverse\) at place 1, got function"):
        hj.flow_chain(base, [hj.Bijection(identity, identity), identity])
    for kept in ([True, True], [False, False], [], [[True, False]]):
        with pytest.raises(ValueError, match=r"kept: expected booleans for D dimensions, some true and some false"):
            hj.coupling_map(lambda params, x, z: (z, z), kept=kept)
    wrong = {
        "no log|det|": lambda params, x, z: z,
        "longer": lambda params, x, z: (jnp.concatenate([z, z]), jnp.zeros(())),
        "log|det| for each dimension": lambda params, x, z: (z, jnp.zeros(2)),
    }
    for function in wrong.values():
        forward = hj.flow_chain(base, [hj.Bijection(function, identity)])
        with pytest.raises(ValueError, match=r"maps\[0\].forward: expected \(point \(2,\), scalar log\|det\|\), got"):
            hj.make_bound(log_joint, forward)(None, X, KEY)
        inverse = hj.flow_chain(base, [hj.Bijection(identity, function)])
        with pytest.raises(ValueError, match=r"maps\[0\].inverse: expected \(point \(2,\), scalar log\|det\|\), got"):
            hj.make_bound(log_joint, inverse, weighting=hj.power_heuristic(1.0))(None, X, KEY)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ((jnp.zeros((3, 2)), jnp.ones((3, 2))), r"loc \[K, D\] and scale_tril \[D, K, K\] .* got \(3, 2\), \(3, 2\)"),
        ((jnp.zeros((3, 2)), jnp.ones((3, 3))), r"got \(3, 2\), \(3, 3\)"),
        ((jnp.zeros((3, 2)), jnp.ones((3, 2, 2))), r"got \(3, 2\), \(3, 2, 2\)"),
        ((jnp.zeros(2), jnp.ones((2, 1, 1))), r"got \(2,\), \(2, 1, 1\)"),
        ((jnp.zeros((3, 2)),), r"got \(3, 2\); nothing is broadcast"),
        ((jnp.zeros((3, 2), jnp.int32), jnp.ones((2, 3, 3))), r"floating-point .* got dtype int32"),
    ],
)
def test_shapes_of_a_joint_gaussian(returned, message):
    with pytest.raises((ValueError, TypeError), match=rf"conditional: expected .*{message}"):
        hj.make_bound(log_joint, hj.joint_gaussian(lambda params, x: returned))(None, X, KEY)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (jnp.zeros(2), r"logits_fn: expected 3 logits \(shape \(3,\)\), one for each member, .* got shape \(2,\)"),
        (jnp.zeros((3, 3)), r"logits_fn: expected 3 logits .* got shape \(3, 3\)"),
        (0.0, r"logits_fn: expected 3 logits .* got shape \(\)"),
        (jnp.zeros(3, jnp.int32), r"logits_fn: expected floating-point logits, got dtype int32"),
    ],
)
def test_logits_of_a_learned_weighting(logits, message):
    weighting = hj.learned_weighting(lambda params, x, z, z0: logits)
    with pytest.raises((ValueError, TypeError), match=message):
        independent_bound(weighting=weighting)(None, X, KEY)


@pytest.mark.parametrize("df", [0.0, -1.0, float("nan"), float("inf")])
def test_degrees_of_freedom(df):
    with pytest.raises(ValueError, match="df: expected a finite number above 0"):
        hj.student_t(df)


@pytest.mark.parametrize("gradient", ["reparameterized", "doubly_reparameterized"])
def test_beta_is_a_scalar(gradient):
    proposal = hj.independent(conditional, num_samples=3)
    objective = hj.make_annealed_objective(log_joint, log_joint, proposal, gradient=gradient)
    with pytest.raises(ValueError, match=r"beta: expected a scalar, got shape \(1,\)"):
        objective(None, X, KEY, jnp.array([0.5]))


@pytest.mark.parametrize("backward_samples", [0, -1, 1.5, True])
def test_number_of_backward_samples(backward_samples):
    with pytest.raises(ValueError, match="backward_samples: expected an integer of at least 1"):
        independent_bound(backward_samples=backward_samples)
