"""Combinations that would give no bound, or not its gradient: refused, and the error says what to take."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests.models import quick_jit
from tests.unit_normal import KEY, X, base, conditional, conditionals, hierarchical_bound, identity, log_joint, reverse

# At these parameters every row is treated alike: only the dependence on the place gives them away.
EMBEDDING = {"embedding": jnp.zeros((3, 2)), "slope": jnp.ones(2)}


def reverse_by_member(params, x, z):
    return z * params["slope"][None] + params["embedding"], jnp.ones_like(z)


@pytest.mark.parametrize("transformed", [False, True])
def test_a_reverse_model_of_each_member_is_refused_under_other_weightings(transformed):
    bound = hierarchical_bound(reverse=reverse_by_member, alpha=1.0)
    if transformed:
        bound = jax.jit(jax.vmap(jax.grad(bound), in_axes=(None, 0, 0)))
        arguments = EMBEDDING, X[None], KEY[None]
    else:
        arguments = EMBEDDING, X, KEY
    with pytest.raises(ValueError, match=r"reverse: gives different rows for the same z.*hj.uniform_weighting"):
        bound(*arguments)


def test_a_reverse_model_of_each_member_is_welcome_under_the_uniform_weighting():
    assert np.isfinite(quick_jit(hierarchical_bound(reverse=reverse_by_member))(EMBEDDING, X, KEY))


def test_a_common_reverse_model_with_fixed_rows_is_welcome_under_every_weighting():
    def fixed(params, x, z):
        return jnp.zeros((3, 2)) + params["slope"][None], jnp.full((3, 2), 0.5)

    assert np.isfinite(quick_jit(hierarchical_bound(reverse=fixed, alpha=1.0))(EMBEDDING, X, KEY))


def test_what_cannot_be_tried_out_is_let_through():
    """Parameters from an enclosing transformation: the check has nothing concrete to look at and says nothing."""

    def outer(params):
        bound = hierarchical_bound(reverse=lambda _, x, z: reverse_by_member(params, x, z), alpha=1.0)
        return bound(None, X, KEY)

    assert np.isfinite(jax.jit(outer)(EMBEDDING))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_reverse_model_may_branch_on_a_number_among_the_parameters(alpha):
    def reverse(params, x, z):
        return (z if params["layers"] > 1 else 0.5 * z), jnp.ones_like(z)

    assert np.isfinite(hierarchical_bound(reverse=reverse, alpha=alpha)({"layers": 2}, X, KEY))


def sizes_of_the_context(params, x, z):
    return z.reshape(-1, x["size"]), jnp.ones_like(z)


def positive_only(params, x, z):
    return z * jnp.sqrt(params["positive"]), jnp.ones_like(z)


def concrete_only(params, x, z):
    if isinstance(params["positive"], jax.core.Tracer):
        raise RuntimeError("expected a number, got a tracer")
    return z * params["positive"], jnp.ones_like(z)


@pytest.mark.parametrize("reverse", [sizes_of_the_context, positive_only, concrete_only])
def test_a_reverse_model_that_cannot_be_tried_out_on_other_numbers_is_welcome(reverse):
    bound = hierarchical_bound(
        base=lambda params, x: (jnp.zeros(2), jnp.ones(2)),
        reverse=reverse,
        context=lambda params, x: {"features": x, "size": 2},
    )
    with jax.debug_nans(True):
        assert np.isfinite(bound({"positive": jnp.array([2.0])[0]}, X, KEY))


def test_a_learned_weighting_is_a_function():
    with pytest.raises(
        TypeError, match=r"logits_fn: expected a function \(params, x, z, z0\) -> \[K\] logits, got Array"
    ):
        hj.learned_weighting(jnp.zeros(3))


def test_a_reverse_model_of_each_member_is_refused_under_a_learned_weighting():
    proposal = hj.hierarchical(base, conditionals, reverse_by_member)
    bound = hj.make_bound(log_joint, proposal, weighting=hj.learned_weighting(lambda params, x, z, z0: jnp.zeros(3)))
    with pytest.raises(ValueError, match="reverse: gives different rows for the same z"):
        bound(EMBEDDING, X, KEY)


def markov_step(params, x, z, step):
    return z, jnp.ones_like(z)


MARKOV = hj.markov(base, markov_step, markov_step, num_samples=3)
JOINT = hj.joint_gaussian(lambda params, x: (jnp.zeros((3, 2)), jnp.stack([jnp.eye(3)] * 2)))
WITHOUT_DENSITY = {
    "antithetic": (hj.antithetic(conditional, num_samples=4), "functions of one another"),
    "flow chain": (hj.flow_chain(base, [hj.Bijection(identity, identity)]), "functions of one another"),
    "markov": (MARKOV, "conditioned by one another"),
}


@pytest.mark.parametrize("name", WITHOUT_DENSITY)
@pytest.mark.parametrize("gradient", ["doubly_reparameterized", "refilled", "path_squared", "authors"])
def test_estimators_that_need_a_density_of_the_samples_are_refused_without_one(name, gradient):
    proposal, reason = WITHOUT_DENSITY[name]
    with pytest.raises(ValueError, match=rf"gradient: '{gradient}' is not valid .* {reason}.*'reparameterized'"):
        hj.make_bound(log_joint, proposal, gradient=gradient)


RECOMMENDED = {name: (proposal, "reparameterized") for name, (proposal, _) in WITHOUT_DENSITY.items()}
RECOMMENDED["joint Gaussian"] = JOINT, "reparameterized"
for title, dense in {
    "independent": hj.independent(lambda params, x: (x, jnp.ones(2)), num_samples=3),
    "hierarchical": hj.hierarchical(lambda params, x: (x, jnp.ones(2)), conditionals, reverse),
    "defensive": hj.defensive(
        lambda params, x: (x, jnp.ones(2)), lambda params, x: (x, 2.0 * jnp.ones(2)), num_samples=3
    ),
    "mixture": hj.mixture(lambda params, x: (jnp.stack([x, -x, 0.5 * x]), jnp.ones((3, 2))), num_samples=2),
}.items():
    RECOMMENDED[title] = dense, "doubly_reparameterized"


@pytest.mark.parametrize("name", RECOMMENDED)
def test_the_recommended_gradient_is_valid_for_every_proposal(name):
    proposal, gradient = RECOMMENDED[name]
    both = [jax.grad(hj.make_bound(log_joint, proposal, gradient=g), argnums=1) for g in (None, gradient)]
    ours, expected = quick_jit(lambda x: [function(None, x, KEY) for function in both])(X)
    np.testing.assert_array_equal(ours, expected)


def test_estimators_of_independent_samples_are_refused_for_correlated_ones():
    for gradient in ("refilled", "path_squared", "authors"):
        with pytest.raises(ValueError, match=rf"gradient: '{gradient}' needs samples that .* 'doubly_reparameterized'"):
            hj.make_bound(log_joint, JOINT, gradient=gradient)


def test_a_power_heuristic_is_refused_where_members_have_no_densities_in_common():
    for make in (hj.make_bound, hj.make_log_weights):
        with pytest.raises(ValueError, match=r"weighting: .*conditioned by one another.*hj.uniform_weighting\(\)"):
            make(log_joint, MARKOV, weighting=hj.power_heuristic(1.0))


def test_the_refilled_estimator_is_refused_with_free_bits_where_it_would_be_biased():
    def objective(alpha, **options):
        return hj.make_annealed_objective(
            log_joint,
            log_joint,
            hj.hierarchical(base, conditionals, reverse),
            weighting=hj.power_heuristic(alpha),
            free_bits=0.5,
            **options,
        )

    with pytest.raises(ValueError, match=r"gradient: 'refilled' is not unbiased with free bits.*doubly_reparam"):
        objective(1.0, gradient="refilled")
    objective(0.0, gradient="refilled")  # no refills under the uniform weighting
    objective(1.0)  # the recommended one is valid


def test_the_refilled_estimator_needs_a_proposal_that_draws_twice():
    proposal = hj.hierarchical(base, conditionals, reverse)._replace(refills=False)
    with pytest.raises(ValueError, match=r"gradient: 'refilled' needs a proposal that can draw every sample a second"):
        hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(1.0), gradient="refilled")
    hj.make_bound(log_joint, proposal, gradient="refilled")  # the uniform weighting needs no second draw


def test_what_was_drawn_takes_the_place_of_a_key_where_it_is_enough():
    proposal = hj.hierarchical(base, conditionals, reverse)
    drawn = proposal.draw(None, X, jax.random.key(0))
    options = {"weighting": hj.power_heuristic(1.0)}
    with pytest.raises(ValueError, match=r"key: .* bound\.draw\(params, x, key\) .*lacks the refills"):
        hj.make_bound(log_joint, proposal, gradient="refilled", **options)(None, X, drawn)
    with pytest.raises(ValueError, match=r"key: .*lacks the choice of backward_samples"):
        hj.make_bound(log_joint, proposal, backward_samples=1, **options)(None, X, drawn)
    bound = hj.make_bound(log_joint, proposal, **options)
    assert bound(None, X, drawn) == bound(None, X, jax.random.key(0))


def mean_of_rows(params, x, z):
    return jnp.broadcast_to(jnp.mean(z, axis=0), z.shape), jnp.ones_like(z)


def rows_before(params, x, z):
    return jnp.cumsum(z, axis=0), jnp.ones_like(z)


def rows_after(params, x, z):
    return z, jnp.exp(0.1 * jnp.cumsum(z[::-1], axis=0)[::-1])


def row_in_the_middle(params, x, z):
    return z.at[1].add(z[2]), jnp.ones_like(z)


@pytest.mark.parametrize("mixing", [mean_of_rows, rows_before, rows_after, row_in_the_middle])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("shared", [True, False])
def test_a_reverse_model_that_mixes_samples_is_refused_under_every_weighting(mixing, alpha, shared):
    with pytest.raises(ValueError, match=r"reverse: row j changes with samples other than z\[j\]"):
        hierarchical_bound(reverse=mixing, alpha=alpha, shared=shared)(None, X, KEY)


# What a rectifier or a threshold hides near zero, of a few units or of a few dozen.
FURTHER_OUT = {
    "rectified": lambda z: jax.nn.relu(z - 2.0),
    "rectified below": lambda z: jax.nn.relu(-z - 2.0),
    "beyond one": lambda z: jnp.where(jnp.abs(z) > 1.0, z, 0.0),
    "beyond twenty": lambda z: jnp.where(jnp.abs(z) > 20.0, 1.0, 0.0),
    "saturated": lambda z: jax.nn.sigmoid(z - 12.0),
}


@pytest.mark.parametrize("name", FURTHER_OUT)
def test_a_reverse_model_that_mixes_samples_only_far_out_is_refused(name):
    def mixing(params, x, z):
        return z + jnp.mean(FURTHER_OUT[name](z), axis=0, keepdims=True), jnp.ones_like(z)

    with pytest.raises(ValueError, match=r"reverse: row j changes with samples other than z\[j\]"):
        hierarchical_bound(reverse=mixing)(None, X, KEY)


@pytest.mark.parametrize("name", FURTHER_OUT)
def test_a_reverse_model_that_tells_members_apart_only_far_out_is_refused(name):
    def by_member(params, x, z):
        return z + jnp.arange(3.0)[:, None] * 10.0 * FURTHER_OUT[name](z), jnp.ones_like(z)

    with pytest.raises(ValueError, match=r"reverse: gives different rows for the same z"):
        hierarchical_bound(reverse=by_member, alpha=1.0)(None, X, KEY)


def traits_of(reverse, shape):
    """What the trial says: whether rows know one another, whether they are alike."""
    return tuple(hj.hierarchical(base, conditionals, reverse).reverse_traits(None, None, jnp.zeros(shape)))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_of_one_number_both_signs_are_tried(sign):
    hidden = lambda params, x, z: (z + jnp.arange(3.0)[:, None] * jax.nn.relu(sign * z - 2.0), jnp.ones_like(z))
    assert traits_of(hidden, (3, 1)) == (True, False)


@pytest.mark.parametrize(("share", "alike"), [(0.01, True), (0.3, False)])
def test_far_out_places_may_differ_by_as_much_as_large_numbers_are_rounded(share, alike):
    rounds = lambda params, x, z: (z + share * jnp.arange(3.0)[:, None] * FURTHER_OUT["rectified"](z), jnp.ones_like(z))
    assert traits_of(rounds, (3, 1)) == (True, alike)


def test_a_reverse_model_that_overflows_far_out_is_welcome_and_seen_nearby():
    weights = np.random.default_rng(0).normal(size=(3, 2, 64, 64)).astype(np.float32)

    def overflows(params, x, z):
        return jnp.exp(z**3) * z, jnp.exp(0.5 * z)

    def network(params, x, z):
        hidden = jnp.tile(z, 32)
        for layer in weights:
            hidden = jax.nn.relu(hidden @ layer[0] + 1.0) @ layer[1]
        return hidden[:, :2], jnp.exp(1e-5 * hidden[:, 2:4])

    for model in (overflows, network):
        assert traits_of(model, (3, 2)) == (True, True)


def shifted_lattice(key, shape, dtype):
    """Quasi-random noise: every row is standard normal, and no two are independent."""
    places = jnp.arange(shape[0])[:, None] / shape[0] + jax.random.uniform(key, (1, shape[1]))
    return jax.scipy.special.ndtri(jnp.clip(places % 1.0, 1e-6, 1.0 - 1e-6)).astype(dtype)


def test_a_sampler_of_the_callers_makes_the_plain_gradient_the_default():
    """Which is unbiased whatever the noise is; the others need noise that is independent from sample to sample."""
    params = {"loc": jnp.array([0.5]), "log_scale": jnp.array([-0.3])}
    keys = jax.random.split(KEY, 20_000)
    proposal = hj.independent(lambda p, x: (p["loc"], jnp.exp(p["log_scale"])), num_samples=4, sampler=shifted_lattice)
    names = (None, "reparameterized", "doubly_reparameterized")
    bounds = [hj.make_bound(log_joint, proposal, gradient=name) for name in names]

    @quick_jit
    def results(params, keys):
        return [jax.vmap(jax.value_and_grad(bound), in_axes=(None, None, 0))(params, None, keys) for bound in bounds]

    (_, default), (_, plain), (_, doubly) = results(params, keys)
    chex.assert_trees_all_equal(default, plain)
    # The same noise moved by a little: exact up to the step.
    step = 1e-2
    moved = ({**params, "loc": params["loc"] + sign * step} for sign in (1.0, -1.0))
    up, down = (np.mean(np.asarray(results(near, keys)[0][0], np.float64)) for near in moved)
    slope = (up - down) / (2.0 * step)
    np.testing.assert_allclose(np.mean(np.asarray(plain["loc"])), slope, rtol=2e-2)
    assert abs(np.mean(np.asarray(doubly["loc"])) - slope) > 0.1 * abs(slope)
    # Noise that belongs to the family is independent.
    family = hj.diagonal_gaussian._replace(sampler=lambda key, shape, dtype: jax.random.normal(key, shape, dtype))
    proposal = hj.independent(lambda p, x: (p["loc"], jnp.exp(p["log_scale"])), num_samples=4, family=family)
    both = [jax.grad(hj.make_bound(log_joint, proposal, gradient=name)) for name in (None, "doubly_reparameterized")]
    ours, expected = quick_jit(lambda params: [gradient(params, None, KEY) for gradient in both])(params)
    chex.assert_trees_all_equal(ours, expected)
