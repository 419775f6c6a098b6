"""A minibatch in chunks of examples: the same mean and gradient, less memory, and errors before any work."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from hiwae_jax._batched import budget, compiled
from tests import images, models, typed_calls

SIZES = {"pixels": 12, "hidden": 6, "latent": 3}
EXAMPLES = 7


def objective(params, x, key, scale):
    """Of one example, whose batch is a pytree, with an argument that all examples share."""
    bound = hj.make_bound(images.log_joint, images.hiwae(), weighting=hj.power_heuristic(1.0))
    return scale * bound(params, x["left"] + x["right"], key)


def arguments():
    params = images.init(3, **SIZES)
    left = jax.random.bernoulli(jax.random.key(2), 0.4, (EXAMPLES, 12)).astype(jnp.float32)
    return params, {"left": left, "right": 0.1 * left[::-1]}, jax.random.key(1), 0.5


def two_parts(**options):
    """A bound of such an example, in which the context of the proposal carries integers along."""
    pixels = lambda x: x["left"].astype(jnp.float32) + x["right"]
    proposal = hj.hierarchical(
        lambda params, context: images.base(params, context[0]),
        lambda params, context, z0: images.conditionals(params, context[0], z0),
        lambda params, context, z: images.reverse(params, context[0], z),
        context=lambda params, x: (images.encode(params, pixels(x)), x["left"]),
    )
    log_joint = lambda params, x, z: images.log_joint(params, pixels(x), z)
    return hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(1.0), **options)


@pytest.fixture(scope="module")
def whole():
    """All examples at once, written out."""

    def mean(params, batch, key, scale):
        keys = jax.random.split(key, EXAMPLES)
        return jnp.mean(jax.vmap(objective, in_axes=(None, 0, 0, None))(params, batch, keys, scale))

    return models.quick_jit(jax.value_and_grad(mean))(*arguments())


# Seven in one, in 4 + 3, in 3 + 2 + 2 and in ones: two of these have places that do not count.
@pytest.mark.parametrize("chunk_size", [None, 100, 4, 3, 1])
def test_chunks_change_nothing_but_the_rounding(chunk_size):
    """Of a model that is small enough for a program each."""

    def small(params, x, key, scale):
        noise = jax.random.normal(key, (3,))
        return scale * jnp.sum(jnp.tanh(params["loc"] * noise + x["left"][:3]) * jnp.sum(params["slope"] * x["right"]))

    _, batch, key, scale = arguments()
    params = {"loc": jnp.linspace(0.5, 1.5, 3), "slope": jnp.linspace(-1.0, 2.0, 12)}

    @models.quick_jit
    def both(params, batch, key, scale):
        keys = jax.random.split(key, EXAMPLES)
        mean = lambda params: jnp.mean(jax.vmap(small, in_axes=(None, 0, 0, None))(params, batch, keys, scale))
        ours = hj.batched_value_and_grad(small, chunk_size=chunk_size)(params, batch, key, scale)
        return ours, jax.value_and_grad(mean)(params)

    ours, expected = both(params, batch, key, scale)
    chex.assert_trees_all_close(ours, expected, rtol=2e-5, atol=2e-6)


def test_chunks_of_a_bound_change_nothing_but_the_rounding(whole):
    ours = models.quick_jit(hj.batched_value_and_grad(objective, chunk_size=3))(*arguments())
    chex.assert_trees_all_close(ours, whole, rtol=2e-5, atol=2e-6)


def test_chunks_dispatched_from_python_are_the_same(whole):
    ours = hj.batched_value_and_grad(objective, chunk_size=3, dispatch=True)(*arguments())
    chex.assert_trees_all_close(ours, whole, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient": "reparameterized"},
        {"gradient": "doubly_reparameterized"},
        {"gradient": "refilled"},
        {"gradient": "refilled", "backward_samples": 1},
    ],
    ids=str,
)
def test_samples_of_the_whole_batch_and_chunks_of_the_rest_are_the_same(options):
    bound = two_parts(**options)
    params, batch, key, _ = arguments()
    x = {"left": batch["left"].astype(jnp.int32), "right": batch["right"]}
    # The estimator does not see how many examples go together.
    sizes = [None, 3] if options == {"gradient": "doubly_reparameterized"} else [3]

    @models.quick_jit
    def every_way(params, batch, key):
        keys = jax.random.split(key, EXAMPLES)
        mean = lambda params: jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(params, batch, keys))
        steps = [hj.batched_value_and_grad(bound, draw=bound.draw, chunk_size=chunk_size) for chunk_size in sizes]
        return jax.value_and_grad(mean)(params), [step(params, batch, key) for step in steps]

    expected, found = every_way(params, x, key)
    for ours in found:
        chex.assert_trees_all_close(ours, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_chunk_of_one_example_has_no_axis_for_it(ahead):
    """On a CPU sums of products with an axis of length one are compiled to slow code; there are three members."""
    bound = two_parts()
    params, batch, key, _ = arguments()

    def program(chunk_size):
        step = hj.batched_value_and_grad(bound, draw=bound.draw if ahead else None, chunk_size=chunk_size)
        return str(jax.make_jaxpr(step)(params, batch, key))

    assert "f32[2,3,3,3]" in program(2)
    of_one = program(1)
    assert "f32[1,3,3,3]" not in of_one
    assert "f32[3,3,3]" in of_one


def test_draws_are_dispatched_too_and_shared_arguments_reach_them():
    bound = two_parts()
    params, batch, key, scale = arguments()
    options = {
        "objective": lambda params, x, drawn, scale: scale * bound(params, x, drawn),
        "draw": lambda params, x, key, scale: bound.draw(jax.tree.map(lambda leaf: scale * leaf, params), x, key),
        "chunk_size": 3,
    }

    @models.quick_jit
    def scaled_and_not(params, batch, key, scale):
        keys = jax.random.split(key, EXAMPLES)
        unscaled = jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(params, batch, keys))
        return hj.batched_value_and_grad(**options)(params, batch, key, scale), unscaled

    in_a_loop, unscaled = scaled_and_not(params, batch, key, scale)
    dispatched = hj.batched_value_and_grad(**options, dispatch=True)(params, batch, key, scale)
    chex.assert_trees_all_close(dispatched, in_a_loop, rtol=2e-5, atol=2e-6)
    assert not np.allclose(scale * unscaled, in_a_loop[0], rtol=1e-3)


def test_the_gradient_is_whole_whoever_reads_the_parameters(monkeypatch):
    params = {name: jnp.linspace(0.5, 1.5, 3) for name in ("draw", "both", "bound", "neither")}
    batch = jnp.linspace(-1.0, 1.0, 15).reshape(5, 3)
    draw = lambda params, x, key: jnp.sin(params["draw"] * x) * params["both"]
    objective = lambda params, x, drawn: jnp.sum(jnp.tanh(drawn * params["bound"])) + jnp.sum(params["both"])
    mean = lambda params: jnp.mean(jax.vmap(lambda x: objective(params, x, draw(params, x, None)))(batch))
    value, gradient = jax.value_and_grad(mean)(params)
    returned = []
    add = compiled.add
    monkeypatch.setattr(compiled, "add", lambda ours, more: returned.append(ours) or add(ours, more))
    for dispatch in (False, True):
        step = hj.batched_value_and_grad(objective, draw=draw, chunk_size=2, dispatch=dispatch)
        ours = step(params, batch, jax.random.key(0))
        np.testing.assert_allclose(ours[0], value, rtol=1e-6)
        chex.assert_trees_all_close(ours[1], gradient, rtol=1e-5, atol=1e-7)
    # Chunks dispatched from Python hand over no zeros.
    assert {name for name, part in returned[1].items() if part is not None} == {"both", "bound"}


def test_parameters_that_only_the_draw_reads_do_not_enlarge_chunks(monkeypatch):
    """Nothing of theirs is added up chunk by chunk, so that larger chunks would buy nothing."""
    chosen = []
    choose = budget.examples_at_once

    def watched(*args):
        needs = choose(*args)
        chosen.append(needs.at_once)
        return needs

    monkeypatch.setattr(budget, "examples_at_once", watched)
    monkeypatch.setattr(budget, "KEPT_ON_CPU", 1)
    monkeypatch.setattr(budget, "KEPT_ELSEWHERE", 1)
    objective = lambda params, x, drawn: jnp.sum(jnp.tanh(params["few"] * drawn))
    draw = lambda params, x, key: jnp.tanh(params["many"] @ x)

    def examples(many):
        params = {"few": jnp.ones(50), "many": jnp.ones((50, many))}
        batch, key = jnp.ones((64, many)), jax.random.key(0)
        together = hj.batched_value_and_grad(lambda params, x, key: objective(params, x, draw(params, x, key)))
        for step in (hj.batched_value_and_grad(objective, draw=draw), together):
            jax.eval_shape(step, params, batch, key)

    examples(100)
    examples(1000)
    if jax.default_backend() == "cpu":
        assert chosen[0] == chosen[2] == 1
        assert 5 < chosen[1] < chosen[3] / 2
    else:
        assert chosen == [1, 1, 1, 1]


def test_an_example_that_does_not_count_cannot_spoil_the_gradient():
    """Places are filled up with examples of the batch, never with zeros at which a density may not be finite."""
    reciprocal = lambda params, x, key: params / x
    value, gradient = hj.batched_value_and_grad(reciprocal, chunk_size=2)(
        jnp.float32(3.0), jnp.array([1.0, 2.0, 4.0]), jax.random.key(0)
    )
    np.testing.assert_allclose((value, gradient), (3.0 * 1.75 / 3.0, 1.75 / 3.0), rtol=1e-6)


def test_the_size_that_is_chosen_keeps_to_the_budget(monkeypatch):
    sizes = {"pixels": 200, "hidden": 100, "latent": 2}
    bound = hj.make_bound(images.log_joint, images.iwae(50))
    like = jax.eval_shape(lambda: (images.init(50, **sizes), jnp.zeros((64, 200)), jax.random.key(0)))

    def temporaries(chunk_size):
        step = models.quick_jit(hj.batched_value_and_grad(bound, chunk_size=chunk_size))
        return step.lower(*like).compile().memory_analysis().temp_size_in_bytes

    everything = temporaries(64)
    assert temporaries(None) <= everything
    monkeypatch.setattr(budget, "KEPT_ON_CPU", everything // 8)
    monkeypatch.setattr(budget, "KEPT_ELSEWHERE", everything // 8)
    assert everything / 20 < temporaries(None) < everything / 4


def test_it_compiles_once():
    chex.clear_trace_counter()

    def objective(params, x, key):
        return jnp.sum(params * x) + 0.0 * jax.random.normal(key)

    step = jax.jit(chex.assert_max_traces(hj.batched_value_and_grad(objective, chunk_size=2), n=1))
    # Called outside of jit, what is compiled is the chunk: its objective is traced, and the first call does all of it.
    traces = []

    def counted(params, x, key):
        traces.append(None)
        return objective(params, x, key)

    dispatched = hj.batched_value_and_grad(counted, chunk_size=2, dispatch=True)
    counts = []
    for seed in range(3):
        step(jnp.ones(3), jnp.ones((6, 3)), jax.random.key(seed))
        dispatched(jnp.ones(3), jnp.ones((6, 3)), jax.random.key(seed))
        counts.append(len(traces))
    assert counts[0] == counts[2] > 0


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="objective: expected a function"):
        hj.batched_value_and_grad(3.0)
    with pytest.raises(TypeError, match="draw: expected a function"):
        hj.batched_value_and_grad(objective, draw=images.iwae(2))
    with pytest.raises(TypeError, match=r"draw: expected bound\.draw, got the bound itself"):
        hj.batched_value_and_grad(two_parts(), draw=two_parts())
    with pytest.raises(ValueError, match="chunk_size: expected"):
        hj.batched_value_and_grad(objective, chunk_size=0)
    step = hj.batched_value_and_grad(lambda params, x, key: params)
    for batch in (jnp.zeros(()), jnp.zeros((0, 2)), {"a": jnp.zeros(3), "b": jnp.zeros(2)}, ()):
        with pytest.raises(ValueError, match="batch: expected arrays with one leading axis"):
            step(1.0, batch, jax.random.key(0))
    with pytest.raises(TypeError, match="key: expected a typed key"):
        step(1.0, jnp.zeros(3), 0)
    with pytest.raises(ValueError, match="key: expected one typed key"):
        step(1.0, jnp.zeros(3), jax.random.split(jax.random.key(0), 3))
    with pytest.raises(TypeError, match="key: expected a typed key"):
        step(1.0, jnp.zeros(3), jax.random.PRNGKey(0))
    with pytest.raises(TypeError, match=r"params: .*leaf of type function; .*eqx\.partition"):
        step([1.0, lambda x: x], jnp.zeros(3), jax.random.key(0))
    with pytest.raises(ValueError, match=r"objective: .*scalar value for one example, got shape \(2,\)"):
        hj.batched_value_and_grad(lambda params, x, key: jnp.ones(2))(1.0, jnp.zeros(3), jax.random.key(0))
    with pytest.raises(TypeError, match="dispatch"):
        jax.jit(hj.batched_value_and_grad(objective, dispatch=True))(*arguments())


def test_a_loop_traces_the_objective_once():
    traced = []

    def objective(params, x, key):
        traced.append(x)
        return jnp.sum(params * x)

    step = jax.jit(hj.batched_value_and_grad(objective, chunk_size=2))
    step(jnp.float32(1.0), jnp.ones((6, 3)), jax.random.key(0))
    assert len(traced) == 1


def test_numbers_may_be_parameters_outside_of_jit():
    bound = hj.make_bound(
        lambda params, x, z: -0.5 * jnp.sum((x - params["a"] * z) ** 2) - 0.5 * jnp.sum(z**2),
        hj.independent(lambda params, x: (params["a"] * x, jnp.ones_like(x)), num_samples=2),
    )
    step = hj.batched_value_and_grad(bound)
    batch, key = jnp.linspace(-1.0, 1.0, 8).reshape(4, 2), jax.random.key(0)
    ours, theirs = step({"a": 0.5}, batch, key), step({"a": jnp.float32(0.5)}, batch, key)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"dispatch": True}, {"draw": True}], ids=str)
def test_gradients_of_narrow_parameters_are_added_up_in_float32(options):
    """In bfloat16 a sum of a thousand chunks would keep two digits of the first and nothing of the last."""
    proposal = hj.independent(lambda p, x: (p["a"] * x, jnp.ones(2, x.dtype)), num_samples=2)
    log_joint = lambda p, x, z: -0.5 * jnp.sum((x - p["b"] * z.astype(x.dtype)) ** 2) - 0.5 * jnp.sum(z**2)
    bound = hj.make_bound(log_joint, proposal)
    options = {"draw": bound.draw} if "draw" in options else options
    x = jax.random.normal(jax.random.key(1), (600, 2))
    with jax.numpy_dtype_promotion("standard"):
        narrow = {"a": jnp.bfloat16(0.5), "b": jnp.bfloat16(0.75)}
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow)
        expected = jax.jit(hj.batched_value_and_grad(bound))(wide, x, jax.random.key(2))[1]
        ours = hj.batched_value_and_grad(bound, chunk_size=2, **options)(narrow, x, jax.random.key(2))[1]
    for name, leaf in ours.items():
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(leaf), expected[name], rtol=0.01)


def test_parameters_are_floating_point_arrays():
    for leaf, kind in ((jnp.array([1, 2]), "int32"), (jax.random.key(0), "key<fry>")):
        with pytest.raises(
            TypeError, match=rf"params: expected floating-point arrays, got a leaf of type {kind}; .*nnx"
        ):
            hj.batched_value_and_grad(objective)({"count": leaf}, *arguments()[1:])


def test_what_is_dispatched_is_compiled_once_for_all_chunks(caplog):
    bound = hj.make_bound(
        lambda params, x, z: -0.5 * jnp.sum((x - params * z) ** 2 + z**2),
        hj.independent(lambda params, x: (params * x, jnp.ones_like(x)), num_samples=2),
    )

    def compilations(examples):
        step = hj.batched_value_and_grad(bound, draw=bound.draw, chunk_size=2, dispatch=True)
        caplog.clear()
        with jax.log_compiles():
            step(jnp.float32(0.5), jnp.ones((examples, 2)), jax.random.key(0))
        return sum(record.getMessage().startswith("Compiling") for record in caplog.records)

    few, many = compilations(8), compilations(64)
    assert few >= 1
    assert many <= few


def with_aux(params, x, key):
    """A bound, and what a training loop wants to see beside it."""
    value = jnp.where(x["left"][0] > 0.0, -jnp.inf, jnp.sum(params["a"] ** 2) + jax.random.uniform(key))
    return value, {"impossible": jnp.isneginf(value), "doubled": 2.0 * x["right"]}


@pytest.mark.parametrize(
    "options", [{}, {"chunk_size": 3}, {"chunk_size": 1}, {"chunk_size": 4, "dispatch": True}], ids=str
)
def test_what_an_objective_returns_beside_its_value_is_stacked_in_the_order_of_the_batch(options):
    params = {"a": jnp.array([0.5, 2.0])}
    left = jnp.where(jnp.arange(7)[:, None] == 4, 1.0, -1.0)
    batch = {"left": left, "right": jnp.arange(14.0).reshape(7, 2)}
    (value, aux), gradient = hj.batched_value_and_grad(with_aux, has_aux=True, **options)(
        params, batch, jax.random.key(0)
    )
    assert float(value) == -np.inf  # of one example all weights are zero
    np.testing.assert_array_equal(aux["impossible"], np.arange(7) == 4)
    np.testing.assert_array_equal(aux["doubled"], 2.0 * batch["right"])
    np.testing.assert_allclose(gradient["a"], 6 / 7 * 2.0 * params["a"], rtol=1e-6)  # it takes no part


def test_aux_comes_from_the_same_draw_and_costs_no_second_evaluation():
    """Bound, log-weights and samples of one draw: what a second evaluation of the model would cost is not there."""
    params, batch, key, _ = arguments()
    batch = {"left": batch["left"].astype(jnp.int32), "right": batch["right"]}
    bound = two_parts(gradient="reparameterized")

    def watched(params, x, drawn):
        return bound(params, x, drawn), {"size": drawn.z, "z0": drawn.z0}

    with_draw = {"draw": bound.draw, "chunk_size": 3}
    (value, aux), gradient = models.quick_jit(hj.batched_value_and_grad(watched, has_aux=True, **with_draw))(
        params, batch, key
    )
    alone = models.quick_jit(hj.batched_value_and_grad(bound, **with_draw))(params, batch, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), (value, gradient), alone)
    keys = jax.random.split(key, EXAMPLES)
    drawn = jax.vmap(bound.draw, in_axes=(None, 0, 0))(params, batch, keys)
    np.testing.assert_allclose(aux["size"], drawn.z, rtol=1e-6, atol=1e-6)


def test_calls_that_a_checker_of_types_reads_run():
    value, gradient = typed_calls.values_and_gradients()
    assert value.shape == ()
    assert gradient.keys() == {"w", "a"}
