"""Families of other libraries' distributions: against families of ours, quadrature, and refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import models
from tests.families import distributions as other

AT = jnp.array([0.3, -1.0]), jnp.array([0.5, 2.0])
KEY = jax.random.key(0)
OF_NUMPYRO = hj.family_from(lambda parameters: other.Independent(other.Normal(*parameters)))
OF_FLOWJAX = hj.family_from(lambda parameters: other.Flow(other.StandardNormal(), other.Affine(*parameters)))
GIVEN = hj.family_from(
    lambda parameters: other.Independent(other.Normal(*parameters)),
    forward=lambda made, noise: made.base_dist.loc + made.base_dist.scale * noise,
    inverse=lambda made, z: (z - made.base_dist.loc) / made.base_dist.scale,
)


def logistic(paths, distribution=other.Logistic):
    """The family of an object that can only sample."""
    return hj.family_from(lambda parameters: distribution(*parameters), paths=paths)


def conditionals(params, x, z0):
    """Three members whose locations and scales depend on z_0."""
    return params["loc"] + 0.3 * z0[None, :], jnp.exp(params["scale"] + 0.1 * jnp.sin(z0)[None, :])


def values_and_gradients(family, gradients, alpha):
    """Of the hierarchical bound, by each gradient."""
    base = lambda params, x: (params["base"], jnp.ones(2))
    reverse = lambda params, x, z: (0.3 * z, jnp.full_like(z, 0.9))
    log_joint = lambda params, x, z: -0.5 * jnp.sum((z - x) ** 2) - 0.1 * jnp.sum(jnp.cos(z))
    proposal = hj.hierarchical(base, conditionals, reverse, family=family, base_family=family)
    weighting = hj.power_heuristic(alpha)
    bounds = [hj.make_bound(log_joint, proposal, weighting=weighting, gradient=gradient) for gradient in gradients]
    return lambda params: [jax.value_and_grad(bound)(params, jnp.array([0.4, -0.3]), KEY) for bound in bounds]


def test_the_gradients_of_an_adapted_normal_are_those_of_the_diagonal_gaussian():
    """So the parameters are stopped where those of our own family are."""
    random = np.random.default_rng(0)
    params = {name: jnp.asarray(random.normal(size=(3, 2)), jnp.float32) for name in ("loc", "scale")}
    params |= {"base": jnp.array([0.2, -0.1]), "scale": 0.3 * params["scale"]}

    @models.quick_jit
    def everything(params):
        kinds = ("doubly_reparameterized", "refilled", "score_function")
        compared = [values_and_gradients(family, kinds, 1.0)(params) for family in (hj.diagonal_gaussian, OF_NUMPYRO)]
        others = [values_and_gradients(family, kinds[:1], 1.0)(params) for family in (OF_FLOWJAX, GIVEN)]
        return *compared, *others

    ours, numpyro, *others = everything(params)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, ours, numpyro)
    for found in others:
        jax.tree.map(close, ours[:1], found)


def test_transformed_distributions_are_ours():
    expected = hj.transformed(hj.diagonal_gaussian, hj.positive)
    makes = [
        lambda p: other.Independent(other.TransformedDistribution(other.Normal(*p), [other.ExpTransform()])),
        lambda p: other.Transformed(other.Independent(other.Normal(*p)), other.Exp()),
    ]
    noise = jnp.array([0.7, -1.2])

    @models.quick_jit
    def everything(parameters):
        families = [expected, *map(hj.family_from, makes)]
        z = expected.forward(parameters, noise)
        return [
            (one.forward(parameters, noise), one.inverse(parameters, z), one.log_prob(parameters, z))
            for one in families
        ]

    ours, *others = everything(AT)
    for found in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, ours)


def test_check_family_finds_a_density_that_is_not_that_of_the_draws():
    for family in (OF_FLOWJAX, GIVEN, logistic("own"), logistic("none", other.NoRsample)):
        hj.check_family(family, AT, KEY)
    draws_only = logistic("own")
    wider = lambda parameters, z: draws_only.log_prob((parameters[0], 1.1 * parameters[1]), z)
    moved = lambda parameters, z: draws_only.log_prob((parameters[0] + 0.2 * parameters[1], parameters[1]), z)
    twice = lambda parameters, z: draws_only.log_prob(parameters, z) + 0.1
    for log_prob in (wider, moved, twice):
        with pytest.raises(ValueError, match=r"family.log_prob: expected the density of what family.forward draws"):
            hj.check_family(draws_only._replace(log_prob=log_prob), AT, KEY)
    with pytest.raises(ValueError, match="many that are equal"):
        hj.check_family(draws_only._replace(forward=lambda parameters, noise: parameters[0]), AT, KEY)


def mean_bound(params, alpha):
    """The bound of two distinct logistic samples by the midpoint rule over their quantiles."""
    u = (jnp.arange(800.0) + 0.5) / 800
    log_q = lambda z, i: jax.scipy.stats.logistic.logpdf(z, params[0][i], params[1][i])
    z = [params[0][i] + params[1][i] * jnp.log(u / (1.0 - u)) for i in range(2)]

    def log_weight(i):
        densities = jnp.stack([log_q(z[i], 0), log_q(z[i], 1)])
        return curved(None, None, z[i][None]) + jax.nn.log_softmax(alpha * densities, axis=0)[i] - densities[i]

    return jnp.mean(jnp.logaddexp(log_weight(0)[:, None], log_weight(1)[None, :]))


def curved(params, x, z):
    """A log-joint."""
    return -0.5 * (z[0] - 0.5) ** 2 - 0.3 * jnp.cos(2.0 * z[0])


def test_gradients_without_an_inverse_agree_with_quadrature():
    """A wrong path, that of a sample without a derivative, is the control that fails."""
    params = jnp.array([[0.2, -0.5], [0.6, 1.1]])
    one = lambda i: lambda params, x: (params[0][i][None], params[1][i][None])
    cases = [
        ("own", other.Logistic, 0.0, "doubly_reparameterized"),
        ("own", other.Logistic, 1.0, "reparameterized"),
        ("own", other.Logistic, 1.0, "refilled"),
        ("none", other.NoRsample, 1.0, None),
        ("own", type("Silent", (other.NoRsample,), {"has_rsample": True}), 0.0, "doubly_reparameterized"),
    ]

    @models.quick_jit
    def everything(params):
        keys = jax.random.split(KEY, 20_000)
        gradients = []
        for paths, distribution, alpha, gradient in cases:
            proposal = hj.defensive(one(0), one(1), num_samples=2, family=logistic(paths, distribution))
            bound = hj.make_bound(curved, proposal, weighting=hj.power_heuristic(alpha), gradient=gradient)
            gradients.append(jax.vmap(jax.grad(bound), in_axes=(None, None, 0))(params, None, keys))
        return gradients, [jax.grad(mean_bound)(params, alpha) for alpha in (0.0, 1.0)]

    gradients, exact = everything(params)
    z = [
        np.max(np.abs((np.mean(found, axis=0) - exact[int(alpha)]) / (np.std(found, axis=0) / np.sqrt(len(found)))))
        for found, (_, _, alpha, _) in zip(gradients, cases, strict=True)
    ]
    assert max(z[:-1]) < 4.0, z
    assert z[-1] > 30.0


def test_gradients_that_need_more_than_a_family_has_are_refused():
    one, rows = lambda p, x, *_: (x, jnp.ones(2)), lambda p, x, *_: (jnp.zeros((3, 2)), jnp.ones((3, 2)))
    log_joint = lambda p, x, z: -jnp.sum(z**2)
    hierarchical = lambda paths: hj.hierarchical(one, rows, rows, family=logistic(paths))
    alpha = hj.power_heuristic(1.0)
    with pytest.raises(ValueError, match="'doubly_reparameterized' moves samples along the paths of other members"):
        hj.make_bound(log_joint, hierarchical("own"), weighting=alpha, gradient="doubly_reparameterized")
    for gradient in (*hj.PATHWISE_GRADIENTS, None):
        if gradient != "doubly_reparameterized":
            hj.make_bound(log_joint, hierarchical("own"), weighting=alpha, gradient=gradient)
        if gradient is not None:
            for proposal in (hierarchical("none"), hj.hierarchical(one, rows, rows, base_family=logistic("none"))):
                with pytest.raises(
                    ValueError, match=f"'{gradient}' differentiates through the samples.*'score_function'"
                ):
                    hj.make_bound(log_joint, proposal, gradient=gradient)
    injected = hj.independent(one, num_samples=2, family=logistic("none"), sampler=hj.standard_normal)
    with pytest.raises(ValueError, match="choose gradient='score_function' if the noise of your sampler"):
        hj.make_bound(log_joint, injected)
    for make in (
        lambda family: hj.antithetic(one, num_samples=2, family=family),
        lambda family: hj.flow_chain(one, [hj.affine_map(one)], family=family),
        lambda family: hj.markov(one, one, one, num_samples=2, family=family),
    ):
        with pytest.raises(ValueError, match="family: expected a family with pathwise samples"):
            make(logistic("none"))
    with pytest.raises(ValueError, match="family: expected a family with an inverse"):
        hj.transformed(logistic("own"), hj.positive)


def test_what_cannot_be_read_off_an_object_is_refused():
    half = lambda p: other.TransformedDistribution(other.Normal(*p), [other.AbsTransform()])
    refused = [
        (
            lambda p: other.Logistic(*p),
            "all",
            "expected a normal distribution, or one transformed from it, got Logistic",
        ),
        (half, "all", "expected a transformation that can be undone, got AbsTransform"),
        (lambda p: other.NoRsample(*p), "own", "the has_rsample of NoRsample is False; use paths='none'"),
        (lambda p: other.OfTFP(*p), "own", "the reparameterization_type of OfTFP is NOT_REPARAMETERIZED"),
        (lambda p: other.MixtureSameFamily(*p), "own", "MixtureSameFamily picks a component"),
        (lambda p: other.Independent(other.NoRsample(*p)), "own", "has_rsample of"),
    ]
    for make, paths, message in refused:
        with pytest.raises(ValueError, match=f"make: .*{message}"):
            hj.family_from(make, paths=paths).forward(AT, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"make: .*log_prob of shape \(2,\) .* Independent"):
        hj.family_from(lambda p: other.Normal(*p)).log_prob(AT, jnp.zeros(2))
    with pytest.raises(TypeError, match=r"make: expected a distribution with the methods .* got tuple"):
        hj.family_from(lambda p: p).log_prob(AT, jnp.zeros(2))
    with pytest.raises(ValueError, match="inverse: expected None with paths='own'"):
        hj.family_from(lambda p: p, paths="own", inverse=lambda d, z: z)
    with pytest.raises(ValueError, match=r"forward: expected a function .* beside inverse, got None"):
        hj.family_from(lambda p: p, inverse=lambda d, z: z)
    with pytest.raises(ValueError, match="sampler: expected None with paths='none'"):
        hj.family_from(lambda p: p, paths="none", sampler=hj.standard_normal)


def test_seeds_differ_and_do_not_depend_on_the_dtype(double_precision):
    family = logistic("own")
    noise = family.sampler(KEY, (50_000, 1), jnp.float32)
    assert len(np.unique(noise)) > 49_990
    assert np.all(np.isfinite(noise))
    wide = jnp.array([0.3]), jnp.array([0.5])
    draw = jax.vmap(family.forward, in_axes=(None, 0))
    np.testing.assert_array_equal(draw(wide, noise[:5]), draw(wide, noise[:5].astype(jnp.float64)))
