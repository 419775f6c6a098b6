"""Bad input: an error that names the argument, what was expected and what came, before any work is lost."""

import jax
import jax.numpy as jnp
import pytest

import hiwae_jax as hj
from tests.unit_normal import (
    KEY,
    X,
    base,
    conditional,
    conditionals,
    hierarchical_bound,
    identity,
    independent_bound,
    log_joint,
    reverse,
)


def step(params, x, z, number):
    return base(params, x)


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
    with pytest.raises(ValueError, match=r"conditionals: expected a pair of arrays of equal shape \[K, D\]"):
        hierarchical_bound(conditionals=lambda p, x, z0: (jnp.zeros((3, 2)), jnp.ones((1, 2))), shared=shared)(
            None, X, KEY
        )
    with pytest.raises(ValueError, match=r"reverse: expected 3 rows, one for each sample, as \[K, D0\]; got \(1, 2\)"):
        hierarchical_bound(reverse=lambda p, x, z: (z[:1], jnp.ones((1, 2))), shared=shared)(None, X, KEY)
    with pytest.raises(
        ValueError, match=r"reverse: expected rows of \(2,\) to match z_0 from base, got rows of \(1,\)"
    ):
        hierarchical_bound(reverse=lambda p, x, z: (z[:, :1], jnp.ones((3, 1))), shared=shared)(None, X, KEY)


def test_equal_members_are_given_as_one_row():
    with pytest.raises(
        ValueError, match=r"conditionals: expected 1 rows, .* as \[1, D\] \(num_samples was given: all members"
    ):
        hierarchical_bound(num_samples=3)(None, X, KEY)


def test_free_bits_and_draws():
    with pytest.raises(ValueError, match="free_bits: expected a finite number of at least 0"):
        hj.make_annealed_objective(log_joint, log_joint, hj.independent(conditional, num_samples=2), free_bits=-0.1)
    log_weights = hj.make_log_weights(log_joint, hj.independent(conditional, num_samples=2))
    with pytest.raises(ValueError, match="num_draws: expected at least 2"):
        hj.make_log_evidence(log_weights, num_draws=1)


def test_numbers_of_antithetic_and_defensive_samples():
    with pytest.raises(ValueError, match=r"num_samples: expected an even number, .* in pairs, got 3"):
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


def test_a_family_is_a_family():
    for wrong in ((hj.diagonal_gaussian, hj.standard_normal), hj.bernoulli, "student_t"):
        for make in (
            lambda family: hj.independent(conditional, num_samples=3, family=family),
            lambda family: hj.antithetic(conditional, num_samples=4, family=family),
            lambda family: hj.defensive(conditional, conditional, num_samples=3, family=family),
            lambda family: hj.mixture(conditional, num_samples=3, family=family),
            lambda family: hj.hierarchical(base, conditionals, reverse, family=family),
            lambda family: hj.flow_chain(base, [], family=family),
            lambda family: hj.markov(base, step, step, num_samples=2, family=family),
        ):
            with pytest.raises(
                TypeError, match=r"^family: expected hj.diagonal_gaussian, .* or another hj.Family, got"
            ):
                make(wrong)
        with pytest.raises(TypeError, match=r"^base_family: expected hj.diagonal_gaussian"):
            hj.hierarchical(base, conditionals, reverse, base_family=wrong)


def gaussian_of(read, log_prob=None):
    """A family whose parameters are read by a function."""
    normal = hj.diagonal_gaussian
    return hj.Family(
        lambda p, noise: normal.forward(read(p), noise),
        lambda p, z: normal.inverse(read(p), z),
        log_prob or (lambda p, z: normal.log_prob(read(p), z)),
    )


@pytest.mark.parametrize(
    ("family", "parameters", "expected"),
    [
        (hj.student_t(5.0), jnp.ones((2,)), r"\(loc \[D\], scale \[D\]\) for this family, got shapes \(2,\)"),
        (hj.full_rank_gaussian, (jnp.zeros(2), jnp.ones(2)), r"scale_tril \[D, D\]\) for .* \(\(2,\), \(2,\)\)"),
    ],
)
def test_location_and_scale_are_a_pair(family, parameters, expected):
    with pytest.raises(ValueError, match=f"parameters: expected a pair .*{expected}"):
        hj.independent(lambda params, x: parameters, num_samples=4, family=family).draw(None, X, KEY)


def test_the_functions_of_a_family_fit_its_parameters():
    named = gaussian_of(lambda p: (p["loc"], p["factor"] * p["scale"]))
    wide = {"loc": jnp.zeros(2), "scale": jnp.ones(2), "factor": jnp.array([1.2])}  # "factor" is the first by name
    vector = gaussian_of(lambda p: p, log_prob=lambda p, z: -0.5 * ((z - p[0]) / p[1]) ** 2)
    rows = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), wide)
    for arguments, name in (
        ((hj.independent, lambda params, x: wide), "conditional"),
        ((hj.antithetic, lambda params, x: wide), "conditional"),
        ((hj.defensive, lambda params, x: wide, lambda params, x: wide), "conditional"),
        ((hj.markov, lambda params, x: wide, step, step), "base"),
    ):
        make, *callables = arguments
        with pytest.raises(ValueError, match=rf"{name}: expected the first leaf of the parameters .* got \(1,\)"):
            make(*callables, num_samples=4, family=named).draw(None, X, KEY)
    proposal = hj.hierarchical(base, lambda params, x, z0: rows, reverse, family=named)
    with pytest.raises(ValueError, match=r"conditionals: expected the first leaf of the parameters .* got \(1,\)"):
        proposal.draw(None, X, KEY)
    with pytest.raises(
        ValueError, match=r"family.log_prob: expected a scalar for one z of shape \(2,\), got .*sum over"
    ):
        hj.independent(conditional, num_samples=3, family=vector).draw(None, X, KEY)


def test_a_sampler_gives_the_shape_that_it_is_asked_for():
    narrow = lambda key, shape, dtype: jnp.zeros(shape[-1:], dtype)
    for proposal in (
        hj.independent(conditional, num_samples=3, sampler=narrow),
        hj.joint_gaussian(lambda params, x: (jnp.zeros((3, 2)), jnp.stack([jnp.eye(3)] * 2)), sampler=narrow),
        hj.markov(base, step, step, num_samples=3, sampler=narrow),
    ):
        with pytest.raises(ValueError, match=r"sampler: expected noise of the shape asked for, \(3, 2\), got \(2,\)"):
            proposal.draw(None, X, KEY)


def test_a_transition_keeps_the_number_of_dimensions():
    longer = lambda params, x, z, step: (jnp.zeros(3), jnp.ones(3))
    with pytest.raises(
        ValueError, match=r"transition: expected arrays of shape \(2,\), that of z_1 from base, got \(3,\)"
    ):
        hj.markov(base, longer, longer, num_samples=3).draw(None, X, KEY)


def test_the_exponent_of_a_power_heuristic_is_not_traced():
    with pytest.raises(TypeError, match=r"alpha: expected a number that is known when the bound is made, got a traced"):
        jax.jit(lambda alpha: hj.power_heuristic(alpha).alpha)(1.0)
