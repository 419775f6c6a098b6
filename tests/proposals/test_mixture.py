"""K of M members: which are picked, `E[sum_j w_j] = p(x)` and gradients by enumeration of the picks, absent members."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from hiwae_jax._proposals.picks import SCHEMES, Picked
from tests import models
from tests.gradients import paired_draws
from tests.proposals import mixtures
from tests.proposals.mixtures import ALL, DRAWS, TWO, X

PLAIN, DEFAULT, SCORE = "reparameterized", "doubly_reparameterized", "score_function"
TOLERANCE, WRONG_BY = 3e-5, 3e-4


@pytest.mark.parametrize("draw", DRAWS)
def test_members_are_picked_as_often_as_the_scheme_says(draw):
    """Against the enumeration: the frequency of every outcome, and K / m picks of every member present on average."""
    keys = jax.random.split(jax.random.key(5), 20_000)
    cases = [(3, ALL), (3, TWO), (5, (True, False, True, True)), (2, ALL)]

    @models.quick_jit
    def pick(keys):
        of_each = lambda K, mask: jax.vmap(lambda key: SCHEMES[draw].pick(key, jnp.array(mask), K))(keys)
        return [of_each(*case) for case in cases]

    for (K, mask), found in zip(cases, pick(keys), strict=True):
        outcomes, probabilities = mixtures.all_picks(draw, K, mask)
        assert probabilities.sum() == pytest.approx(1.0)
        found = np.asarray(found)
        times = np.stack([(outcomes == i).sum(axis=1) for i in range(len(mask))])
        np.testing.assert_allclose(times @ probabilities, np.array(mask) * K / np.sum(mask), atol=1e-12)
        weights = len(mask) ** np.arange(K)
        seen = np.bincount(found @ weights, minlength=len(mask) ** K)
        assert seen[outcomes @ weights].sum() == len(keys)  # nothing else is ever picked
        frequency = seen[outcomes @ weights] / len(keys)
        error = np.sqrt(probabilities * (1.0 - probabilities) / len(keys))
        assert np.all(np.abs(frequency - probabilities) <= 4.5 * error)


@pytest.mark.parametrize("draw", DRAWS[:2])
def test_slots_are_those_of_the_enumeration(draw):
    """`own[j]`: the law of pick j given all others; and every score at sample j has samples that bear it."""
    for K, mask in ((3, ALL), (3, TWO), (5, (True, False, True, True)), (4, ALL)):
        outcomes, probabilities = mixtures.all_picks(draw, K, mask)
        of_one = lambda picks, mask=mask: SCHEMES[draw].slots(Picked(jnp.zeros((4, 1)), picks, jnp.array(mask)), float)
        for picks, own, lent, pairs in zip(outcomes, *jax.jit(jax.vmap(of_one))(jnp.array(outcomes)), strict=True):
            np.testing.assert_allclose(own + pairs @ lent, np.tile(mask, (K, 1)).astype(float), atol=1e-12)
            for j in range(K):
                law = _law_of_one(draw, outcomes, probabilities, picks, j)
                np.testing.assert_allclose(own[j] / jnp.sum(own[j]), law, atol=1e-12)


def test_independent_picks_have_no_slots():
    assert SCHEMES["with_replacement"].slots is None


def _law_of_one(draw, outcomes, probabilities, picks, j):
    """The law of pick j given the others; without replacement their order says nothing."""
    law = np.zeros(mixtures.M)
    for other, probability in zip(outcomes, probabilities, strict=True):
        if draw == "stratified":
            if np.array_equal(np.delete(other, j), np.delete(picks, j)):
                law[other[j]] += probability
            continue
        left = list(other)
        try:
            for pick in np.delete(picks, j):
                left.remove(pick)
        except ValueError:
            continue
        law[left[0]] += probability * (np.asarray(other) == left[0]).sum()  # in as many places
    return law / law.sum()


def mean_over_picks(function, draw, K, masks, nodes):
    """`E[function(params, x, picks, noise)]` over picks and noise, for each mask; one program for all."""
    points, weights = models.quadrature(K, nodes)

    @models.quick_jit
    def mean(params, mask, picks):
        of_points = jax.vmap(lambda noise: function(params, (jnp.asarray(X), mask), picks, noise))
        return jax.tree.map(lambda rows: jnp.tensordot(weights, rows, 1), of_points(points))

    def of_mask(mask):
        picks, probabilities = mixtures.all_picks(draw, K, mask)
        rows = [mean(mixtures.params(), jnp.array(mask), jnp.array(one)) for one in picks]
        return jax.tree.map(lambda *leaves: np.tensordot(probabilities, np.stack(leaves), 1), *rows)

    return [of_mask(mask) for mask in masks]


@pytest.mark.parametrize("draw", DRAWS)
def test_the_weights_integrate_to_the_evidence(draw):
    proposal = mixtures.proposal(draw, 2)
    log_weights = hj.make_log_weights(mixtures.log_joint, proposal)

    def total(params, x, picks, noise):
        return jnp.sum(jnp.exp(log_weights(params, x, mixtures.drawn(proposal, params, x, picks, noise))))

    evidence = models.scalar_evidence(mixtures.params())
    np.testing.assert_allclose(mean_over_picks(total, draw, 2, (ALL, TWO), 32), evidence, rtol=1e-4)


def test_strata_of_unequal_size_would_not_go_with_these_weights():
    """The control: one stratum of one member and one of three, and a pick from each."""
    proposal = mixtures.proposal("stratified", 2)
    log_weights = hj.make_log_weights(mixtures.log_joint, proposal)
    x, (points, weights) = (jnp.asarray(X), jnp.array(ALL)), models.quadrature(2, 32)

    @models.quick_jit
    def mean(params, picks):
        total = lambda noise, picks: jnp.sum(
            jnp.exp(log_weights(params, x, mixtures.drawn(proposal, params, x, picks, noise)))
        )
        return jax.vmap(lambda picks: weights @ jax.vmap(total, (0, None))(points, picks))(picks)

    found = np.mean(mean(mixtures.params(), jnp.array([(0, 1), (0, 2), (0, 3)])))
    assert abs(found / models.scalar_evidence(mixtures.params()) - 1.0) > 0.01


# With three samples a phantom is made of two weights. With two members present, one of them has two samples.
CASES = [
    ("without_replacement", 3, (ALL, TWO), (DEFAULT, SCORE)),
    ("stratified", 3, (ALL,), (DEFAULT,)),
    ("with_replacement", 2, (TWO,), (DEFAULT,)),
]


@pytest.mark.parametrize(("draw", "K", "masks", "gradients"), CASES, ids=DRAWS)
def test_gradients_are_unbiased_by_enumeration_and_quadrature(draw, K, masks, gradients):
    """Beside them, as a control, the rule of own paths with squared weights, as if the picks were independent."""
    proposal = mixtures.proposal(draw, K)
    unshared = proposal._replace(members=proposal.members._replace(slots=None))
    rules = {gradient: (proposal, gradient) for gradient in (PLAIN, *gradients)}
    if draw == "without_replacement":
        rules["own paths"] = unshared, DEFAULT

    def values_and_gradients(params, x, picks, noise):
        found = {}
        for name, (one, gradient) in rules.items():
            objective = hj.make_annealed_objective(
                mixtures.log_likelihood, models.scalar_log_prior, one, gradient=gradient
            )
            of = lambda params, one=one, objective=objective: objective(
                params, x, mixtures.drawn(one, params, x, picks, noise), 0.7
            )
            value, gradient = jax.value_and_grad(of)(params)
            found[name] = value, ravel_pytree(gradient)[0]
        return found

    for means in mean_over_picks(values_and_gradients, draw, K, masks, 20 if K == 3 else 24):
        value, plain = means.pop(PLAIN)
        assert np.max(np.abs(plain)) > 0.05
        for name, (other_value, gradient) in means.items():
            assert other_value == pytest.approx(value, rel=1e-12)
            error = np.max(np.abs(gradient - plain))
            assert error > WRONG_BY if name == "own paths" else error < TOLERANCE, (name, error)


def many(params, x):
    """Six members in three dimensions, from the parameters of the paired tests."""
    loc = jnp.concatenate([params["shift"], params["loc"][:2, :, 0]]) + (params["loc"][0] @ x)[None]
    return loc, jnp.exp(0.4 * jnp.tanh(jnp.concatenate([params["scale"][..., 0], params["scale"][2:, :, 1]])))


@pytest.mark.parametrize(("draw", "setting"), [(DRAWS[0], {"free_bits": 0.4, "betas": (0.3,)}), (DRAWS[1], {})])
def test_the_default_is_unbiased_and_less_noisy_in_more_dimensions(draw, setting):
    """Paired draws of four of six members, with free bits too."""
    proposal, pairs = hj.mixture(many, num_samples=4, draw=draw), [(paired_draws.DEFAULT, paired_draws.PLAIN)]
    ((z, ratio),) = paired_draws.comparisons(pairs, alpha=0.0, proposal=proposal, draws=6_000, **setting).values()
    assert z < paired_draws.LARGEST_Z
    assert "free_bits" in setting or ratio < 0.9


def test_the_default_gradient_vanishes_where_the_bound_is_tight():
    """The target is the mixture itself: every draw has equal weights, and a gradient of zero; the plain one has not."""
    fixed, x = mixtures.params(), (jnp.asarray(X), jnp.array(ALL))

    def log_joint(params, x, z):
        rows = mixtures.conditional(fixed, x)
        return jax.nn.logsumexp(jax.vmap(hj.diagonal_gaussian.log_prob, in_axes=(0, None))(rows, z)) - jnp.log(4.0)

    @models.quick_jit
    def gradients(params):
        of = lambda draw, K, rule: jax.grad(hj.make_bound(log_joint, mixtures.proposal(draw, K), gradient=rule))
        cases = [(DRAWS[0], 2, PLAIN), (DRAWS[0], 2, DEFAULT), (DRAWS[1], 3, DEFAULT)]
        return [of(*case)(params, x, jax.random.key(0)) for case in cases]

    plain, *ours = (np.abs(ravel_pytree(gradient)[0]).max() for gradient in gradients(fixed))
    assert plain > 0.1
    assert max(ours) < 1e-12


def fixed_noise(key, shape, dtype):
    """The same for every proposal."""
    return jnp.sin(7.0 * jnp.arange(np.prod(shape), dtype=dtype) + 0.4).reshape(shape)


def test_all_members_without_replacement_are_the_balance_heuristic():
    """The hierarchical proposal whose z_0 does nothing, under `power_heuristic(1)`: values and gradients."""
    D = 2
    rows = lambda params: (params["loc"], jnp.exp(params["log_scale"]))
    base = lambda params, x: (jnp.zeros(D), jnp.ones(D))
    reverse = lambda params, x, z: (jnp.zeros_like(z), jnp.ones_like(z))
    late = lambda key, shape, dtype: jnp.concatenate([jnp.zeros(D, dtype), fixed_noise(key, (shape[0] - D,), dtype)])
    ours = hj.mixture(lambda params, x: rows(params), num_samples=3, sampler=fixed_noise)
    theirs = hj.hierarchical(base, lambda params, x, z0: rows(params), reverse, sampler=late)
    log_joint = lambda params, x, z: -0.5 * jnp.sum((z - x) ** 2) + jnp.sum(jnp.sin(z))
    params = {"loc": jnp.array([[0.5, -1.0], [0.1, 0.3], [-0.6, 0.2]]), "log_scale": 0.1 * jnp.ones((3, D))}

    @models.quick_jit
    def both(params):
        bounds = hj.make_bound(log_joint, ours), hj.make_bound(log_joint, theirs, weighting=hj.power_heuristic(1.0))
        return [jax.value_and_grad(bound)(params, jnp.ones(D), jax.random.key(0)) for bound in bounds]

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), *both(params))


@pytest.mark.parametrize(("draw", "gradient"), list(zip(DRAWS, (DEFAULT, SCORE, DEFAULT), strict=True)))
def test_absent_members_are_as_if_they_were_not_there(draw, gradient):
    """The same bits of value and gradient as without their rows, which hold NaN; and no gradient reaches them."""
    K, mask, kept = 3, (False, True, True, False), jnp.array([1, 2])
    log_joint = lambda params, x, z: -0.5 * jnp.sum((z - 0.3) ** 2) + params["slope"] * z[0]
    row = jnp.arange(4.0)
    params = {"loc": 0.4 * row, "log_scale": -0.1 * row, "slope": jnp.asarray(0.3)}
    broken = {**params, "loc": jnp.where(jnp.array(mask), params["loc"], jnp.nan)}
    rows = lambda params, index: (params["loc"][index, None], jnp.exp(params["log_scale"][index, None]))
    masked = hj.mixture(
        lambda params, x: rows(params, jnp.arange(4)),
        num_samples=K,
        draw=draw,
        present=lambda params, x: jnp.array(mask),
    )
    alone = hj.mixture(lambda params, x: rows(params, kept), num_samples=K, draw=draw)

    @models.quick_jit
    def both(key):
        def of(proposal, picks):
            bound = hj.make_bound(log_joint, proposal, gradient=gradient)

            def value(params):
                return bound(params, None, mixtures.drawn(proposal, params, None, picks, jnp.array([0.3, -0.7, 1.1])))

            return jax.value_and_grad(value)(params if proposal is alone else broken)

        picks = alone.draw(params, None, key).parameters.picks
        return picks, masked.draw(broken, None, key).parameters.picks, of(alone, picks), of(masked, kept[picks])

    picks, among_all, (value, expected), (of_masked, gradient_of_masked) = both(jax.random.key(4))
    assert set(np.asarray(among_all)) <= {1, 2}
    assert len(picks) == K
    np.testing.assert_allclose(of_masked, value, rtol=1e-13)
    for name in params:
        np.testing.assert_allclose(gradient_of_masked[name], expected[name], rtol=1e-11, atol=1e-15)
    np.testing.assert_array_equal(gradient_of_masked["loc"][jnp.array([0, 3])], 0.0)


@pytest.mark.parametrize(("draw", "gradient"), [("stratified", DEFAULT), ("without_replacement", SCORE)])
def test_an_example_without_members_has_a_bound_of_minus_infinity_and_no_gradient(draw, gradient):
    """Beside others in a batch, whose gradients are finite. The rows of absent members hold NaN."""

    def rows(params, x):
        return jax.tree.map(lambda leaf: jnp.where(x[1][:, None], leaf, jnp.nan), mixtures.conditional(params, x))

    masks = jnp.array([(False,) * 4, (False, False, True, False), ALL])
    proposal = hj.mixture(rows, num_samples=2, draw=draw, present=mixtures.present)
    bound = hj.make_bound(mixtures.log_joint, proposal, gradient=gradient)
    one = lambda params, mask: bound(params, (jnp.asarray(X), mask), jax.random.key(0))
    values, gradients = models.quick_jit(jax.vmap(jax.value_and_grad(one), (None, 0)))(mixtures.params(), masks)
    assert values[0] == -np.inf
    assert np.all(np.isfinite(values[1:]))
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(leaf[0], 0.0)
        assert np.all(np.isfinite(leaf))


def test_chunks_and_batches_change_nothing_but_rounding():
    family = hj.Family(*hj.diagonal_gaussian)  # another family to the library, without products for pairs
    proposal = hj.mixture(mixtures.conditional, num_samples=5, present=mixtures.present, family=family)
    batch = jnp.asarray(np.array([[0.7], [-0.2], [0.1]])), jnp.array([ALL, TWO, TWO])
    key = jax.random.key(0)
    whole, chunked = (hj.make_bound(mixtures.log_joint, proposal, chunk_size=size) for size in (None, 2))

    @models.quick_jit
    def compare(params):
        mean = lambda params: jnp.mean(jax.vmap(whole, (None, 0, 0))(params, batch, jax.random.split(key, 3)))
        batched = hj.batched_value_and_grad(chunked, draw=chunked.draw, chunk_size=2)
        return jax.value_and_grad(mean)(params), batched(params, batch, key)

    expected, found = compare(mixtures.params())
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-13), found, expected)


def test_log_evidence_of_a_mixture_and_whether_its_samples_are_independent():
    model = models.LinearGaussian(seed=2)
    scale = 1.2 * np.sqrt(np.diag(model.posterior_cov))
    shifts = np.array([[0.4, 0.0, -0.3], [-0.4, 0.2, 0.0], [0.0, -0.3, 0.3], [0.1, 0.1, -0.1]])
    rows = jnp.asarray(model.posterior_mean + shifts), jnp.asarray(np.tile(scale, (4, 1)))
    for draw in DRAWS:
        log_weights = hj.make_log_weights(model.log_joint, hj.mixture(lambda p, x: rows, num_samples=3, draw=draw))
        assert log_weights.independent_samples is (draw == "with_replacement")
        if draw == "stratified":
            evidence = hj.make_log_evidence(log_weights, num_draws=4_000, chunk_size=500)
            result = models.quick_jit(evidence)(None, jnp.asarray(model.x), jax.random.key(0))
            assert abs(result.estimate - model.log_evidence) < 4.0 * result.standard_error < 0.1


def test_what_is_not_valid_is_refused_by_name():
    log_joint, rows = lambda params, x, z: jnp.sum(z), lambda params, x: (jnp.zeros((3, 2)), jnp.ones((3, 2)))
    for draw in DRAWS:
        proposal = hj.mixture(rows, num_samples=2, draw=draw)
        hj.make_bound(log_joint, proposal, weighting=hj.uniform_weighting())
        for weighting in (hj.power_heuristic(1.0), hj.learned_weighting(lambda params, x, z, z0: jnp.zeros(2))):
            for make in (hj.make_bound, hj.make_log_weights):
                with pytest.raises(
                    ValueError, match=r"weighting: expected none .* density of all members.*leave it out"
                ):
                    make(log_joint, proposal, weighting=weighting)
        for gradient in ("refilled", "path_squared", "authors"):
            if draw == "with_replacement":
                hj.make_bound(log_joint, proposal, gradient=gradient)  # each sample has the density that weighs it
                continue
            with pytest.raises(ValueError, match=rf"gradient: '{gradient}' .*gradient='doubly_reparameterized'"):
                hj.make_bound(log_joint, proposal, gradient=gradient)
    with pytest.raises(ValueError, match=r"draw: expected one of 'without_replacement', .*, got 'each'"):
        hj.mixture(rows, num_samples=2, draw="each")


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (
            jnp.ones(2, bool),
            ValueError,
            r"present: expected a boolean for each of the 3 members, shape \(3,\), got \(2,\)",
        ),
        (jnp.ones(3), TypeError, r"present: expected booleans, got dtype float32; compare"),
        ([True] * 3, ValueError, r"present: expected a boolean for each of the 3 members, shape \(3,\), got list"),
    ],
)
def test_masks_are_booleans_of_the_members(mask, error, message):
    rows = lambda params, x: (jnp.zeros((3, 2)), jnp.ones((3, 2)))
    proposal = hj.mixture(rows, num_samples=2, present=lambda params, x: mask)
    with pytest.raises(error, match=message):
        proposal.draw(None, None, jax.random.key(0))


def test_members_have_rows():
    with pytest.raises(
        ValueError, match="conditional: expected K rows, one for each sample, as leaves of loc and scale"
    ):
        hj.mixture(lambda params, x: (jnp.zeros(()), jnp.ones(())), num_samples=2).draw(None, None, jax.random.key(0))
