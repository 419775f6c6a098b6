"""Functions of a user's that contradict each other are refused by name; those that agree are accepted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj

KEY = jax.random.key(0)
NORMAL, STUDENT = hj.diagonal_gaussian, hj.student_t(5.0)
AT = jnp.array([0.3, -1.0]), jnp.array([0.5, 2.0])
FULL_RANK = jnp.array([0.3, -1.0]), jnp.array([[0.5, 0.0], [-0.7, 2.0]])
LOGIT_NORMAL = hj.transformed(NORMAL, hj.unit_interval)


def uniform_noise(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype)


def uniform_log_prob(parameters, z):
    standardized = (z - parameters[0]) / parameters[1]
    inside = jnp.all((standardized >= 0.0) & (standardized <= 1.0))
    return jnp.where(inside, -jnp.sum(jnp.log(parameters[1])), -jnp.inf)


UNIFORM = hj.Family(NORMAL.forward, NORMAL.inverse, uniform_log_prob, uniform_noise)
"""Noise with edges, of which nobody says the density."""
UNNAMED_NORMAL = NORMAL._replace(sampler=lambda key, shape, dtype: jax.random.normal(key, shape, dtype))

RIGHT = {
    "diagonal Gaussian": (NORMAL, AT),
    "full rank": (hj.full_rank_gaussian, FULL_RANK),
    "far from zero": (NORMAL, (jnp.array([3e3, -1e4]), jnp.array([0.3, 0.01]))),
    "narrow": (NORMAL, (jnp.array([1.0, 2.0]), jnp.array([1e-6, 1e6]))),
    "Student 0.7": (hj.student_t(0.7), AT),
    "uniform": (UNIFORM, AT),
    "normal by another sampler": (UNNAMED_NORMAL, AT),
    "unit interval": (LOGIT_NORMAL, AT),
    "edges of the unit interval": (LOGIT_NORMAL, (jnp.array([9.0, -60.0]), jnp.array([1.0, 2.0]))),
    "box": (hj.transformed(NORMAL, hj.interval(jnp.array([-1.0, 5.0]), jnp.array([3.0, 5.5]))), AT),
    "positive": (hj.transformed(hj.full_rank_gaussian, hj.positive), FULL_RANK),
    "simplex": (hj.transformed(hj.full_rank_gaussian, hj.simplex), FULL_RANK),
    "positive Student": (hj.transformed(STUDENT, hj.positive), AT),
    "Student in the unit interval": (hj.transformed(hj.student_t(1.0), hj.unit_interval), AT),
    "Student on the simplex": (hj.transformed(hj.student_t(1.5), hj.simplex), AT),
}


@pytest.mark.parametrize("name", RIGHT)
def test_families_whose_functions_agree_are_accepted(name):
    family, parameters = RIGHT[name]
    hj.check_family(family, parameters, KEY)


def test_a_family_of_many_dimensions_is_accepted_in_float32():
    hj.check_family(NORMAL, (jnp.linspace(-9.0, 9.0, 60), jnp.linspace(0.01, 3.0, 60)), KEY)
    hj.check_family(UNIFORM, (jnp.linspace(-9.0, 9.0, 5), jnp.linspace(0.01, 3.0, 5)), KEY)


def off_by(family, nats):
    return family._replace(log_prob=lambda parameters, z: family.log_prob(parameters, z) - nats)


def scaled(family, factor):
    """The density of another scale."""
    return family._replace(log_prob=lambda parameters, z: family.log_prob((parameters[0], factor * parameters[1]), z))


def inverse_of(family, change):
    return family._replace(inverse=lambda parameters, z: change(parameters, z, family.inverse(parameters, z)))


WITHOUT_VOLUME = hj.transformed(
    NORMAL, hj.unit_interval._replace(inverse=lambda p, x, y: (hj.unit_interval.inverse(p, x, y)[0], jnp.zeros(())))
)
WITHOUT_SCALE = NORMAL._replace(log_prob=lambda parameters, z: NORMAL.log_prob(AT, z) + 0.0 * jnp.sum(parameters[1]))


def wrong_forward(parameters, noise):
    return parameters[0] + 1.01 * parameters[1] * noise


WRONG = {
    "constant -10": (off_by(NORMAL, 10.0), AT, r"log_prob: expected -?\d.* got .*off by -10.0000 at every draw"),
    "constant -0.5": (off_by(NORMAL, 0.5), AT, r"log_prob: .*off by -0.5000 at every draw"),
    "constant 0.01": (off_by(NORMAL, -0.01), AT, r"log_prob: .*off by 0.01"),
    "no Jacobian": (WITHOUT_VOLUME, AT, r"log_prob: .*look at its terms"),
    "density of another scale": (scaled(NORMAL, 1.02), AT, r"log_prob"),
    "full rank, constant": (off_by(hj.full_rank_gaussian, 0.5), FULL_RANK, r"log_prob: .*off by -0.5000"),
    "simplex, constant": (
        off_by(hj.transformed(hj.full_rank_gaussian, hj.simplex), 0.5),
        FULL_RANK,
        r"log_prob: .*off by -0.5000",
    ),
    "density is NaN": (
        NORMAL._replace(log_prob=lambda parameters, z: jnp.nan * jnp.sum(z)),
        AT,
        r"log_prob: .*got nan",
    ),
    "inverse gives z": (inverse_of(NORMAL, lambda p, z, e: z), AT, r"inverse: expected the noise .* got"),
    "inverse of another scale": (inverse_of(NORMAL, lambda p, z, e: 1.01 * e), AT, r"inverse: expected the noise"),
    "inverse without location": (inverse_of(NORMAL, lambda p, z, e: z / p[1]), AT, r"inverse: expected the noise"),
    "inverse swaps": (inverse_of(NORMAL, lambda p, z, e: e[::-1]), AT, r"inverse: expected the noise"),
    "forward alone": (
        NORMAL._replace(forward=wrong_forward),
        AT,
        r"forward: expected .* with which family.log_prob agr",
    ),
    "Student, constant -0.5": (off_by(STUDENT, 0.5), AT, r"log_prob: .*integrates to 1, got .* exp\(-0.50"),
    "Student, constant 0.05": (off_by(STUDENT, -0.05), AT, r"log_prob: .*integrates to 1, got .* exp\(0.05"),
    "Student, no scale": (
        STUDENT._replace(log_prob=lambda p, z: STUDENT.log_prob(p, z) + jnp.sum(jnp.log(p[1]))),
        AT,
        r"log_prob: expected the noise .* one log-density at all parameters",
    ),
    "Student, density of another scale": (scaled(STUDENT, 1.08), AT, r"log_prob: .* is below a point where"),
    "Student, other noise": (STUDENT._replace(sampler=hj.student_t(2.0).sampler), AT, r"log_prob: .* is below a point"),
    "Student, inverse": (inverse_of(STUDENT, lambda p, z, e: 1.01 * e), AT, r"inverse: expected the noise"),
    "uniform, constant -10": (off_by(UNIFORM, 10.0), AT, r"log_prob: .*integrates to 1, got .* exp\((-10.0|-9.9)"),
    "uniform, constant": (off_by(UNIFORM, 0.1), AT, r"log_prob: .*integrates to 1"),
    "not invertible": (
        NORMAL._replace(forward=lambda p, e: jnp.abs(e), inverse=lambda p, z: z),
        AT,
        r"forward: expected different z of different noise",
    ),
    "beyond the edge": (LOGIT_NORMAL, (jnp.array([30.0, 0.0]), jnp.ones(2)), r"forward: .*not rounded to an edge"),
    "constant forward": (NORMAL._replace(forward=lambda p, e: p[0] + 0.0 * e), AT, r"forward: .*log\|det\| = -inf"),
    "forward is infinite": (NORMAL._replace(forward=lambda p, e: e / 0.0), AT, r"forward: expected finite numbers"),
    "noise is NaN": (NORMAL._replace(sampler=lambda k, s, d: jnp.full(s, jnp.nan, d)), AT, r"sampler: expected finite"),
    "noise is a number": (NORMAL._replace(sampler=lambda k, s, d: jnp.ones(s, d)), AT, r"(sampler|log_prob)"),
    "shape of forward": (
        NORMAL._replace(forward=lambda p, e: e[:1]),
        AT,
        r"forward: expected one z .* got shape \(1,\)",
    ),
    "shape of inverse": (
        NORMAL._replace(inverse=lambda p, z: z[:1]),
        AT,
        r"inverse: expected noise .* got shape \(1,\)",
    ),
    "shape of log_prob": (NORMAL._replace(log_prob=lambda p, z: z), AT, r"log_prob: expected a scalar .* \(2,\); sum"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_family_that_contradicts_itself_is_refused_by_the_name_of_the_function(name):
    family, parameters, message = WRONG[name]
    with pytest.raises(ValueError, match=f"^family.{message}"):
        hj.check_family(family, parameters, KEY)


def test_what_is_no_family_or_no_parameters_is_refused():
    with pytest.raises(TypeError, match=r"family: expected hj.diagonal_gaussian, .* got Bijection"):
        hj.check_family(hj.positive, AT, KEY)
    with pytest.raises(ValueError, match=r"parameters: expected arrays \[D\] for one example, got \(3, 2\), \(3, 2\)"):
        hj.check_family(NORMAL._replace(noise_like=None), (jnp.zeros((3, 2)), jnp.ones((3, 2))), KEY)
    with pytest.raises(TypeError, match=r"parameters: expected floating-point arrays \[D\], got dtype int32"):
        hj.check_family(NORMAL, (jnp.zeros(2, int), jnp.ones(2, int)), KEY)


ROTATION = {
    "bias": jnp.array([0.1, -0.7, 0.4]),
    "kernel": jnp.array([[1.3, 0.2, -0.4], [0.1, 0.8, 0.5], [-0.6, 0.3, 1.1]]),
}
LINEAR = hj.Family(
    lambda p, noise: p["kernel"] @ noise + p["bias"],
    lambda p, z: jnp.linalg.solve(p["kernel"], z - p["bias"]),
    lambda p, z: (
        -0.5 * jnp.sum(jnp.linalg.solve(p["kernel"], z - p["bias"]) ** 2)
        - jnp.linalg.slogdet(p["kernel"])[1]
        - 1.5 * jnp.log(2.0 * jnp.pi)
    ),
    noise_like=lambda p: {"a": jnp.zeros(()), "b": jax.ShapeDtypeStruct(p["bias"][1:].shape, jnp.float32)},
)


def test_a_family_that_says_how_much_noise_it_takes():
    """Its parameters may be any pytree, and z too."""
    hj.check_family(LINEAR, ROTATION, KEY)
    hj.check_family(LINEAR._replace(noise_like=3), ROTATION, KEY)
    hj.check_family(NORMAL, ({"a": jnp.float32(0.3), "b": AT[0]}, {"a": jnp.float32(1.4), "b": AT[1]}), KEY)
    inverse = lambda p, z: jnp.linalg.solve(p["kernel"], z) - p["bias"]
    for noise_like in (3, LINEAR.noise_like):
        with pytest.raises(ValueError, match=r"family\.inverse: expected the noise"):
            hj.check_family(LINEAR._replace(inverse=inverse, noise_like=noise_like), ROTATION, KEY)
    drawn = hj.independent(lambda p, x: ROTATION, num_samples=2, family=LINEAR).draw(None, None, KEY)
    assert jax.tree.map(jnp.shape, drawn.samples) == {"a": (2,), "b": (2, 2)}
    np.testing.assert_array_equal(drawn.samples["b"], drawn.z[:, 1:])


BAD_SIZES = {
    "a number that is no size": (1.5, r"family.noise_like: expected an integer of at least 1, got 1.5"),
    "a flag": (True, r"family.noise_like: expected an integer of at least 1, got True"),
    "a function that returns nothing": (lambda p: None, r"family.noise_like: expected the number .* got None"),
    "one that returns integers": (lambda p: {"a": jnp.arange(3)}, r"family.noise_like: expected the number .* Array"),
    "another size": (
        lambda p: {"a": jnp.zeros(1)},
        r"family.noise_like: expected that of z from family.forward, \(2,\), got \(1,\)",
    ),
}


@pytest.mark.parametrize("title", BAD_SIZES)
def test_a_family_that_says_it_wrongly(title):
    noise_like, message = BAD_SIZES[title]
    family = NORMAL._replace(noise_like=noise_like, forward=lambda p, noise: p[0] + p[1] * noise)
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        hj.independent(lambda p, x: AT, num_samples=2, family=family).draw(None, None, KEY)


COUPLING = hj.coupling_map(lambda params, x, z: (params["w"] * jnp.sin(z[::-1]), x), kept=[True, False])
MAPS = {
    "affine": (hj.affine_map(lambda params, x: (x, -2.0 * jnp.ones(2))), None, jnp.array([3.0, -1.0])),
    "coupling": (COUPLING, {"w": jnp.float32(1.3), "name": "layer"}, jnp.array([0.5, 2.0])),
    "unit interval": (hj.unit_interval, None, None),
    "box": (hj.interval(-1.0, jnp.array([3.0, -0.5])), None, None),
    "positive": (hj.positive, None, None),
    "simplex": (hj.simplex, None, None),
}


@pytest.mark.parametrize("name", MAPS)
def test_bijections_whose_functions_agree_are_accepted_and_others_refused(name):
    bijection, params, x = MAPS[name]
    z = jnp.array([0.7, -1.9])
    hj.check_bijection(bijection, params, x, z)

    def changed(direction, change):
        function = getattr(bijection, direction)
        return bijection._replace(**{direction: lambda params, x, z: change(*function(params, x, z))})

    other_map = changed("forward", lambda y, log_det: (jnp.flip(y) + 0.1, log_det))
    for wrong, message in (
        (changed("forward", lambda y, log_det: (y, log_det + 0.02)), r"forward: expected log\|det\| = .* derivative"),
        (changed("forward", lambda y, log_det: (y, -log_det - 1.0)), r"forward: expected log\|det\| = "),
        (
            changed("inverse", lambda z, log_det: (z, log_det - 0.02)),
            r"inverse: expected log\|det\| = .* minus that of",
        ),
        (changed("inverse", lambda z, log_det: (1.01 * z, log_det)), r"inverse: expected \[.* of which forward made"),
        (
            changed("forward", lambda y, log_det: (y, jnp.ones(2))),
            r"forward: expected a pair .* got shapes \(\(\d,\), \(2",
        ),
        (changed("inverse", lambda z, log_det: z), r"inverse: expected a pair \(point \[D\], scalar log\|det\|\)"),
        (
            changed("inverse", lambda z, log_det: (z[:1], log_det)),
            r"inverse: expected a point of shape \(2,\), got \(1",
        ),
        (
            changed("forward", lambda y, log_det: (y[:1], log_det)),
            r"forward: expected a point of shape \(2,\), .* \(1,\)",
        ),
        (other_map, r"(inverse: expected|forward: expected log)"),
    ):
        with pytest.raises(ValueError, match=f"^bijection.{message}"):
            hj.check_bijection(wrong, params, x, z)


def test_what_is_no_bijection_or_no_point_is_refused():
    with pytest.raises(TypeError, match=r"bijection: expected hj.Bijection\(forward, inverse\), got Family"):
        hj.check_bijection(NORMAL, None, None, jnp.zeros(2))
    with pytest.raises(TypeError, match=r"z: expected a floating-point array, got dtype int32"):
        hj.check_bijection(hj.positive, None, None, jnp.zeros(2, int))
    for z in (jnp.zeros((2, 3)), jnp.zeros(()), jnp.array([0.0, np.nan])):
        with pytest.raises(ValueError, match=r"z: expected one point \[D\] of finite numbers, got"):
            hj.check_bijection(hj.positive, None, None, z)
