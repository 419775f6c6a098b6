"""Parameters that all members share: the gradients are those of copies, and there are no copies."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

import hiwae_jax as hj
from tests.models import quick_jit

K, D = 3, 2
KEY = jax.random.key(1)


def flow_shift(flow, z):
    """A small network of the first entry."""
    return flow["out"] @ jnp.tanh(flow["w"] @ jnp.stack([z, jnp.ones((), z.dtype)]))


def forward(parameters, noise):
    flow, loc = parameters
    first = loc[0] + jnp.exp(flow["log_scale"]) * noise[0]
    return jnp.stack([first, loc[1] + jnp.exp(flow["log_scale"]) * noise[1] + flow_shift(flow, first)])


def inverse(parameters, z):
    flow, loc = parameters
    return jnp.stack([z[0], z[1] - flow_shift(flow, z[0])]) * jnp.exp(-flow["log_scale"]) - loc * jnp.exp(
        -flow["log_scale"]
    )


def log_prob(parameters, z):
    return -0.5 * jnp.sum(inverse(parameters, z) ** 2) - D * parameters[0]["log_scale"] - math.log(2.0 * math.pi)


# Nothing in these parameters, a flow and a location, has to be first.
FLOW = hj.Family(forward, inverse, log_prob, noise_like=D)


def params(hidden=4, members=K):
    random = np.random.default_rng(0)
    shapes = {"loc": (members, D), "along": (members, D), "base": (2, D), "r": (D, D)}
    arrays = {name: jnp.asarray(0.5 * random.normal(size=shape)) for name, shape in shapes.items()}
    weights = {"w": random.normal(size=(hidden, 2)), "out": random.normal(size=hidden), "log_scale": np.array(-0.2)}
    return {**arrays, "flow": jax.tree.map(jnp.asarray, weights)}


def log_joint(params, x, z):
    return -0.5 * jnp.sum((z - 0.3) ** 2) - 0.5 * jnp.sum((x - jnp.sin(1.3 * z)) ** 2)


def copies(num):
    """In place of `hj.Shared`: a copy for each of so many members."""
    return lambda tree: jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)), tree)


def hierarchical(mark, *, family=FLOW, take=lambda flow: flow, **options):
    """K members with one flow. `mark` says how it is shared."""
    base = lambda p, x: (p["base"][0], jnp.exp(p["base"][1]))

    def conditionals(p, x, z0):
        loc = p["loc"] + p["along"] * jnp.tanh(z0)[None, :]
        return mark(take(p["flow"])), loc[:1] if "num_samples" in options else loc

    reverse = lambda p, x, z: (jnp.tanh(z @ p["r"]), 0.7 * jnp.ones_like(z))
    return hj.hierarchical(base, conditionals, reverse, family=family, **options)


def flow_of_z0(mark):
    """z_0 and its reverse model have the flow."""
    base = lambda p, x: (p["flow"], p["base"][0])
    conditionals = lambda p, x, z0: (p["loc"] + z0[None, :], jnp.ones((K, D)))
    return hj.hierarchical(base, conditionals, lambda p, x, z: (mark(p["flow"]), z @ p["r"]), base_family=FLOW)


def defensive(mark):
    """Narrow and broad samples with one flow."""
    one = lambda row: lambda p, x: (mark(p["flow"]), p["loc"][row])
    return hj.defensive(one(0), one(1), num_samples=K, family=FLOW)


def unmarked(tree):
    return tree


# A proposal for each layout of the parameters, with marks and with copies. When this was written, value and gradient of
# all proposals x weightings x rules, with and without chunks, agreed to 1e-14.
CASES = [
    (hierarchical(hj.Shared), hierarchical(copies(K)), 2.0, "doubly_reparameterized"),
    (
        hierarchical(hj.Shared, shared=False, num_samples=K),
        hierarchical(copies(1), shared=False, num_samples=K),
        0.0,
        "doubly_reparameterized",
    ),
    (flow_of_z0(hj.Shared), flow_of_z0(copies(K)), 0.0, "score_function"),
    (defensive(hj.Shared), defensive(unmarked), 1.0, "path_squared"),
]
TABLES = [hierarchical(mark, shared=False) for mark in (hj.Shared, copies(K))]


def gradients(proposals):
    """Value and gradient of a bound of each proposal, with the weighting and rule of its case."""
    bounds = [
        hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(alpha), gradient=rule)
        for proposal, (_, _, alpha, rule) in zip(proposals, CASES, strict=True)
    ]
    return lambda params: [jax.value_and_grad(bound)(params, 0.3, KEY) for bound in bounds]


@pytest.mark.usefixtures("double_precision")
def test_gradients_are_those_of_copies_under_every_rule():
    of_marks, of_copies = gradients([case[0] for case in CASES]), gradients([case[1] for case in CASES])
    tables = [hj.make_log_weights(log_joint, table, weighting=hj.power_heuristic(1.0)) for table in TABLES]
    of_tables = lambda p: [weights(p, 0.3, KEY) for weights in tables]
    found, expected, weights = quick_jit(lambda p: (of_marks(p), of_copies(p), of_tables(p)))(params())
    np.testing.assert_allclose(*weights, rtol=1e-9)
    for ours, theirs in zip(found, expected, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, theirs)
        assert np.all(np.abs(ours[1]["flow"]["w"]) > 1e-8)


@pytest.mark.usefixtures("double_precision")
def test_a_family_that_closes_over_its_parameters_loses_gradient():
    """The control of the test above: the value is right, and under a rule that replaces scores the gradient is not."""

    def closed_over(gradient):
        def loss(params):
            flow = params["flow"]
            family = hj.Family(
                lambda loc, noise: forward((flow, loc), noise),
                lambda loc, z: inverse((flow, loc), z),
                lambda loc, z: log_prob((flow, loc), z),
            )
            conditional = lambda p, x: p["loc"][0]
            proposal = hj.independent(conditional, num_samples=K, family=family)
            return hj.make_bound(log_joint, proposal, gradient=gradient)(params, 0.3, KEY)

        return loss

    marked = hj.independent(lambda p, x: (hj.Shared(p["flow"]), p["loc"][0]), num_samples=K, family=FLOW)

    def exact(gradient):
        return lambda params: hj.make_bound(log_joint, marked, gradient=gradient)(params, 0.3, KEY)

    @quick_jit
    def both(params):
        rules = ("reparameterized", "doubly_reparameterized")
        return [[jax.value_and_grad(make(rule))(params) for make in (closed_over, exact)] for rule in rules]

    plain, doubly = both(params())
    np.testing.assert_allclose(plain[0][1]["flow"]["w"], plain[1][1]["flow"]["w"], rtol=1e-9)
    np.testing.assert_allclose(doubly[0][0], doubly[1][0], rtol=1e-12)
    assert np.max(np.abs(doubly[0][1]["flow"]["w"] - doubly[1][1]["flow"]["w"])) > 1e-2


def shapes_of(program):
    """The shapes of all arrays that a program makes, those of its inner programs included."""
    for equation in (program.jaxpr if isinstance(program, ClosedJaxpr) else program).eqns:
        yield from (result.aval.shape for result in equation.outvars)
        is_program = lambda leaf: isinstance(leaf, (Jaxpr, ClosedJaxpr))
        for leaf in filter(is_program, jax.tree.leaves(equation.params, is_leaf=is_program)):
            yield from shapes_of(leaf)


@pytest.mark.parametrize("shared", [True, False])
def test_there_are_no_copies(shared):
    """No array is as large as K copies of the flow's matrix, forward or backward, for one example or for a batch."""
    hidden, members, batch = 41, 5, 3

    def copies_of_the_matrix(mark, gradient):
        proposal = hierarchical(mark, shared=shared)
        bound = hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(1.0), gradient=gradient)
        mean = lambda p, x, keys: jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(p, x, keys))
        arguments = params(hidden, members), jnp.ones(batch), jax.random.split(KEY, batch)
        shapes = shapes_of(jax.make_jaxpr(jax.grad(mean))(*arguments))
        return {shape for shape in shapes if {hidden, 2} <= set(shape) and math.prod(shape) > 2 * hidden}

    for gradient in ("reparameterized", "doubly_reparameterized"):
        assert copies_of_the_matrix(hj.Shared, gradient) == set()
    assert copies_of_the_matrix(copies(members), "doubly_reparameterized")


def drawn(proposal):
    return lambda: jax.eval_shape(proposal.draw, params(), None, KEY)


def of_z0(p, x, z0):
    return hj.Shared({**p["flow"], "log_scale": z0[0]}), p["loc"]


UNIT = (lambda p, x: (jnp.zeros(2), jnp.ones(2))), (lambda p, x, z: (z, jnp.ones_like(z)))
WRONG = {
    "what depends on z_0": (
        drawn(hj.hierarchical(UNIT[0], of_z0, UNIT[1], family=FLOW, shared=False)),
        r"conditionals: expected the same hj.Shared at every z_0, .* got one that depends on z_0; leave out",
    ),
    "a Gaussian": (
        drawn(hj.hierarchical(UNIT[0], lambda p, x, z0: (p["loc"], hj.Shared(jnp.ones(2))), UNIT[1])),
        r"conditionals: expected loc and scale with a row for each sample, got hj.Shared, .* broadcast",
    ),
    "everything": (
        drawn(hj.hierarchical(UNIT[0], lambda p, x, z0: hj.Shared((p["flow"], p["loc"][0])), UNIT[1], family=FLOW)),
        r"conditionals: expected arrays with a row for each sample, got nothing that has rows",
    ),
    "integers": (
        drawn(hj.hierarchical(UNIT[0], lambda p, x, z0: (hj.Shared(jnp.arange(2)), p["loc"]), UNIT[1], family=FLOW)),
        r"conditionals: expected floating-point arrays in hj.Shared, got dtype int32",
    ),
    "a chain": (
        drawn(
            hj.markov(
                lambda p, x: (p["flow"], p["loc"][0]),
                lambda p, x, z, n: (hj.Shared(p["flow"]), z),
                lambda p, x, z, n: (p["flow"], z),
                num_samples=2,
                family=FLOW,
            )
        ),
        r"transition: expected parameters of one step of the chain, got hj.Shared; leave it out",
    ),
    "different arrays": (
        drawn(defensive(lambda flow: hj.Shared(jax.tree.map(jnp.sin, flow)))),
        r"broad: expected in hj.Shared the very arrays that conditional has there, got others",
    ),
    "a defensive Gaussian": (
        drawn(hj.defensive(*[lambda p, x: (jnp.zeros(2), hj.Shared(p["base"][0]))] * 2, num_samples=2)),
        r"conditional: expected \(loc, scale\), got hj.Shared, .* leave it out",
    ),
}


@pytest.mark.parametrize("title", WRONG)
def test_where_nothing_can_be_shared(title):
    make, message = WRONG[title]
    with pytest.raises((TypeError, ValueError)) as error:
        make()
    assert re.match(message, str(error.value)), str(error.value)


def test_what_depends_on_a_z0_that_all_members_share_may_be_shared():
    found = drawn(hj.hierarchical(UNIT[0], of_z0, UNIT[1], family=FLOW))()
    assert found.parameters[0].value["w"].shape == (4, 2)


def test_a_shared_part_that_depends_on_a_sample_is_found_out():
    """It would make every row of a reverse model depend on all samples."""
    reverse = lambda p, x, z: (hj.Shared({**p["flow"], "log_scale": jnp.mean(z)}), z)
    base = lambda p, x: (p["flow"], p["loc"][0])
    proposal = hj.hierarchical(base, lambda p, x, z0: (p["loc"], jnp.ones((K, D))), reverse, base_family=FLOW)
    with pytest.raises(ValueError, match=r"reverse: row j changes with samples other than z\[j\]"):
        jax.eval_shape(hj.make_bound(log_joint, proposal), params(), jnp.zeros(()), KEY)
