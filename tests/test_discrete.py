"""Discrete latents: gradients against enumeration of every draw, families, extremes, and training on digits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from hiwae_jax._discrete import DiscreteFamily, bernoulli, categorical, make_discrete_bound
from hiwae_jax._score_function import vimco
from hiwae_jax.data import load_digits

INF = np.inf
GRADIENTS = ("score_function", "vimco", "wake_phase")


# A model of three pixels, without special structure, whose latent states can all be listed.


def own_log_prob(name, logits, z):
    """The families' log-probabilities from their definition."""
    if name == "bernoulli":
        p = 1.0 / (1.0 + jnp.exp(-logits))
        return jnp.sum(z * jnp.log(p) + (1.0 - z) * jnp.log(1.0 - p))
    return jnp.sum(z * jnp.log(jnp.exp(logits) / jnp.sum(jnp.exp(logits), axis=-1, keepdims=True)))


def injected(family):
    """The family, with a sampler that takes its draw for the key."""
    return family._replace(sample=lambda key, parameters, num_samples: key)


def states(name):
    """Every value of z: two Bernoulli variables, or one of three categories."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=2))) if name == "bernoulli" else np.eye(3)[:, None]


def model(name):
    """`(log_joint, conditional, params, x)` in double precision."""
    random = np.random.default_rng(3)
    shape = states(name).shape[1:]
    params = {
        "theta": {"w": random.normal(size=(3, *shape)), "prior": random.normal(size=shape)},
        "phi": {"a": random.normal(size=(*shape, 3)), "c": random.normal(size=shape)},
    }

    def log_joint(params, x, z):
        pixels = 2.0 * jnp.tanh(jnp.sum(params["theta"]["w"] * z[None], axis=tuple(range(1, z.ndim + 1))))
        likelihood = own_log_prob("bernoulli", pixels, x)
        return likelihood + own_log_prob(name, params["theta"]["prior"], z)

    def conditional(params, x):
        return params["phi"]["a"] @ x + params["phi"]["c"]

    return log_joint, conditional, jax.tree.map(jnp.asarray, params), jnp.array([1.0, 0.0, 1.0])


def gradients_at(num_samples):
    return GRADIENTS[:1] if num_samples == 1 else GRADIENTS


@functools.cache
def enumerated(name, num_samples):
    """Mean and total variance of each gradient over all K-tuples of states, and what the means should be."""
    with jax.enable_x64(True):
        log_joint, conditional, params, x = model(name)
        z = jnp.asarray(states(name))
        tuples = np.array(list(itertools.product(range(len(z)), repeat=num_samples)))

        def tables(params):
            joints = jax.vmap(lambda z: log_joint(params, x, z))(z)
            proposals = jax.vmap(lambda z: own_log_prob(name, conditional(params, x), z))(z)
            return joints[tuples], proposals[tuples]

        def mean_bound(params):
            joints, proposals = tables(params)
            bounds = jax.nn.logsumexp(joints - proposals, axis=1) - np.log(num_samples)
            return jnp.sum(jnp.exp(jnp.sum(proposals, axis=1)) * bounds)

        def mean_wake(params, at):
            joints, proposals = tables(at)
            weights = jnp.exp(jnp.sum(proposals, axis=1, keepdims=True)) * jax.nn.softmax(joints - proposals, axis=1)
            return jnp.sum(weights * tables(params)[1])

        family = injected(bernoulli if name == "bernoulli" else categorical)

        @jax.jit
        def everything(params):
            probabilities = jnp.exp(jnp.sum(tables(params)[1], axis=1))
            results = {"bound": jax.grad(mean_bound)(params), "wake": jax.grad(mean_wake)(params, params)}
            for gradient in gradients_at(num_samples):
                bound = make_discrete_bound(
                    log_joint, conditional, num_samples=num_samples, family=family, gradient=gradient
                )
                value, draws = jax.vmap(jax.value_and_grad(bound), in_axes=(None, None, 0))(params, x, z[tuples])
                results[f"{gradient} value"] = probabilities @ value - mean_bound(params)
                results[gradient] = jax.tree.map(lambda g: jnp.tensordot(probabilities, g, axes=1), draws)
                squares = jax.vmap(lambda g: jnp.sum(ravel_pytree(g["phi"])[0] ** 2))(draws)
                mean = ravel_pytree(results[gradient]["phi"])[0]
                results[f"{gradient} variance"] = probabilities @ squares - jnp.sum(mean**2)
            return results

        return jax.device_get(everything(params))


CASES = [("bernoulli", 1), ("bernoulli", 3), ("categorical", 2)]


def assert_trees_close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, theirs)


@pytest.mark.parametrize(("name", "num_samples"), CASES)
def test_the_score_function_and_vimco_are_unbiased_for_every_parameter(name, num_samples):
    results = enumerated(name, num_samples)
    for gradient in gradients_at(num_samples):
        assert abs(results[f"{gradient} value"]) < 1e-12
        if gradient != "wake_phase":
            assert_trees_close(results[gradient], results["bound"])


@pytest.mark.parametrize(("name", "num_samples"), CASES[1:])
def test_the_wake_phase_gives_the_model_the_bound_and_the_proposal_its_own_objective(name, num_samples):
    results = enumerated(name, num_samples)
    assert_trees_close(results["wake_phase"]["theta"], results["bound"]["theta"])
    assert_trees_close(results["wake_phase"]["phi"], results["wake"]["phi"])
    assert np.max(np.abs(results["wake"]["phi"]["c"] - results["bound"]["phi"]["c"])) > 1e-3


@pytest.mark.parametrize(("name", "num_samples"), CASES[1:])
def test_vimco_has_less_variance_than_the_score_function(name, num_samples):
    results = enumerated(name, num_samples)
    assert 0.0 < results["vimco variance"] < 0.5 * results["score_function variance"]


LOG_WEIGHTS = np.array(
    [
        [0.0, -1.0, 2.5],
        [1e4, 1e4 - 1.0, 1e4 - 2.0],
        [-1e4, -1e4 + 3.0, -2e4],
        [1e4, -1e4, 0.0],
        [40.0, 0.0, 1.0],
        [-INF, 0.5, 1.0],
        [-INF, -INF, 0.5],
        [-INF, -INF, -INF],
    ]
)


def own_signals(log_weights):
    """VIMCO's learning signals, one after another, with one logarithm of a sum each."""

    def bound(log_weights):
        largest = np.max(log_weights)
        return largest if largest == -INF else largest + np.log(np.mean(np.exp(log_weights - largest)))

    value = bound(log_weights)
    signals = []
    for j in range(len(log_weights)):
        others = np.delete(log_weights, j)
        without = bound(np.append(others, np.mean(others)))
        signals.append(0.0 if value == -INF else value if without == -INF else value - without)
    return value, np.array(signals)


def test_vimco_on_arrays_agrees_with_the_definition_at_ordinary_and_extreme_weights():
    log_weights = jnp.asarray(LOG_WEIGHTS, jnp.float32)

    @jax.jit
    def both(log_weights):
        values, pull = jax.vjp(lambda w, q: vimco(w, q, axis=0), log_weights.T, log_weights.T)
        along = [jnp.isfinite(log_weights.T).astype(jnp.float32), jnp.ones_like(log_weights.T)]
        primal = [log_weights.T, jnp.zeros_like(log_weights.T)]
        _, tangent = jax.jvp(lambda w, q: vimco(w, q, axis=0), primal, along)
        return values, hj.iwlb(log_weights), pull(jnp.ones_like(values)), tangent

    values, iwlb, (weights, signals), tangent = both(log_weights)
    np.testing.assert_array_equal(values, iwlb)
    for row, value, weight, signal in zip(LOG_WEIGHTS, values, weights.T, signals.T, strict=True):
        expected_value, expected_signal = own_signals(row)
        np.testing.assert_allclose(value, expected_value, rtol=1e-6)
        rounding = 1e-6 + 2e-7 * np.max(np.abs(row), initial=0.0, where=np.isfinite(row))
        np.testing.assert_allclose(signal, expected_signal, rtol=1e-6, atol=rounding)
        expected_weight = np.exp(row - value - np.log(3.0)) if value > -INF else np.zeros(3)
        np.testing.assert_allclose(weight, expected_weight, rtol=3e-3, atol=1e-6)
    np.testing.assert_allclose(tangent, jnp.sum(weights, axis=0) + jnp.sum(signals, axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "logits"),
    [(bernoulli, np.array([0.8, -1.5, 0.1])), (categorical, np.array([[0.5, -1.0, 0.2], [0.0, -INF, 1.0]]))],
)
def test_samples_follow_the_log_probabilities(family, logits):
    """The counts of all configurations against their probabilities, by a chi-square test."""
    logits = jnp.asarray(logits, jnp.float32)
    if logits.ndim == 1:
        every = np.array(list(itertools.product([0.0, 1.0], repeat=3)), np.float32)
    else:
        every = np.array([np.stack(rows) for rows in itertools.product(np.eye(3), repeat=2)], np.float32)
    num_samples = 20_000

    @jax.jit
    def both(key):
        probabilities = jnp.exp(jax.vmap(family.log_prob, in_axes=(None, 0))(logits, every))
        return family.sample(key, logits, num_samples), probabilities

    z, probabilities = both(jax.random.key(0))
    matches = np.all(np.asarray(z)[:, None] == every[None], axis=tuple(range(2, z.ndim + 1)))
    assert np.all(matches.sum(axis=1) == 1)
    assert float(jnp.sum(probabilities)) == pytest.approx(1.0, abs=1e-6)
    counts, expected = matches.sum(axis=0), num_samples * np.asarray(probabilities, np.float64)
    assert np.all(counts[expected == 0.0] == 0)
    seen = expected > 0.0
    statistic = np.sum((counts[seen] - expected[seen]) ** 2 / expected[seen])
    freedom = np.sum(seen) - 1
    assert abs(statistic - freedom) < 4.0 * np.sqrt(2.0 * freedom)


def test_saturated_logits_give_finite_log_probabilities_and_gradients():
    logits = jnp.array([200.0, -200.0])
    both = jax.jit(jax.value_and_grad(bernoulli.log_prob))
    for z, value, gradient in (([1.0, 0.0], 0.0, [0.0, 0.0]), ([0.0, 0.0], -200.0, [-1.0, 0.0])):
        result = both(logits, jnp.array(z))
        np.testing.assert_allclose(result[0], value, atol=1e-30)
        np.testing.assert_allclose(result[1], gradient, atol=1e-30)
    gradient = jax.jit(jax.grad(categorical.log_prob))(jnp.array([[0.0, -INF, 0.0]]), jnp.array([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(gradient, [[0.5, 0.0, -0.5]], atol=1e-6)


# A small model in float32: how the bound behaves under transformations, and at extremes.
PARAMS = {"w": np.linspace(-1.0, 1.0, 12).reshape(4, 3), "a": np.linspace(-0.5, 0.7, 12).reshape(3, 4)}
PARAMS = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), PARAMS)
X, KEY = jnp.array([1.0, 0.0, 1.0, 1.0]), jax.random.key(1)
Z = jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])


def small_log_joint(params, x, z):
    return bernoulli.log_prob(params["w"] @ z, x) + bernoulli.log_prob(jnp.zeros(3), z)


def small_bound(gradient="vimco", log_joint=small_log_joint, family=bernoulli, conditional=None, num_samples=4):
    conditional = conditional or (lambda params, x: params["a"] @ x)
    return make_discrete_bound(log_joint, conditional, num_samples=num_samples, family=family, gradient=gradient)


def test_the_value_is_the_same_to_the_last_bit_for_every_gradient_and_in_forward_mode():
    x, draws = jnp.stack([X, 1.0 - X]), jnp.stack([Z, 1.0 - Z])
    batch = jax.vmap(small_bound("wake_phase", family=injected(bernoulli)), in_axes=(None, 0, 0))
    values = [jax.jit(batch)(PARAMS, x, draws)]
    for gradient in GRADIENTS:
        both = jax.vmap(jax.value_and_grad(small_bound(gradient, family=injected(bernoulli))), in_axes=(None, 0, 0))
        value, each = jax.jit(both)(PARAMS, x, draws)
        values.append(value)
    primal, tangent = jax.jit(lambda params: jax.jvp(lambda p: batch(p, x, draws), (params,), (params,)))(PARAMS)
    values.append(primal)
    for value in values[1:]:
        np.testing.assert_array_equal(value, values[0])
    assert float(values[0][0]) != float(values[0][1])
    product = sum(jnp.sum(each[name] * PARAMS[name][None], axis=(1, 2)) for name in PARAMS)
    np.testing.assert_allclose(tangent, product, rtol=1e-4, atol=1e-5)


def test_the_key_reaches_the_sampler_untouched():
    @jax.jit
    def both(key):
        z = bernoulli.sample(key, PARAMS["a"] @ X, 4)
        return small_bound()(PARAMS, X, key), small_bound(family=injected(bernoulli))(PARAMS, X, z)

    first, second = both(KEY), both(jax.random.key(3))
    assert float(first[0]) == float(first[1])
    assert float(second[0]) == float(second[1]) != float(first[0])


def test_samples_carry_no_gradient_even_from_a_sampler_that_would_give_them_one():
    leaking = bernoulli._replace(sample=lambda key, logits, _: key + (logits - jax.lax.stop_gradient(logits))[None])
    ours, expected = jax.jit(
        lambda params: [jax.grad(small_bound(family=f))(params, X, Z) for f in (leaking, injected(bernoulli))]
    )(PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, expected)


SHIFTS = {
    "large": (1e4, 1e4),
    "small": (-1e4, -1e4),
    "some dominate": (1e4, 0.0),
    "some impossible": (-INF, 0.0),
    "all impossible": (-INF, -INF),
}


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_extreme_weights_give_no_silent_nan(gradient):
    @jax.jit
    def value_and_gradient(params, shift):
        def log_joint(p, x, z):
            return small_log_joint(p, x, z) + shift[z[0].astype(jnp.int32)]

        return jax.value_and_grad(small_bound(gradient, log_joint, injected(bernoulli)))(params, X, Z)

    for title, shift in SHIFTS.items():
        value, gradients = value_and_gradient(PARAMS, jnp.array(shift))
        flat = np.concatenate([np.ravel(leaf) for leaf in gradients.values()])
        assert np.all(np.isfinite(flat)), title
        if title == "all impossible":
            assert float(value) == -INF
            np.testing.assert_array_equal(flat, np.zeros(len(flat)))
        else:
            assert np.isfinite(value), title


def test_narrow_networks_give_float32_bounds():
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), PARAMS)

    def log_joint(params, x, z):
        logits = params["w"] @ z.astype(jnp.bfloat16)
        return bernoulli.log_prob(logits, x) + bernoulli.log_prob(jnp.zeros(3), z)

    bound = small_bound(log_joint=log_joint, conditional=lambda params, x: params["a"] @ x.astype(jnp.bfloat16))
    value, gradients = jax.eval_shape(jax.value_and_grad(bound), params, X, KEY)
    assert value.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("family", "shape", "gradient"), [(bernoulli, (8,), "wake_phase"), (categorical, (4, 4), "vimco")]
)
def test_it_trains_on_digits(family, shape, gradient):
    """The bound rises from that of a coin for each pixel to well above the best model without latents."""
    train = np.unpackbits(load_digits().train, axis=-1)[:1280].astype(np.float32)
    random, size = np.random.default_rng(0), int(np.prod(shape))
    params = {
        "w": 0.1 * random.normal(size=(64, size)),
        "b": np.zeros(64),
        "a": 0.1 * random.normal(size=(size, 64)),
        "c": np.zeros(shape),
        "prior": np.zeros(shape),
    }

    def log_joint(params, x, z):
        pixels = params["w"] @ jnp.ravel(z) + params["b"]
        return bernoulli.log_prob(pixels, x) + family.log_prob(params["prior"], z)

    def conditional(params, x):
        return jnp.reshape(params["a"] @ x, shape) + params["c"]

    bound = make_discrete_bound(log_joint, conditional, num_samples=5, family=family, gradient=gradient)
    optimizer = optax.adam(0.02)

    @jax.jit
    def run(params, batches, keys):
        def step(state, row):
            def loss(params):
                return -jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(params, *row))

            value, gradients = jax.value_and_grad(loss)(state[0])
            updates, moments = optimizer.update(gradients, state[1])
            return (optax.apply_updates(state[0], updates), moments), -value

        return jax.lax.scan(step, (params, optimizer.init(params)), (batches, keys))[1]

    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
        batches = np.tile(train.reshape(20, 64, 64), (11, 1, 1))  # eleven passes over the data
        bounds = run(params, batches, jax.random.split(jax.random.key(0), batches.shape[:2]))
    mean = train.mean(axis=0, dtype=np.float64).clip(1e-6, 1.0 - 1e-6)
    without_latents = 64 * np.mean(train * np.log(mean) + (1.0 - train) * np.log(1.0 - mean))
    assert float(bounds[0]) == pytest.approx(-64.0 * np.log(2.0), abs=1.0)
    assert float(jnp.mean(bounds[-20:])) > without_latents + 2.5


def test_what_is_no_function_family_or_gradient():
    with pytest.raises(ValueError, match=r"gradient: expected one of 'score_function', 'vimco', .* got 'reinforce'"):
        small_bound("reinforce")
    with pytest.raises(TypeError, match=r"family: expected hj.bernoulli, hj.categorical or a DiscreteFamily, got 'b"):
        small_bound(family="bernoulli")
    with pytest.raises(TypeError, match=r"log_joint: expected a function, got int"):
        small_bound(log_joint=3)
    with pytest.raises(TypeError, match=r"conditional: expected a function, got float"):
        small_bound(conditional=0.5)


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
    with pytest.raises(ValueError, match=r"logits: expected one array \[D\] for one example, got shape \(2, 3\)"):
        trace(small_bound(conditional=lambda params, x: jnp.zeros((2, 3))))
    with pytest.raises(ValueError, match=r"logits: expected one array \[D, C\] for one example, got shape \(3,\)"):
        trace(small_bound(family=categorical))
    with pytest.raises(ValueError, match=r"logits: expected one array \[D\] for one example, got tuple"):
        trace(small_bound(conditional=lambda params, x: (jnp.zeros(3), jnp.ones(3))))
    with pytest.raises(TypeError, match=r"logits: expected a floating-point array \[D\], got dtype int32"):
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
