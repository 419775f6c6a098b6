"""A model that is evaluated a chunk of samples at a time: the same numbers, in memory that does not grow with K."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from hiwae_jax._gradients import linearize
from tests import images, models

SIZES = {"pixels": 12, "hidden": 6, "latent": 3}


ONE_PASS, TWO_PASSES = "one pass", "two passes"


def whole_and_chunked(function_of, chunk_size, *arguments, passes=(ONE_PASS,)):
    """`function_of(chunk_size)` of all samples at once, and by chunks in each way; one program, which compiles sooner.

    Chunks are differentiated at once, or evaluated again: what is chosen by the sizes otherwise.
    """

    def in_every_way(*arguments):
        chunked = {}
        for way in passes:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(linearize, "one_pass_pays", lambda *_, way=way, **__: way == ONE_PASS)
                chunked[way] = function_of(chunk_size)(*arguments)
        return function_of(None)(*arguments), chunked

    whole, chunked = models.quick_jit(in_every_way)(*arguments)
    return whole, [chunked[way] for way in passes]


def value_and_gradient(proposal, alpha, gradient, chunk_size, backward_samples=None):
    bound = hj.make_bound(
        images.log_joint,
        proposal,
        weighting=hj.power_heuristic(alpha),
        gradient=gradient,
        backward_samples=backward_samples,
        chunk_size=chunk_size,
    )
    return jax.value_and_grad(bound, argnums=(0, 1))


# The plain estimator is in the test of second derivatives, the uniform weighting in that of a reverse model for each
# member. Where a backward pass for drawn samples is asked for, there is no choice between one pass and two. In two the
# model does not see which estimator sends the samples.
@pytest.mark.parametrize(
    ("alpha", "gradient", "backward_samples", "passes"),
    [
        (1.0, "doubly_reparameterized", None, [ONE_PASS, TWO_PASSES]),
        (1.0, "refilled", None, [ONE_PASS]),
        (1.0, "doubly_reparameterized", 3, [ONE_PASS]),
    ],
)
def test_chunks_change_nothing_but_the_rounding(alpha, gradient, backward_samples, passes):
    def function_of(chunk_size):
        return value_and_gradient(images.hiwae(), alpha, gradient, chunk_size, backward_samples)

    # Two does not divide five, and is fewer than the three of the backward pass.
    arguments = images.init(5, **SIZES), jnp.linspace(0.0, 1.0, 12), jax.random.key(1)
    whole, chunked = whole_and_chunked(function_of, 2, *arguments, passes=passes)
    for result in chunked:
        chex.assert_trees_all_close(result, whole, rtol=2e-5, atol=2e-6)


def test_log_weights_and_the_annealed_objective_take_chunks_too():
    proposal = images.iwae(5)

    def function_of(chunk_size):
        log_weights = hj.make_log_weights(images.log_joint, proposal, chunk_size=chunk_size)
        objective = hj.make_annealed_objective(
            images.log_joint, lambda params, x, z: jnp.zeros(()), proposal, free_bits=0.1, chunk_size=chunk_size
        )
        return lambda *arguments: (log_weights(*arguments), objective(*arguments, 0.5))

    arguments = images.init(5, **SIZES), jnp.linspace(0.0, 1.0, 12), jax.random.key(1)
    whole, (chunked,) = whole_and_chunked(function_of, 2, *arguments)
    chex.assert_trees_all_close(chunked, whole, rtol=1e-6)


def one_member(params, context, z0):
    """The first of the members, for all samples."""
    return jax.tree.map(lambda rows: rows[:1], images.conditionals(params, context, z0))


@pytest.mark.parametrize("kind", ["independent", "hierarchical"])
def test_memory_for_the_model_does_not_grow_with_the_number_of_samples(kind):
    sizes = {"pixels": 200, "hidden": 100, "latent": 2}

    def temporaries(num_samples, chunk_size):
        arguments = jax.eval_shape(lambda: (images.init(1, **sizes), jnp.zeros(200), jax.random.key(0)))
        proposal = images.iwae(num_samples)
        if kind == "hierarchical":  # the reverse model is found to treat all samples alike
            proposal = hj.hierarchical(
                images.base, one_member, images.reverse, num_samples=num_samples, context=images.encode
            )
        function = value_and_gradient(proposal, 0.0, "doubly_reparameterized", chunk_size)
        return models.quick_jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    few, many = temporaries(500, 50), temporaries(1_000, 50)
    # The samples themselves, their noise and their weights are what is left.
    assert many < few + 500 * 4 * 30
    assert temporaries(1_000, None) > 5 * many


@pytest.mark.optimized
def test_memory_for_pairs_of_members_does_not_grow_with_their_number():
    """One [K, K] array of the largest K would be 2.56 MB, one [K, K, D] 7.68 MB."""

    def temporaries(num_samples, chunk_size):
        arguments = jax.eval_shape(lambda: (images.init(num_samples, **SIZES), jnp.zeros(12), jax.random.key(0)))
        bound = hj.make_bound(
            images.log_joint,
            images.hiwae(),
            weighting=hj.power_heuristic(1.0),
            gradient="refilled",
            chunk_size=chunk_size,
        )
        compiled = jax.jit(jax.value_and_grad(bound)).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # What grows: rows of a chunk, samples, members, the head of the conditionals with its gradient.
    few, many = temporaries(200, 10), temporaries(800, 10)
    assert many < 6 * few
    assert many < 4 * 800 * 800


CASES = ["separate z_0", "free bits", "learned", "flow chain", "markov", "reverse model for each member"]


@pytest.mark.parametrize("case", CASES)
def test_chunks_where_a_row_knows_more_than_its_sample(case):
    params = images.init(4, **SIZES)
    arguments = params, jnp.linspace(0.0, 1.0, 12), jax.random.key(1), 0.5
    proposal = images.hiwae(shared=case != "separate z_0")
    weighting = hj.power_heuristic(1.0)
    if case in ("learned", "markov"):
        weighting = hj.learned_weighting(lambda params, h, z, z0: jnp.stack([z[0], z[1], 0.0 * z[0], -z[1]]))
    if case == "reverse model for each member":
        weighting = hj.uniform_weighting()
        number = jnp.arange(4.0)[:, None]

        def reverse(params, context, z):
            loc, scale = images.reverse(params, context, z)
            return loc + params["base"]["kernel"][:1, :3] * number, scale

        proposal = hj.hierarchical(images.base, images.conditionals, reverse, context=images.encode)
    if case == "markov":
        step = lambda params, x, z, number: (0.5 * z + x[:3], jnp.full(3, 0.9))
        proposal = hj.markov(lambda params, x: (x[:3], jnp.ones(3)), step, step, num_samples=4)
    if case == "flow chain":
        start = lambda params, x: images.base(params, images.encode(params, x))
        maps = [hj.affine_map(lambda params, h: (jnp.full(3, 0.3), jnp.full(3, 1.5)))] * 3
        proposal = hj.flow_chain(start, maps)

    def function_of(chunk_size):
        objective = hj.make_annealed_objective(
            images.log_joint,
            lambda params, x, z: -0.5 * jnp.sum(z**2),
            proposal,
            weighting=weighting,
            free_bits=0.5 if case == "free bits" else 0.0,
            chunk_size=chunk_size,
        )
        return jax.value_and_grad(objective)

    # Of the model's values only the free bits make more than a sum with the rest, and z_0 may move with the samples.
    passes = [ONE_PASS, TWO_PASSES] if case in ("free bits", "separate z_0") else [ONE_PASS]
    whole, chunked = whole_and_chunked(function_of, 3, *arguments, passes=passes)
    for result in chunked:
        chex.assert_trees_all_close(result, whole, rtol=2e-5, atol=2e-6)


def straight_line(params, x, z):
    """`log w` is anything that the sizes of z make of it: `params * z_0`, and -inf where z_1 is negative."""
    return jnp.where(z[1] < 0.0, -jnp.inf, params["slope"] * z[0] + params["curve"] * z[0] ** 2)


def test_one_pass_over_weights_of_every_size():
    """Ascending, so that every sum is scaled down to nothing; descending; a chunk, or all, without weight."""
    sizes = np.array([-200.0, -80.0, 0.0, 0.5, 90.0], np.float32)
    signs = np.array([[1.0, 1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, 1.0, 1.0, -1.0], [-1.0] * 5], np.float32)
    cases = jnp.asarray([np.stack([z_0, z_1], axis=1) for z_0 in (sizes, sizes[::-1]) for z_1 in signs])
    proposal = hj.independent(
        lambda params, x: (params["loc"] * jnp.ones(2), jnp.ones(2)), num_samples=5, sampler=models.injected
    )

    def function_of(chunk_size):
        bound = hj.make_bound(straight_line, proposal, chunk_size=chunk_size)
        return jax.vmap(jax.value_and_grad(bound), in_axes=(None, None, 0))

    params = {"slope": 1.5, "curve": 0.01, "loc": 0.0}
    whole, (chunked,) = whole_and_chunked(function_of, 2, params, None, cases)
    chex.assert_trees_all_close(chunked, whole, rtol=1e-5, atol=1e-30)


def test_second_derivatives_go_through_the_chunks():
    params = images.init(5, **SIZES)
    direction = jax.tree.map(np.cos, params)

    def function_of(chunk_size):
        bound = hj.make_bound(images.log_joint, images.hiwae(), gradient="reparameterized", chunk_size=chunk_size)
        slope = lambda params: jax.grad(bound)(params, jnp.linspace(0.0, 1.0, 12), jax.random.key(1))
        return lambda params: jax.jvp(slope, (params,), (direction,))

    whole, (chunked,) = whole_and_chunked(function_of, 2, params)
    chex.assert_trees_all_close(chunked, whole, rtol=1e-4, atol=1e-5)


def test_half_precision_goes_through_the_chunks():
    """Parameters and model in bfloat16: the gradients are no further from those of all samples at once."""
    narrow = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)
    x = jnp.linspace(0.0, 1.0, 12)
    proposal = hj.independent(lambda params, x: images.base(params, images.encode(params, narrow(x))), num_samples=5)

    def function_of(chunk_size):
        log_joint = lambda params, x, z: images.log_joint(params, narrow(x), narrow(z))
        return jax.value_and_grad(hj.make_bound(log_joint, proposal, chunk_size=chunk_size))

    arguments = narrow(images.init(5, **SIZES)), x, jax.random.key(1)
    (whole_value, whole), chunked = whole_and_chunked(function_of, 2, *arguments, passes=[ONE_PASS, TWO_PASSES])
    for value, gradient in chunked:
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, whole_value, rtol=1e-2)
        for ours, right in zip(jax.tree.leaves(gradient), jax.tree.leaves(whole), strict=True):
            assert ours.dtype == jnp.bfloat16
            ours, right = np.asarray(ours, np.float32), np.asarray(right, np.float32)
            assert np.max(np.abs(ours - right)) < 0.03 * np.max(np.abs(right)) + 1e-6


def matrix_products(jaxpr, times=1):
    """FLOPs of all of them, those of a loop as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            of_one = np.prod([left[axis] for axis in contracted]) * np.prod(equation.outvars[0].aval.shape)
            total += 2 * times * int(of_one)
        inside = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                total += matrix_products(getattr(value, "jaxpr", value), times * inside)
    return total


@pytest.mark.parametrize("gradient", ["reparameterized", "doubly_reparameterized"])
def test_samples_in_one_pass_are_decoded_once(gradient):
    """Forward, and backward at twice the price: a second forward pass would make it four thirds."""

    def flops(chunk_size):
        bound = hj.make_bound(images.log_joint, images.iwae(300), gradient=gradient, chunk_size=chunk_size)
        arguments = images.init(1), jnp.zeros(images.PIXELS), jax.random.key(0)
        return matrix_products(jax.make_jaxpr(jax.value_and_grad(bound))(*arguments).jaxpr)

    one_sample = 2 * (50 * 200 + 200 * 200 + 200 * 784)
    assert flops(None) > 3 * 300 * one_sample
    assert flops(None) <= flops(150) <= 1.01 * flops(None)  # 150 keep more than a gradient of the decoder takes
    assert flops(10) > flops(None) + 0.9 * 300 * one_sample  # ten keep less


def test_a_convolution_is_evaluated_twice():
    """In one pass, `vmap` over examples would make its kernels' gradients a convolution with groups."""

    def convolved(params, x, z):
        image = jnp.broadcast_to(z[0], (1, 1, 8, 8))
        return -jnp.sum(jax.lax.conv(image, params, (1, 1), "SAME") ** 2)

    proposal = hj.independent(lambda params, x: (x, jnp.ones(2)), num_samples=8)
    bound = hj.make_bound(convolved, proposal, chunk_size=4)

    def total(params, x, keys):
        return jnp.sum(jax.vmap(bound, in_axes=(None, 0, 0))(params, x, keys))

    arguments = jnp.ones((1, 1, 3, 3)), jnp.zeros((2, 2)), jax.random.split(jax.random.key(0))
    program = str(jax.make_jaxpr(jax.grad(total))(*arguments))
    assert "conv_general_dilated" in program
    assert "group_count=2" not in program


def test_a_chunk_has_at_least_one_sample():
    with pytest.raises(ValueError, match="chunk_size: expected"):
        hj.make_bound(images.log_joint, images.iwae(5), chunk_size=0)
