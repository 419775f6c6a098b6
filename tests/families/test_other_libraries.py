"""The distributions of other libraries as families, where those libraries are installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests import models

AT = jnp.array([0.3, -1.0]), jnp.array([0.5, 2.0])
LOG_NORMAL = hj.transformed(hj.diagonal_gaussian, hj.positive)


@pytest.fixture
def lenient():
    """Other libraries promote dtypes and ranks, and warn."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


pytestmark = [pytest.mark.usefixtures("lenient"), pytest.mark.filterwarnings("ignore")]


def agree(makes, expected, parameters=AT):
    """The functions of the families are those of ours."""
    noise = jnp.array([0.7, -1.2])

    @models.quick_jit
    def everything(parameters):
        z = expected.forward(parameters, noise)
        of = lambda one: (one.forward(parameters, noise), one.inverse(parameters, z), one.log_prob(parameters, z))
        return of(expected), [of(hj.family_from(make)) for make in makes]

    ours, others = everything(parameters)
    for found in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, ours)


def test_numpyro():
    dist = pytest.importorskip("numpyro.distributions", reason="NumPyro is not installed")
    agree([lambda p: dist.Normal(*p).to_event(1)], hj.diagonal_gaussian)
    exp = dist.transforms.ExpTransform()
    log_normals = [
        lambda p: dist.LogNormal(*p).to_event(1),
        lambda p: dist.TransformedDistribution(dist.Normal(*p).to_event(1), [exp]),
    ]
    agree(log_normals, LOG_NORMAL)
    tril = AT[0], jnp.array([[0.8, 0.0], [-0.4, 1.3]])
    agree([lambda p: dist.MultivariateNormal(p[0], scale_tril=p[1])], hj.full_rank_gaussian, tril)
    hj.check_family(
        hj.family_from(lambda p: dist.Gamma(*p).to_event(1), paths="own"), (AT[1], AT[1]), jax.random.key(0)
    )
    mixture = lambda p: dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(*p))
    with pytest.raises(ValueError, match=r"make: .*has_rsample of Mixture\w* is False"):
        hj.family_from(mixture, paths="own").forward(AT, jnp.zeros(2))


def test_distrax():
    distrax = pytest.importorskip("distrax", reason="distrax is not installed")
    normals = [lambda p: distrax.MultivariateNormalDiag(*p), lambda p: distrax.Independent(distrax.Normal(*p), 1)]
    agree(normals, hj.diagonal_gaussian)
    exp = distrax.Block(distrax.Lambda(jnp.exp), 1)
    agree([lambda p: distrax.Transformed(distrax.MultivariateNormalDiag(*p), exp)], LOG_NORMAL)
    sampled = hj.family_from(lambda p: distrax.Independent(distrax.Logistic(*p), 1), paths="own")
    hj.check_family(sampled, AT, jax.random.key(0))


def test_flowjax():
    flows = pytest.importorskip("flowjax.flows", reason="flowjax is not installed")
    distributions, bijections = (pytest.importorskip(f"flowjax.{name}") for name in ("distributions", "bijections"))
    equinox, paramax = pytest.importorskip("equinox"), pytest.importorskip("paramax")
    agree([lambda p: distributions.Normal(*p)], hj.diagonal_gaussian)
    exp = bijections.Exp((2,))
    agree([lambda p: distributions.Transformed(distributions.Normal(*p), exp)], LOG_NORMAL)
    flow = flows.coupling_flow(jax.random.key(0), base_dist=distributions.Normal(jnp.zeros(2)), flow_layers=2)
    arrays, static = equinox.partition(flow, equinox.is_inexact_array)
    family = hj.family_from(lambda p: paramax.unwrap(equinox.combine(p[1], static)))
    hj.check_family(family, (jnp.zeros(2), arrays), jax.random.key(0))
    bound = hj.make_bound(
        lambda params, x, z: -0.5 * jnp.sum((z - x) ** 2),
        hj.independent(lambda params, x: (jnp.zeros(2), params), num_samples=3, family=family),
    )
    gradient = jax.jit(jax.grad(bound))(arrays, jnp.ones(2), jax.random.key(0))
    assert any(np.any(np.asarray(leaf) != 0.0) for leaf in jax.tree.leaves(gradient))


def test_tensorflow_probability():
    tfp = pytest.importorskip("tensorflow_probability.substrates.jax", reason="TFP is not installed")
    tfd = tfp.distributions
    normals = [lambda p: tfd.MultivariateNormalDiag(*p), lambda p: tfd.Independent(tfd.Normal(*p), 1)]
    agree(normals, hj.diagonal_gaussian)
    agree([lambda p: tfd.TransformedDistribution(tfd.MultivariateNormalDiag(*p), tfp.bijectors.Exp())], LOG_NORMAL)
    tril = AT[0], jnp.array([[0.8, 0.0], [-0.4, 1.3]])
    agree([lambda p: tfd.MultivariateNormalTriL(*p)], hj.full_rank_gaussian, tril)
    hj.check_family(
        hj.family_from(lambda p: tfd.Independent(tfd.Gamma(*p), 1), paths="own"), AT[1:] * 2, jax.random.key(0)
    )
    poisson = hj.family_from(lambda p: tfd.Independent(tfd.Poisson(*p[1:]), 1), paths="own")
    with pytest.raises(ValueError, match=r"the reparameterization_type of .* is NOT_REPARAMETERIZED"):
        poisson.forward(AT, jnp.zeros(2))
