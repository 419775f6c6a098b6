"""Correlated samples: `E[sum_j w_j] = p(x)`, densities against scipy, and gradients that see the correlation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import hiwae_jax as hj
from tests import models
from tests.gradients.paired_draws import LARGEST_Z, paired
from tests.proposals.scalar_weights import X, mean_total_weights, normal, params, powers


def correlated_conditional(params, x):
    (a, b), c = jnp.exp(params["log_scale"]), 0.5 + params["slope"][0]
    tril = jnp.stack([jnp.stack([1.1 * a, 0.0 * a]), jnp.stack([c, 0.8 * b])])
    return params["loc"][:, None] + 0.3 * x[None], tril[None]


def test_joint_gaussian_weights_integrate_to_the_evidence():
    proposal = hj.joint_gaussian(correlated_conditional, sampler=models.leading)
    weightings = [*powers(0.0, 0.5, 1.0, 3.0), models.learned(2)]
    ratios = mean_total_weights(proposal, weightings, models.quadrature(2, 60))
    np.testing.assert_allclose(ratios, 1.0, rtol=1e-7)


def random_joint(K, D, seed=0):
    random = np.random.default_rng(seed)
    diagonal = np.eye(K) * np.exp(0.3 * random.normal(size=(D, K, 1)))
    scale_tril = np.tril(random.normal(size=(D, K, K)), -1) + diagonal
    return random.normal(size=(K, D)), scale_tril


def test_joint_gaussian_densities_are_those_of_scipy():
    K, D = 3, 2
    loc, scale_tril = random_joint(K, D)
    above = np.triu(np.ones((K, K)), 1)  # only the lower triangle counts
    proposal = hj.joint_gaussian(
        lambda params, x: (jnp.asarray(loc), jnp.asarray(scale_tril + above)), sampler=models.leading
    )
    noise = jnp.asarray(np.random.default_rng(1).normal(size=K * D))

    @models.quick_jit
    def evaluate(noise):
        draw = proposal.draw(None, None, noise)
        return (
            jax.jacfwd(lambda noise: proposal.draw(None, None, noise).z)(noise),
            draw.z,
            proposal.draw(None, None, jnp.zeros_like(noise)).z,
            proposal.members.joint_log_prob(draw.joint, draw.z),
            proposal.pair_densities(draw.parameters, draw.z),
            proposal.own_densities(draw.parameters, draw.z),
        )

    matrix, z, centre, log_joint, pairs, own = (np.asarray(array) for array in evaluate(noise))
    covariance = scale_tril @ np.swapaxes(scale_tril, 1, 2)
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).T  # [K, D]

    # By construction: the sampler is affine in its noise, and its matrix times its transpose is the covariance.
    matrix = matrix.reshape(K * D, K * D)
    expected = np.zeros((K, D, K, D))
    for d in range(D):
        expected[:, d, :, d] = covariance[d]
    np.testing.assert_allclose((matrix @ matrix.T).reshape(K, D, K, D), expected, atol=1e-12)
    np.testing.assert_allclose(centre, loc, atol=1e-12)

    joint = sum(scipy.stats.multivariate_normal(loc[:, d], covariance[d]).logpdf(z[:, d]) for d in range(D))
    assert float(log_joint) == pytest.approx(joint, abs=1e-11)
    marginals = normal(z[:, None], loc[None], deviation[None]).sum(-1)  # [sample, member]
    np.testing.assert_allclose(pairs, marginals, atol=1e-11)
    np.testing.assert_allclose(own, np.diagonal(marginals), atol=1e-11)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_doubly_reparameterized_is_unbiased_for_correlated_samples(alpha):
    """With the joint density; the control below without it, as if the samples were independent."""
    proposal = hj.joint_gaussian(correlated_conditional, sampler=models.leading)
    unjoined = proposal._replace(members=proposal.members._replace(joint_log_prob=None))
    weighting = hj.power_heuristic(alpha)
    gradients = ("reparameterized", "doubly_reparameterized")
    setting = {"dimensions": 2, "nodes": 60, "betas": (1.0, 0.3)}
    means = models.mean_gradients(proposal, weighting, gradients, params(), **setting)
    for beta in setting["betas"]:
        plain, other = (means[gradient, beta] for gradient in gradients)
        assert plain[0] == pytest.approx(other[0], rel=1e-12)
        np.testing.assert_allclose(other[1], plain[1], atol=1e-6)
    if alpha == 1.0:
        wrong = models.mean_gradients(unjoined, weighting, gradients[1:], params(), dimensions=2, nodes=60)
        assert np.max(np.abs(wrong[gradients[1], 1.0][1] - means[gradients[0], 1.0][1])) > 1e-2


def correlated_four(params, x):
    """K = 4 samples in D = 3 from the parameters of the paired tests, correlated by rows of `scale`."""
    tril = 0.4 * jnp.einsum("jde,ide->dji", params["scale"], params["loc"])
    return params["shift"] + (params["loc"] @ (params["base"][0] @ x)), jnp.tril(tril, -1) + 0.8 * jnp.eye(4)[None]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_doubly_reparameterized_is_unbiased_for_four_correlated_samples(alpha):
    proposal = hj.joint_gaussian(correlated_four)
    z, _ = paired("doubly_reparameterized", alpha=alpha, proposal=proposal)
    assert z < LARGEST_Z


def test_a_diagonal_joint_gaussian_is_a_proposal_of_independent_samples():
    def narrow(params, x):
        return params["loc"][:1] + x, jnp.exp(params["log_scale"][:1])

    def broad(params, x):
        return params["loc"][1:] - x, 1.5 * jnp.exp(params["log_scale"][1:])

    def joint(params, x):
        (a, s), (b, t) = narrow(params, x), broad(params, x)
        return jnp.stack([a, b]), jnp.diag(jnp.concatenate([s, t]))[None]

    noise = jnp.array([0.8, -1.3])
    proposals = (
        hj.joint_gaussian(joint, sampler=models.leading),
        hj.defensive(narrow, broad, num_samples=2, sampler=models.leading),
    )
    functions = [
        [hj.make_log_weights(models.scalar_log_joint, proposal, weighting=weighting) for proposal in proposals]
        for weighting in (*powers(0.0, 1.0), models.learned(2))
    ]
    weights = models.quick_jit(lambda noise: [[f(params(), jnp.asarray(X), noise) for f in row] for row in functions])(
        noise
    )
    for ours, theirs in weights:
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
