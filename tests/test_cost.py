"""What an estimator costs, read off the compiled program: one forward and one backward pass of every network."""

import functools

import chex
import jax
import jax.numpy as jnp
import pytest

import hiwae_jax as hj
from tests import images

pytestmark = pytest.mark.optimized

BATCH = 20


def batch_gradient(
    proposal, *, alpha=0.0, gradient="reparameterized", log_joint=images.log_joint, backward_samples=None
):
    """The jitted value and gradient of the mean bound over a batch."""
    bound = hj.make_bound(
        log_joint,
        proposal,
        weighting=hj.power_heuristic(alpha),
        gradient=gradient,
        backward_samples=backward_samples,
    )
    return jax.jit(jax.value_and_grad(lambda p, x, k: jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(p, x, k))))


def arguments(num_samples):
    """Abstract parameters, images and keys."""
    params = jax.eval_shape(functools.partial(images.init, num_samples))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), BATCH))
    return params, jax.ShapeDtypeStruct((BATCH, images.PIXELS), jnp.float32), keys


@functools.cache
def cost(kind, num_samples, alpha, gradient, backward_samples=None):
    """FLOPs and temporary bytes."""
    proposal = images.iwae(num_samples) if kind == "iwae" else images.hiwae()
    function = batch_gradient(proposal, alpha=alpha, gradient=gradient, backward_samples=backward_samples)
    compiled = function.lower(*arguments(num_samples)).compile()
    return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes


CASES = [("iwae", 5, 0.0, "doubly_reparameterized")]
CASES += [("hiwae", K, alpha, "doubly_reparameterized") for K, alpha in ((1, 1.0), (5, 0.0))]
CASES += [
    ("hiwae", 5, 1.0, gradient) for gradient in ("doubly_reparameterized", "path_squared", "authors", "score_function")
]


@pytest.mark.parametrize(("kind", "num_samples", "alpha", "gradient"), CASES)
def test_every_estimator_costs_what_the_plain_one_costs(kind, num_samples, alpha, gradient):
    flops, temporaries = cost(kind, num_samples, alpha, gradient)
    plain_flops, plain_temporaries = cost(kind, num_samples, alpha, "reparameterized")
    assert flops <= (1.03 if alpha == 0.0 else 1.05) * plain_flops
    # What to fuse is XLA's choice, which goes with its version. Under alpha = 1 weights of all pairs are kept.
    assert temporaries <= (1.2 if alpha == 0.0 else 1.4) * plain_temporaries


def test_refills_cost_a_forward_pass_each_and_no_memory():
    flops, temporaries = cost("hiwae", 5, 1.0, "refilled")
    plain_flops, plain_temporaries = cost("hiwae", 5, 1.0, "reparameterized")
    assert 1.2 * plain_flops <= flops <= 1.35 * plain_flops
    assert temporaries <= 1.05 * plain_temporaries


def test_a_backward_pass_for_one_of_many_samples_saves_most_of_it():
    """K forward passes and one backward pass, in place of the threefold cost of K of each."""
    flops, temporaries = cost("iwae", 50, 0.0, "doubly_reparameterized", 1)
    full_flops, full_temporaries = cost("iwae", 50, 0.0, "doubly_reparameterized")
    assert flops <= 0.4 * full_flops
    assert temporaries <= 0.8 * full_temporaries


def test_no_array_of_pairs_and_dimensions_is_kept():
    """`log q_i(z_j)` is [K, K]; its terms would be [K, K, D], and derivatives would keep them, a few times over."""
    K, D = 100, 64
    pairs = 4 * K * K * D
    proposal = hj.defensive(
        lambda params, x: (params["narrow"] + x, jnp.exp(params["log_scale"])),
        lambda params, x: (params["broad"], jnp.exp(params["log_scale"] + 1.0)),
        num_samples=K,
        num_broad=20,
    )
    row = jax.ShapeDtypeStruct((D,), jnp.float32)
    params = dict.fromkeys(("narrow", "broad", "log_scale"), row)
    key = jax.eval_shape(lambda: jax.random.key(0))

    balance = hj.power_heuristic(1.0)

    def temporaries(gradient, transform, proposal=proposal, weighting=balance):
        log_joint = lambda params, x, z: -0.5 * jnp.sum(z**2)
        bound = hj.make_bound(log_joint, proposal, weighting=weighting, gradient=gradient)
        return jax.jit(transform(bound)).lower(params, row, key).compile().memory_analysis().temp_size_in_bytes

    assert temporaries("reparameterized", lambda bound: bound) < pairs / 10
    assert temporaries("reparameterized", jax.value_and_grad) < pairs / 4
    assert temporaries("doubly_reparameterized", jax.value_and_grad) < pairs / 2
    mixture = hj.mixture(
        lambda params, x: (
            params["narrow"][None] * jnp.arange(1.0, K + 1)[:, None],
            jnp.exp(jnp.stack([params["broad"]] * K)),
        ),
        num_samples=K,
    )
    assert temporaries(None, jax.value_and_grad, proposal=mixture, weighting=None) < pairs / 2
    # XLA shares what it broadcasts to [K, K, D] between samples and refills.
    assert temporaries("refilled", jax.value_and_grad) < 2.5 * pairs


def dot_flops(function, *args):
    """FLOPs of a compiled function."""
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("gradient", ["reparameterized", "doubly_reparameterized"])
def test_the_encoder_runs_once_forward_and_once_backward(gradient):
    """A wider encoder adds its own cost, three matrix products, once: not once for base, conditionals and reverse."""
    params, x, keys = arguments(2)
    wide = 4_000

    def widened(params, x):
        kernel = params["wide"]
        return images.encode(params, x) + jnp.sum(jnp.tanh(x @ kernel)) * jnp.ones(images.HIDDEN)

    def flops(encoder):
        p = {**params, "wide": jax.ShapeDtypeStruct((images.PIXELS, wide), jnp.float32)}
        function = batch_gradient(images.hiwae(encoder=encoder), alpha=1.0, gradient=gradient)
        return function.lower(p, x, keys).cost_analysis()["flops"]  # before XLA can mend anything

    product = 2 * BATCH * images.PIXELS * wide  # forward; backward needs one more, the gradient of the kernel
    added = flops(widened) - flops(images.encode)
    assert 2.0 * product <= added < 2.1 * product


def test_without_a_context_the_encoder_runs_more_often():
    """The control of the test above: the same networks with the context, and each calling the encoder for itself."""
    params, x, keys = arguments(2)

    def traces(make_proposal):
        calls = []

        def counted(params, x):
            calls.append(None)
            return images.encode(params, x)

        bound = hj.make_bound(images.log_joint, make_proposal(counted), weighting=hj.power_heuristic(1.0))
        jax.eval_shape(jax.vmap(jax.grad(bound), in_axes=(None, 0, 0)), params, x, keys)
        return len(calls)

    def each_for_itself(encode):
        return hj.hierarchical(
            lambda params, x: images.base(params, encode(params, x)),
            lambda params, x, z0: images.conditionals(params, encode(params, x), z0),
            lambda params, x, z: images.reverse(params, encode(params, x), z),
        )

    assert traces(lambda encode: images.hiwae(encoder=encode)) == 1
    assert traces(each_for_itself) >= 3


def test_no_recompilation_at_the_second_step_nor_when_beta_changes():
    chex.clear_trace_counter()
    objective = hj.make_annealed_objective(
        images.log_joint, lambda params, x, z: -0.5 * jnp.sum(z**2), images.hiwae(), weighting=hj.power_heuristic(1.0)
    )

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, x, key, beta):
        gradient = jax.grad(lambda p: jnp.mean(jax.vmap(objective, (None, 0, 0, None))(p, x, key, beta)))(params)
        return jax.tree.map(lambda p, g: p + 1e-3 * g, params, gradient)

    params = images.init(2)
    x = jnp.zeros((4, images.PIXELS))
    for index in range(4):
        params = step(params, x, jax.random.split(jax.random.key(index), 4), 0.1 * index)
    chex.assert_tree_all_finite(params)
    # A control: another number of examples is another program.
    with pytest.raises(AssertionError, match="traced > 1 times"):
        step(params, x[:2], jax.random.split(jax.random.key(0), 2), 0.1)
