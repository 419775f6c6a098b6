"""What the caller's functions return, and calls that look right: errors that name the function and the remedy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from hiwae_jax import nn
from tests.unit_normal import KEY, UNIT, X, base, conditional, conditionals, log_joint, reverse

MATRIX, SCALAR = (jnp.zeros((2, 3)), jnp.ones((2, 3))), (jnp.zeros(()), jnp.ones(()))


class Normal:
    """A distribution object, as other libraries have them."""


@jax.tree_util.register_pytree_node_class
class NormalOfArrays:
    """A distribution object that JAX can look into."""

    def tree_flatten(self):
        """Its loc and scale."""
        return UNIT, None

    @classmethod
    def tree_unflatten(cls, _, arrays):
        """The same again."""
        return cls()


def evaluate(*, conditional=conditional, log_joint=log_joint, x=X, key=KEY, **options):
    """The value of a bound of three independent samples."""
    return hj.make_bound(log_joint, hj.independent(conditional, num_samples=3), **options)(None, x, key)


def hierarchical(*, base=base, conditionals=conditionals, reverse=reverse, chunk_size=None, alpha=0.0, **options):
    """The value of a bound of three hierarchical samples."""
    proposal = hj.hierarchical(base, conditionals, reverse, **options)
    weighting = hj.power_heuristic(alpha)
    return hj.make_bound(log_joint, proposal, weighting=weighting, chunk_size=chunk_size)(None, X, KEY)


def annealed(log_prior=log_joint, beta=1.0):
    """The value of an annealed objective."""
    proposal = hj.independent(conditional, num_samples=3)
    return hj.make_annealed_objective(log_joint, log_prior, proposal)(None, X, KEY, beta)


def batched(objective, batch=None, **options):
    """Value and gradient of a batch of four."""
    batch = jnp.zeros((4, 2)) if batch is None else batch
    return hj.batched_value_and_grad(objective, **options)(jnp.zeros(2), batch, KEY)


def chained(bijection):
    """Two samples of a flow chain."""
    return hj.flow_chain(base, [bijection]).draw(None, X, KEY)


def three_rows(params, x, z):
    """A reverse model with its K typed into it."""
    return jnp.zeros((3, 2)) + z, jnp.ones((3, 2))


ENTRIES = {
    # What a conditional returns.
    "a distribution": (
        lambda: evaluate(conditional=lambda p, x: Normal()),
        r"conditional: .* got Normal; return the arr",
    ),
    "a distribution of arrays": (
        lambda: evaluate(conditional=lambda p, x: NormalOfArrays()),
        r"conditional: expected a pair of arrays \[D\], got NormalOfArrays",
    ),
    "a dict": (
        lambda: evaluate(conditional=lambda p, x: dict(zip(("loc", "scale"), UNIT, strict=True))),
        r"conditional: expected a pair of arrays \[D\], got dict",
    ),
    "distributions": (
        lambda: evaluate(conditional=lambda p, x: [Normal()] * 2),
        r"conditional: .* such as \(loc, scale\)",
    ),
    "a dict z": (
        lambda: evaluate(conditional=lambda p, x: {"a": MATRIX, "b": jnp.zeros(())}),
        r"conditional: expected arrays \[D\] .*return a pair \(loc, scale\) of its structure",
    ),
    "a dict of loc and scale": (
        lambda: evaluate(conditional=lambda p, x: {"loc": jnp.zeros(2), "scale": jnp.ones(2)}),
        r"conditional: expected a pair of arrays \[D\], got dict",
    ),
    "nothing": (lambda: evaluate(conditional=lambda p, x: None), r"conditional: expected arrays \[D\] .* got nothing"),
    "one array": (lambda: evaluate(conditional=lambda p, x: jnp.zeros(2)), r"conditional: expected a pair"),
    "unequal shapes": (
        lambda: evaluate(conditional=lambda p, x: (jnp.zeros(2), jnp.ones(1))),
        r"conditional: expected a pair of arrays of equal shape .* nothing is broadcast",
    ),
    "integers": (
        lambda: evaluate(conditional=lambda p, x: (jnp.zeros(2, int), jnp.ones(2, int))),
        r"conditional: expected floating-point arrays \[D\], got dtype int32",
    ),
    # What a log-joint returns, and takes.
    "a vector density": (
        lambda: evaluate(log_joint=lambda p, x, z: -(z**2)),
        r"log_joint: expected a scalar .* sum the",
    ),
    "an integer density": (
        lambda: evaluate(log_joint=lambda p, x, z: 1),
        r"log_joint: expected a scalar array, got int",
    ),
    "a density pair": (
        lambda: evaluate(log_joint=lambda p, x, z: (z.sum(), z)),
        r"log_joint: expected a scalar array, got tuple",
    ),
    "no density": (
        lambda: evaluate(log_joint=lambda p, x, z: None),
        r"log_joint: expected a scalar array, got NoneType",
    ),
    "two arguments": (
        lambda: evaluate(log_joint=lambda p, z: z.sum()),
        r"log_joint: expected a function \(params, x, z\) -> scalar, got one that takes \(p, z\)",
    ),
    "a prior of two arguments": (
        lambda: annealed(log_prior=lambda p, z: z.sum()),
        r"log_prior: expected a function \(params, x, z\) -> scalar, got one that takes \(p, z\)",
    ),
    "a prior of a vector": (
        lambda: annealed(log_prior=lambda p, x, z: z),
        r"log_prior: expected a scalar .* got shape \(2",
    ),
    # Hierarchical proposals.
    "a vector of members": (
        lambda: hierarchical(conditionals=lambda p, x, z0: UNIT),
        r"reverse: expected rows of \(2,\) to match z_0 from base, got rows of \(\);",  # two members of a scalar z
    ),
    "a member distribution": (
        lambda: hierarchical(conditionals=lambda p, x, z0: Normal()),
        r"conditionals: expected arrays \[K, D\], got Normal; return the arrays",
    ),
    "a base of one array": (lambda: hierarchical(base=lambda p, x: jnp.zeros(2)), r"base: expected a pair"),
    "a reverse model of vectors": (
        lambda: hierarchical(reverse=lambda p, x, z: UNIT),
        r"reverse: expected 3 rows, one for each sample",
    ),
    "a reverse model of two rows": (
        lambda: hierarchical(reverse=lambda p, x, z: (jnp.zeros((2, 2)), jnp.ones((2, 2)))),
        r"reverse: expected 3 rows, one for each sample",
    ),
    "a reverse model of another size": (
        lambda: hierarchical(reverse=lambda p, x, z: (jnp.zeros((3, 5)), jnp.ones((3, 5)))),
        r"reverse: expected rows of \(2,\) to match z_0 from base, got rows of \(5,\)",
    ),
    "K typed into a reverse model": (
        lambda: hierarchical(reverse=three_rows, alpha=1.0, chunk_size=1),
        r"reverse: with chunk_size it is called with one sample at a time.*\(1, 2\).*z.shape\[0\]",
    ),
    "members of one row": (lambda: hierarchical(num_samples=3), r"conditionals: .*\[1, D\] \(num_samples was given"),
    # Numbers that are no numbers, and calls by place.
    "text for a flag": (lambda: hierarchical(shared="no"), r"shared: expected True or False, got 'no'"),
    "text for beta": (lambda: annealed(beta="1"), r"beta: expected a number, got '1'"),
    "a flag for beta": (lambda: annealed(beta=True), r"beta: expected a number, got True"),
    "a negative beta": (lambda: annealed(beta=-0.5), r"beta: expected a finite number of at least 0, got -0.5"),
    "a vector for beta": (lambda: annealed(beta=jnp.ones(1)), r"beta: expected a scalar, got shape \(1,\)"),
    "text for alpha": (lambda: hj.power_heuristic("1"), r"alpha: expected a number, got '1'"),
    "a flag for alpha": (lambda: hj.power_heuristic(True), r"alpha: expected a number, got True"),
    "a weighting of alpha -1": (
        lambda: hj.Weighting(alpha=-1),
        r"alpha: expected a finite number of at least 0, got -1.0",
    ),
    "a weighting of both": (
        lambda: hj.Weighting(alpha=1.0, logits=lambda p, x, z, z0: z),
        r"alpha: expected 0 where logits are given, got 1.0",
    ),
    "a number by place": (
        lambda: hj.independent(conditional, 5),
        r"independent: too many positional arguments; give num_samples, family, sampler, sharding by name",
    ),
    "no number": (
        lambda: hj.independent(conditional),
        r"independent: missing a required (keyword-only )?argument: 'num_samples'",  # of Python's own words
    ),
    "an unknown option": (
        lambda: hj.make_bound(log_joint, None, K=3),
        r"make_bound: got an unexpected keyword argument 'K'",
    ),
    "a weighting by place": (lambda: hj.make_bound(log_joint, None, None), r"make_bound: too many .* give weighting, "),
    # Weights for resampling.
    "log-weights": (
        lambda: hj.systematic_resample(KEY, jnp.log(jnp.array([0.5, 0.3, 0.2])), num_samples=3),
        r"weights: expected numbers of at least 0, got -1.60944; take the exponential of log-weights first",
    ),
    "a negative weight": (
        lambda: hj.systematic_resample(KEY, jnp.array([0.5, -0.1, 0.6]), num_samples=3),
        r"weights: expected numbers of at least 0, got -0.1",
    ),
    "a NaN weight": (
        lambda: hj.systematic_resample(KEY, jnp.array([0.5, jnp.nan]), num_samples=3),
        r"weights: expected numbers of at least 0, got nan",
    ),
    # Pixels.
    "grey levels": (
        lambda: nn.bernoulli_log_prob(jnp.zeros(2), jnp.array([0, 255])),
        r"x: expected pixels in \[0, 1\], got values from 0 to 255; divide grey levels by 255",
    ),
    "pixels of -1": (
        lambda: nn.bernoulli_log_prob(jnp.zeros(2), jnp.array([-1.0, 1.0])),
        r"x: expected pixels in \[0, 1\], got values from -1 to 1",
    ),
    "pixels that are NaN": (
        lambda: nn.bernoulli_log_prob(jnp.zeros(2), jnp.array([jnp.nan, 1.0])),
        r"x: expected pixels in \[0, 1\], got values from nan to nan",
    ),
    "pixels and logits exchanged": (
        lambda: nn.bernoulli_log_prob(jnp.ones(2, int), jnp.zeros(2)),
        r"logits: expected a floating-point array, got dtype int32; are these the pixels",
    ),
    "traced pixels of another shape": (
        lambda: jax.jit(nn.bernoulli_log_prob)(jnp.zeros(2), jnp.zeros((3, 2))),
        r"x: expected the shape of logits \[..., P\], \(2,\), got \(3, 2\)",
    ),
    "bits of 2": (
        lambda: hj.bernoulli.log_prob(jnp.zeros(2), jnp.array([0.0, 2.0])),
        r"z: expected zeros and ones, got values from 0 to 2",
    ),
    # Minibatches.
    "an objective of a pair": (
        lambda: batched(lambda p, x, key: (p.sum(), x)),
        r"objective: expected a scalar for one example, got a tuple; for further results use has_aux=True",
    ),
    "an objective without aux": (
        lambda: batched(lambda p, x, key: p.sum(), has_aux=True),
        r"objective: with has_aux=True expected a function with a pair \(scalar, aux\), got ",
    ),
    "an objective of a vector": (
        lambda: batched(lambda p, x, key: p),
        r"objective: .* scalar value .* got shape \(2,\)",
    ),
    "no examples": (
        lambda: batched(lambda p, x, key: p.sum(), batch=jnp.zeros((0, 2))),
        r"batch: expected arrays with one leading axis of examples, at least one",
    ),
    # Densities of discrete latents, log-weights of evidence.
    "logits of a vector": (
        lambda: hj.make_discrete_bound(log_joint, lambda p, x: jnp.zeros(2), num_samples=2, family=hj.categorical)(
            None, X, KEY
        ),
        r"parameters: expected one array of logits \[D, C\] for one example, got shape \(2,\)",
    ),
    "log-weights of a batch": (
        lambda: hj.make_log_evidence(lambda p, x, key: jnp.zeros((2, 3)), num_draws=2)(None, X, KEY),
        r"log_weights: expected log-weights \[K\] of one example, got shape \(2, 3\)",
    ),
    "a shape of a map": (
        lambda: hj.flow_chain(base, [hj.Bijection(lambda p, x, z: z, lambda p, x, z: z)]).draw(None, X, KEY),
        r"maps\[0\].forward: expected \(point \(2,\), scalar log\|det\|\), got shapes",
    ),
    "one array for a shift and a scale": (
        lambda: chained(hj.affine_map(lambda p, x: jnp.zeros(2))),
        r"conditional: expected a pair of arrays \(shift, scale\) of the shape of z, \(2,\), got ArrayImpl",
    ),
    "a shift of another shape": (
        lambda: chained(hj.affine_map(lambda p, x: (jnp.zeros(3), jnp.ones(3)))),
        r"conditional: expected a pair of arrays .* got shape \(3,\)",
    ),
    "a shift of integers": (
        lambda: chained(hj.coupling_map(lambda p, x, z: (jnp.zeros(2, int), z), kept=[True, False])),
        r"conditional: expected a pair of arrays .* got dtype int32",
    ),
    "columns for booleans": (
        lambda: hj.coupling_map(lambda p, x, z: (z, z), kept=[1, 0]),
        r"kept: expected booleans for D dimensions, some true and some false, got \[1, 0\]",
    ),
}


@pytest.mark.parametrize("title", ENTRIES)
def test_the_message(title):
    make, message = ENTRIES[title]
    with pytest.raises((TypeError, ValueError)) as error:
        make()
    told = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
    assert re.search(message, told), told
    assert told.splitlines()[0].startswith(message.split(":")[0].replace("\\", "")) or "chunk_size" in message


def test_lists_of_log_weights_are_arrays():
    assert float(hj.iwlb([0.0, 0.0])) == 0.0
    assert float(hj.effective_sample_size([0.0, 0.0])) == 2.0
    with pytest.raises(TypeError, match="log_weights: expected a floating-point array, got dtype int32"):
        hj.iwlb([0, 1])


def test_under_jit_weights_that_are_no_weights_leave_no_nan():
    """Their values are not known there: negative ones count as zero, and without a positive one all are equal."""
    resample = jax.jit(lambda weights: hj.systematic_resample(KEY, weights, num_samples=600))

    def counts(*weights):
        return np.bincount(np.asarray(resample(jnp.array(weights))), minlength=len(weights)).tolist()

    assert counts(0.5, -0.1, 0.5) == [300, 0, 300]
    assert counts(-1.0, -2.0, -3.0) == [200, 200, 200]
    assert counts(np.nan, 1.0, 1.0) == [200, 200, 200]
    assert counts(np.inf, 1.0, np.inf) == [300, 0, 300]
    assert counts(1e38, 2e38, 3e38) == [100, 200, 300]
    assert counts(1e-36, 2e-36, 3e-36) == [100, 200, 300]


def test_a_category_that_the_model_rules_out_is_no_nan():
    """A product of the one-hot z with a table that holds -inf is NaN at every z; indexing is right."""
    table = jnp.zeros(5).at[0].set(-jnp.inf)
    rest = lambda z: hj.categorical.log_prob(jnp.zeros((1, 5)), z)
    multiplied, indexed = lambda p, x, z: z[0] @ table + rest(z), lambda p, x, z: table[jnp.argmax(z[0])] + rest(z)

    def bound(log_joint):
        return hj.make_discrete_bound(log_joint, lambda p, x: p[None], num_samples=4, family=hj.categorical)

    logits = jnp.zeros(5)
    with pytest.warns(UserWarning, match=r"log_joint: NaN at a sample, so the bound is -inf.* index with jnp.argmax"):
        assert float(bound(multiplied)(logits, None, KEY)) == -np.inf
    value, gradient = jax.jit(jax.value_and_grad(bound(multiplied)))(logits, None, KEY)
    assert float(value) == -np.inf
    np.testing.assert_array_equal(gradient, 0.0)
    # E[w] = sum of the prior over the four categories that are left.
    values = jax.jit(jax.vmap(bound(indexed), in_axes=(None, None, 0)))(logits, None, jax.random.split(KEY, 4_000))
    weights = np.exp(np.asarray(values, np.float64))
    assert abs(weights.mean() - 0.8) < 4.0 * weights.std() / np.sqrt(len(weights))
    # What q itself makes NaN is not hidden.
    assert np.isnan(jax.jit(bound(indexed))(jnp.full(5, jnp.nan), None, KEY))
