"""No two random numbers of one example are the same: not those of z_0, samples and refills, nor what a bound adds."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from hiwae_jax._random_streams import Stream, stream_key

KEY = jax.random.key(11)
K, D, D0 = 4, 3, 2


def family(derive):
    """A family whose z is its noise, drawn uniformly with a key that the sampler derives."""
    return hj.Family(
        forward=lambda parameters, noise: noise + 0.0 * parameters[0],
        inverse=lambda parameters, z: z,
        log_prob=lambda parameters, z: jnp.sum(0.0 * z),
        sampler=lambda key, shape, dtype: jax.random.uniform(derive(key), shape, dtype),
    )


SAMPLERS = {
    "the key": lambda key: key,
    "first half of the key": lambda key: jax.random.split(key)[0],
    "second half of the key": lambda key: jax.random.split(key)[1],
    "last of a thousand": lambda key: jax.random.split(key, 1000)[-1],
    "key folded with 1": lambda key: jax.random.fold_in(key, 1),
}


def one(size):
    return lambda params, x, *_: (jnp.zeros(size), jnp.ones(size))


def rows(size, count=K):
    return lambda params, x, *_: (jnp.zeros((count, size)), jnp.ones((count, size)))


def hierarchical(members, base, *, shared, num_samples=None):
    conditionals = rows(D, K if num_samples is None else 1)
    options = {"shared": shared, "num_samples": num_samples, "family": members, "base_family": base}
    return hj.hierarchical(one(D0), conditionals, rows(D0), **options)


def identity(params, x, z):
    return z, jnp.zeros(())


def joint(sampler):
    def conditional(params, x):
        return jnp.zeros((K, D)), jnp.broadcast_to(jnp.eye(K), (D, K, K))

    return hj.joint_gaussian(conditional, sampler=sampler)


# What each proposal draws afresh, from what it has drawn.
PROPOSALS = {
    "independent": lambda q: (hj.independent(one(D), num_samples=K, family=q), lambda draw: [draw.z]),
    "antithetic": lambda q: (hj.antithetic(one(D), num_samples=K, family=q), lambda draw: [draw.z[: K // 2]]),
    "defensive": lambda q: (
        hj.defensive(one(D), one(D), num_samples=K, family=q),
        lambda draw: [draw.z, draw.refill[0]],
    ),
    "mixture": lambda q: (hj.mixture(rows(D, 5), num_samples=K, family=q), lambda draw: [draw.z]),
    "joint_gaussian": lambda q: (joint(q.sampler), lambda draw: [draw.z]),
    "flow_chain": lambda q: (
        hj.flow_chain(one(D), [hj.Bijection(identity, identity)], family=q),
        lambda draw: [draw.z[0]],
    ),
    "markov": lambda q: (hj.markov(one(D), one(D), one(D), num_samples=K, family=q), lambda draw: [draw.z]),
}


def of_shared(draw):
    """The rows of a shared z_0 are equal, and refills have the same one."""
    return [draw.z, draw.z0[:1], *([] if draw.refill is None else [draw.refill[0]])]


def of_own(draw):
    return [draw.z, draw.z0, *([] if draw.refill is None else draw.refill)]


def all_different(numbers):
    """Whether no number comes twice; the choice of backward samples is one of them."""
    numbers = np.concatenate([np.ravel(array) for array in numbers])
    return len(np.unique(numbers)) == len(numbers)


def drawn(proposal, parts):
    gradient = "refilled" if proposal.refills else "reparameterized"
    weighting = hj.power_heuristic(1.0) if proposal.refills else None
    log_joint = lambda params, x, z: jnp.sum(z)
    bound = hj.make_bound(log_joint, proposal, weighting=weighting, gradient=gradient, backward_samples=1)
    draw = bound.draw(None, None, KEY)
    return [*parts(draw), draw.uniform]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", PROPOSALS)
def test_with_one_sampler_no_number_comes_twice(name, sampler):
    proposal, parts = PROPOSALS[name](family(SAMPLERS[sampler]))
    assert all_different(drawn(proposal, parts))


@pytest.mark.parametrize(("members", "base"), list(itertools.product(SAMPLERS, SAMPLERS)))
@pytest.mark.parametrize("shared", [True, False])
def test_with_two_samplers_no_number_comes_twice(members, base, shared):
    """Also where both are the same function: then all noise is drawn in one call."""
    of_members = family(SAMPLERS[members])
    of_base = of_members if members == base else family(SAMPLERS[base])
    for num_samples in (None, K):
        proposal = hierarchical(of_members, of_base, shared=shared, num_samples=num_samples)

        assert all_different(drawn(proposal, of_shared if shared else of_own))


def test_the_control_finds_a_key_that_is_used_twice():
    """The number that chose backward samples came from the first half of the key, and so may a sampler's."""
    q = family(SAMPLERS["first half of the key"])
    z = hj.independent(one(1), num_samples=1, family=q).draw(None, None, KEY).z
    assert not all_different([z, jax.random.uniform(jax.random.fold_in(KEY, 0))])


def test_streams_are_far_from_the_numbers_that_users_fold_in():
    assert len({stream.value for stream in Stream}) == len(Stream)
    assert min(Stream) > 2**31
    with pytest.raises(TypeError, match="key: expected a typed key"):
        stream_key(jnp.zeros(2, jnp.uint32), Stream.BACKWARD_CHOICE)


def test_the_choice_of_backward_samples_is_independent_of_z0_with_two_families():
    """The choice once was the noise of z_0: the mean gradient was then 30 standard errors off."""

    def conditionals(params, x, z0):
        return params["m"] + params["g"] * z0[None, :] * jnp.ones((2, 1)), 0.7 * jnp.ones((2, 1))

    proposal = hj.hierarchical(
        lambda params, x: (params["b"], jnp.ones(1)),
        conditionals,
        lambda params, x, z: (0.5 * z, jnp.ones_like(z)),
        family=hj.student_t(5.0),
        base_family=hj.diagonal_gaussian,
    )
    log_joint = lambda params, x, z: -jnp.sum((params["w"] * z - 1.0) ** 2) - 0.5 * jnp.sum(z**2)
    params = {"m": jnp.array([[0.8], [-0.8]]), "g": jnp.float32(1.0), "b": jnp.zeros(1), "w": jnp.float32(1.3)}
    every, one_sample = (hj.make_bound(log_joint, proposal, backward_samples=count) for count in (None, 1))

    @jax.jit
    @jax.vmap
    def difference(key):
        return jax.tree.map(jnp.subtract, jax.grad(one_sample)(params, None, key), jax.grad(every)(params, None, key))

    for leaf in jax.tree.leaves(difference(jax.random.split(jax.random.key(7), 8_000))):
        values = np.asarray(leaf, np.float64).reshape(8_000, -1)
        z = values.mean(axis=0) / (values.std(axis=0) / np.sqrt(len(values)))
        assert np.max(np.abs(z)) < 4.5
