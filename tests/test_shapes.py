"""A z that is no vector: all numbers are those of the same problem with a vector, and errors name their argument."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import hiwae_jax as hj
from tests.models import quick_jit

K, D, D0 = 3, 5, 3
Z = {"mu": jnp.zeros(()), "theta": jnp.zeros((2, 2))}
Z0 = (jnp.zeros(()), {"a": jnp.zeros(2)})
KEY = jax.random.key(3)
X = 0.3


class Vectors:
    """The problem as it is inside: z and z_0 are vectors."""

    def z(self, vector):
        return vector

    z0 = vector = vector0 = z


class Trees:
    """The same problem with pytrees."""

    def z(self, vector):
        return ravel_pytree(Z)[1](vector)

    def z0(self, vector):
        return ravel_pytree(Z0)[1](vector)

    def vector(self, tree):
        return ravel_pytree(tree)[0]

    vector0 = vector


VECTORS, TREES = Vectors(), Trees()


def params(dtype=None):
    random = np.random.default_rng(0)
    shapes = {"w": (D,), "a": (4, D), "b": (K, D, D0), "s": (4, D), "q0": (2, D0), "r": (D0, D), "l": (K, D + D0)}
    arrays = {name: 0.3 * random.normal(size=shape) for name, shape in {**shapes, "tril": (D, K, K)}.items()}
    return {name: jnp.asarray(array, dtype) for name, array in arrays.items()}


def problem(kind):
    """Log-joint, proposals and weightings."""
    rows = jax.vmap

    def log_joint(p, x, z):
        z = kind.vector(z)
        return -0.5 * jnp.sum(z**2) - 0.5 * jnp.sum((x - jnp.sin(p["w"] * z)) ** 2)

    def one(p, row):
        return kind.z(p["a"][row]), kind.z(jnp.exp(p["s"][row]))

    def base(p, x):
        return kind.z0(p["q0"][0] + x), kind.z0(jnp.exp(p["q0"][1]))

    def conditionals(p, x, z0):
        z0 = kind.vector0(z0)
        loc = p["a"][:K] + jnp.tanh(jnp.einsum("kde,e->kd", p["b"], z0))
        return rows(kind.z)(loc), rows(kind.z)(jnp.exp(p["s"][:K] + 0.1 * jnp.sin(z0[0])))

    def equal(p, x, z0):
        return jax.tree.map(lambda rows: rows[:1], conditionals(p, x, z0))

    def reverse(p, x, z):
        loc = jnp.tanh(rows(kind.vector)(z)) @ p["r"].T
        return rows(kind.z0)(loc), rows(kind.z0)(0.7 * jnp.ones_like(loc))

    def correlated(p, x):
        tril = jnp.tril(p["tril"]) + jnp.eye(K)[None]
        trees = tril if kind is VECTORS else {"mu": tril[0], "theta": tril[1:].reshape(2, 2, K, K)}
        return rows(kind.z)(p["a"][:K]), trees

    def step(p, x, z, number):
        return kind.z(0.5 * kind.vector(z) + p["a"][3]), kind.z(jnp.exp(p["s"][3]))

    def logits(p, x, z, z0):
        return p["l"] @ jnp.concatenate([kind.vector(z), jnp.zeros(D0) if z0 is None else kind.vector0(z0)])

    narrow, broad = (lambda p, x: one(p, 0)), (lambda p, x: one(p, 1))
    proposals = {
        "independent": hj.independent(narrow, num_samples=K),
        "student_t": hj.independent(
            narrow, num_samples=K, family=hj.student_t(4.0)._replace(sampler=hj.standard_normal)
        ),
        "positive": hj.independent(narrow, num_samples=K, family=hj.transformed(hj.diagonal_gaussian, hj.positive)),
        "antithetic": hj.antithetic(narrow, num_samples=4),
        "defensive": hj.defensive(narrow, broad, num_samples=K),
        "joint": hj.joint_gaussian(correlated),
        "mixture": hj.mixture(lambda p, x: conditionals(p, x, base(p, x)[0]), num_samples=K),
        "markov": hj.markov(narrow, step, step, num_samples=K),
        "rows": hj.hierarchical(base, conditionals, reverse),
        "table": hj.hierarchical(base, conditionals, reverse, shared=False),
        "one": hj.hierarchical(base, equal, reverse, num_samples=K),
        "own": hj.hierarchical(base, equal, reverse, num_samples=K, shared=False),
        "rows, reverse draws": hj.hierarchical(base, conditionals, reverse, reverse_samples=2),
        "own, reverse draws": hj.hierarchical(base, equal, reverse, num_samples=K, shared=False, reverse_samples=2),
    }
    return log_joint, proposals, logits


# When this was written, value and gradient of all 205 triples of a proposal, a weighting and a rule agreed to 1e-14.
VALUES = {
    "independent": 0.0,
    "defensive": 2.0,
    "joint": 1.0,
    "table": 1.0,
    "markov": "learned",
    "rows, reverse draws": 1.0,
}
GRADIENTS = [
    ("rows", "learned", {"gradient": "score_function"}),
    ("mixture", 0.0, {"gradient": "doubly_reparameterized"}),
    ("own, reverse draws", 0.0, {"gradient": "doubly_reparameterized"}),
]


@pytest.mark.usefixtures("double_precision")
def test_values_and_gradients_are_those_of_vectors():
    """Each way to draw and to weigh; where a rule asks how the members follow z_0, the gradients too."""

    def all_of(kind, params):
        log_joint, proposals, logits = problem(kind)
        weighting = lambda alpha: hj.learned_weighting(logits) if alpha == "learned" else hj.power_heuristic(alpha)
        values = {
            name: hj.make_log_weights(log_joint, proposals[name], weighting=weighting(alpha))(params, X, KEY)
            for name, alpha in VALUES.items()
        }
        bounds = [
            hj.make_bound(log_joint, proposals[name], weighting=weighting(alpha), **options)
            for name, alpha, options in GRADIENTS
        ]
        return values, [jax.value_and_grad(bound)(params, X, KEY) for bound in bounds]

    found, expected = quick_jit(lambda p: (all_of(TREES, p), all_of(VECTORS, p)))(params())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected)


def test_every_proposal_draws_the_structure():
    for name, proposal in problem(TREES)[1].items():
        drawn = jax.eval_shape(lambda p, proposal=proposal: proposal.draw(p, X, KEY).samples, params(jnp.float32))
        num = 4 if name == "antithetic" else K
        assert jax.tree.map(jnp.shape, drawn) == {"mu": (num,), "theta": (num, 2, 2)}, name


def test_under_every_transformation_and_in_every_function():
    """Batches, scans, a draw for all, placement on a mesh, log-weights, evidence and resampling."""
    log_joint, proposals, _ = problem(TREES)
    bound = hj.make_bound(log_joint, proposals["own"])
    log_weights = hj.make_log_weights(log_joint, proposals["own"])
    mesh = jax.make_mesh((1,), ("samples",), axis_types=(jax.sharding.AxisType.Auto,))
    narrow = lambda p, x: (TREES.z(p["a"][0]), TREES.z(jnp.exp(p["s"][0])))
    placed = hj.independent(narrow, num_samples=K, sharding=NamedSharding(mesh, P("samples")))
    batch, keys = jnp.array([0.3, -0.2]), jax.random.split(KEY, 2)

    @quick_jit
    def results(params):
        draws = jax.vmap(bound.draw, in_axes=(None, 0, 0))(params, batch, keys)
        weights = jax.vmap(log_weights, in_axes=(None, 0, 0))(params, batch, draws)
        each = lambda carry, xs: (carry, jax.value_and_grad(bound)(params, *xs))
        return {
            "draws": draws,
            "bounds": jax.nn.logsumexp(weights, axis=1),
            "scanned": jax.lax.scan(each, None, (batch, keys))[1],
            "batched": hj.batched_value_and_grad(bound, draw=bound.draw, chunk_size=1)(params, batch, KEY),
            "by keys": hj.batched_value_and_grad(bound, chunk_size=1)(params, batch, KEY),
            "evidence": hj.make_log_evidence(log_weights, num_draws=4, chunk_size=2)(params, X, KEY).estimate,
            "placed": hj.make_bound(log_joint, placed)(params, X, KEY),
            "unplaced": hj.make_bound(log_joint, proposals["independent"])(params, X, KEY),
        }

    found = results(params(jnp.float32))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    close(found["scanned"][0], found["bounds"])
    jax.tree.map(close, found["batched"], found["by keys"])
    close(found["placed"], found["unplaced"])
    assert np.isfinite(found["evidence"])
    one = jax.tree.map(lambda rows: rows[0], found["draws"])
    assert jax.tree.map(jnp.shape, one.samples) == {"mu": (K,), "theta": (K, 2, 2)}
    assert jax.tree.map(jnp.shape, found["draws"].samples) == {"mu": (2, K), "theta": (2, K, 2, 2)}
    np.testing.assert_array_equal(jax.vmap(TREES.vector)(one.samples), one.z)
    last = hj.posterior_resample(KEY, jnp.array([-jnp.inf, -jnp.inf, 0.0]), one.samples, num_samples=4)
    np.testing.assert_array_equal(last["theta"], jnp.stack([one.samples["theta"][-1]] * 4))


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_scalars_and_arrays(shape):
    """The evidence of a normal prior and a normal measurement of every entry is known."""
    seen = []

    def log_joint(p, x, z):
        seen.append(z.shape)
        return hj.diagonal_gaussian.log_prob((jnp.zeros(shape), jnp.ones(shape)), z) + hj.diagonal_gaussian.log_prob(
            (z, jnp.ones(shape)), x
        )

    posterior = lambda p, x: (0.5 * x, jnp.full(shape, jnp.sqrt(0.5)))
    x = jnp.full(shape, 0.7)
    exact = float(hj.diagonal_gaussian.log_prob((jnp.zeros(shape), jnp.full(shape, jnp.sqrt(2.0))), x))
    bound = hj.make_bound(log_joint, hj.independent(posterior, num_samples=2))
    assert float(quick_jit(bound)(None, x, KEY)) == pytest.approx(exact, abs=1e-5)
    assert set(seen) == {shape}
    members = lambda p, x, z0: jax.tree.map(lambda leaf: jnp.stack([leaf + 0.1 * z0.sum()] * 2), posterior(p, x))
    base, reverse = (lambda p, x: (jnp.zeros(shape), jnp.ones(shape))), (lambda p, x, z: (0.0 * z, jnp.ones_like(z)))
    drawn = jax.eval_shape(lambda: hj.hierarchical(base, members, reverse).draw(None, x, KEY))
    assert jax.eval_shape(lambda drawn: drawn.samples, drawn).shape == (2, *shape)


@pytest.mark.usefixtures("double_precision")
def test_leaves_of_several_dtypes_are_promoted():
    """Nothing is rounded on the way to log_joint; a number of Python's and half precision have no say."""
    dtypes = []

    def log_joint(p, x, z):
        dtypes.append({leaf.dtype.name for leaf in jax.tree.leaves(z)})
        return -sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(z))

    def value(**loc):
        scale = jax.tree.map(lambda leaf: 1.0 if isinstance(leaf, float) else jnp.ones_like(leaf), loc)
        bound = hj.make_bound(log_joint, hj.independent(lambda p, x: (loc, scale), num_samples=2))
        return jax.eval_shape(lambda: bound(None, None, KEY))

    value(a=jnp.float32(0.0), b=jnp.zeros(2, jnp.float64))
    value(a=jnp.float32(0.0), b=0.0, c=jnp.zeros(2, jnp.bfloat16))
    assert dtypes[0] == {"float64"}
    assert dtypes[-1] == {"float32"}


def independent(conditional):
    return lambda: hj.independent(conditional, num_samples=2).draw(None, X, KEY)


def hierarchical(**changed):
    """The value of a bound of three samples with other functions in some places."""
    functions = {
        "base": lambda p, x: ({"u": jnp.zeros(2)}, {"u": jnp.ones(2)}),
        "conditionals": lambda p, x, z0: ({"a": jnp.zeros(3)}, {"a": jnp.ones(3)}),
        "reverse": lambda p, x, z: ({"u": jnp.zeros((3, 2))}, {"u": jnp.ones((3, 2))}),
    }
    log_joint = changed.pop("log_joint", lambda p, x, z: -(z["a"] ** 2))
    return lambda: hj.make_bound(log_joint, hj.hierarchical(**functions | changed))(None, X, KEY)


TREE, OTHER = {"a": jnp.zeros(2)}, {"b": jnp.ones(2)}
WRONG = {
    "other structures": (
        independent(lambda p, x: (TREE, OTHER)),
        r"conditional: expected a pair \(loc, scale\) of one structure .* {'a': \(2,\)} and {'b': \(2,\)}; give every",
    ),
    "other shapes": (
        independent(lambda p, x: (TREE, {"a": jnp.ones(())})),
        r"conditional: expected a pair .* equal shapes, got {'a': \(2,\)} and {'a': \(\)}; .* nothing is broadcast",
    ),
    "integers": (
        independent(lambda p, x: ({"a": jnp.arange(2)}, TREE)),
        r"conditional: expected floating-point arrays \(loc, scale\), got dtype int32",
    ),
    "a dict in place of a pair": (
        independent(lambda p, x: {"loc": jnp.zeros((2, 2)), "scale": jnp.ones((2, 2))}),
        r"conditional: expected arrays \[D\] .* return a pair \(loc, scale\) of its structure",
    ),
    "members of other numbers": (
        hierarchical(conditionals=lambda p, x, z0: ({"a": jnp.zeros(3), "b": jnp.zeros((2, 4))},) * 2),
        r"conditionals: expected 3 rows, one for each sample, .* got \(3,\), \(2, 4\)",
    ),
    "one row and num_samples": (
        hierarchical(num_samples=3),
        r"conditionals: expected 1 rows",
    ),
    "a member without rows": (
        hierarchical(conditionals=lambda p, x, z0: ({"a": jnp.zeros(())},) * 2),
        r"conditionals: expected K rows, one for each sample",
    ),
    "a density for each entry": (
        hierarchical(log_joint=lambda p, x, z: jnp.stack([z["a"]] * 2)),
        r"log_joint: expected a scalar \(shape \(\)\) .* got shape \(2,\); sum",
    ),
    "another z_0": (
        hierarchical(reverse=lambda p, x, z: ({"v": jnp.zeros((3, 2))}, {"v": jnp.ones((3, 2))})),
        r"reverse: expected rows of {'u': \(2,\)} to match z_0 from base, got rows of {'v': \(2,\)}; return",
    ),
    "a vector for z_0": (
        hierarchical(reverse=lambda p, x, z: (jnp.zeros((3, 2)), jnp.ones((3, 2)))),
        r"reverse: expected rows of {'u': \(2,\)} to match z_0 from base, got rows of \(2,\); return",
    ),
    "another z in a chain": (
        lambda: hj.markov(lambda p, x: (TREE, TREE), lambda p, x, z, n: (OTHER, OTHER), print, num_samples=2).draw(
            None, X, KEY
        ),
        r"transition: expected arrays of shape {'a': \(2,\)}, that of z_1 from base, got {'b': \(2,\)}",
    ),
    "a flow of a tree": (
        lambda: hj.flow_chain(lambda p, x: (TREE, TREE), []).draw(None, X, KEY),
        r"base: expected arrays \[D\], since this proposal takes z for a vector, got a z of shape {'a': \(2,\)}; ravel",
    ),
    "shares of a tree": (
        lambda: hj.independent(
            lambda p, x: (TREE, TREE), num_samples=2, family=hj.transformed(hj.diagonal_gaussian, hj.simplex)
        ).draw(None, X, KEY),
        r"conditional: expected parameters \(2,\) of a family whose z has other entries than its noise, got {'a'",
    ),
    "correlated leaves": (
        lambda: hj.joint_gaussian(lambda p, x: (TREE, OTHER)).draw(None, X, KEY),
        r"conditional: expected loc \[K, D\] .* the leaves of loc are \[K, ...\]",
    ),
}


@pytest.mark.parametrize("title", WRONG)
def test_the_error_names_the_argument_and_the_remedy(title):
    make, message = WRONG[title]
    with pytest.raises((TypeError, ValueError)) as error:
        make()
    assert re.match(message, str(error.value)), str(error.value)


def test_a_dict_of_pairs_is_a_pair_of_dicts():
    """For one distribution and for rows of them, in values, gradients and structure."""
    loc = {"a": jnp.arange(6.0).reshape(2, 3) / 6.0, "b": jnp.float32(0.4)}
    scale = {"a": jnp.full((2, 3), 0.7), "b": jnp.float32(1.3)}
    rows = lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1, leaf + 0.3]), tree)
    pairs = lambda loc, scale: {name: (loc[name], scale[name]) for name in loc}

    def log_joint(params, x, z):
        return -0.5 * jnp.sum((z["a"] - x) ** 2) - 0.5 * (z["b"] - params) ** 2

    def bound(form):
        moved = lambda params, tree: jax.tree.map(lambda leaf: leaf + params, tree)
        one = hj.independent(lambda params, x: form(moved(params, loc), scale), num_samples=3)
        several = hj.hierarchical(
            lambda params, x: form(moved(params, loc), scale),
            lambda params, x, z0: form(moved(params + z0["b"], rows(loc)), rows(scale)),
            lambda params, x, z: form(z, jax.tree.map(jnp.ones_like, z)),
        )
        return [hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(1.0)) for proposal in (one, several)]

    def all_of(form):
        bounds = bound(form)
        at = jnp.float32(0.2), jnp.float32(1.0), jax.random.key(0)
        return [jax.value_and_grad(one)(*at) for one in bounds], [one.draw(*at).samples for one in bounds]

    chex.assert_trees_all_equal(*jax.jit(lambda: [all_of(pairs), all_of(lambda *trees: trees)])())
