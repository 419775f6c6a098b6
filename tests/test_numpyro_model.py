"""NumPyro models as log-joints: log Z against quadrature and importance sampling in NumPy."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.flatten_util import ravel_pytree

import hiwae_jax as hj
from tests import models

Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@pytest.fixture
def numpyro():
    """NumPyro, which promotes dtypes and ranks."""
    module = pytest.importorskip("numpyro", reason="NumPyro is not installed")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield module


def grid():
    """Nodes (mu, log tau), and the logarithm of their cell: tau from e^-12 to e^7."""
    mu, log_tau = np.linspace(-35.0, 35.0, 141), np.linspace(-12.0, 7.0, 191)
    nodes = np.stack(np.meshgrid(mu, log_tau, indexing="ij"), axis=-1).reshape(-1, 2)
    return nodes, np.log((mu[1] - mu[0]) * (log_tau[1] - log_tau[0]))


def log_evidence_of_eight_schools():
    """By quadrature over mu and log tau; the effects are integrated in closed form."""
    nodes, log_cell = grid()
    mu, tau = nodes[:, 0], np.exp(nodes[:, 1])
    log_prior = scipy.stats.norm.logpdf(mu, 0.0, 5.0) + scipy.stats.halfcauchy.logpdf(tau, scale=5.0) + nodes[:, 1]
    spread = np.sqrt(tau[:, None] ** 2 + SIGMA**2)
    return (
        scipy.special.logsumexp(log_prior + np.sum(scipy.stats.norm.logpdf(Y, mu[:, None], spread), axis=1)) + log_cell
    )


@pytest.mark.parametrize("centred", [True, False])
def test_log_z_of_eight_schools(numpyro, centred):
    """At each (mu, tau), log_joint less the posterior density of any effects is that of (mu, tau) and the data."""
    dist = numpyro.distributions

    def eight_schools(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("schools", 8):
            if centred:
                theta = numpyro.sample("theta", dist.Normal(mu, tau))
            else:
                theta = numpyro.deterministic("theta", mu + tau * numpyro.sample("eta", dist.Normal(0.0, 1.0)))
            numpyro.sample("y", dist.Normal(theta, SIGMA), obs=y)

    model = hj.numpyro_model(eight_schools, jnp.asarray(Y, jnp.float32))
    assert model.num_dimensions == 10
    nodes, log_cell = grid()
    mu, tau = nodes[:, :1], np.exp(nodes[:, 1:])
    # In units of tau, in which nothing cancels: eta | mu, tau, y is normal.
    precision = 1.0 + (tau / SIGMA) ** 2
    eta = tau * (Y - mu) / SIGMA**2 / precision + 0.3 / np.sqrt(precision)
    log_posterior = np.sum(scipy.stats.norm.logpdf(0.3) + 0.5 * np.log(precision), axis=1)
    name, value = ("theta", mu + tau * eta) if centred else ("eta", eta)
    log_posterior -= 8.0 * nodes[:, 1] if centred else 0.0

    @models.quick_jit
    @jax.vmap
    def log_joint(mu, log_tau, value):
        z = ravel_pytree({"mu": mu, "tau": log_tau, name: value})[0]
        return model.log_joint(None, None, z), model.constrain(z)

    with jax.enable_x64(True):
        found, sites = log_joint(*map(jnp.asarray, (*nodes.T, value)))
    log_z = scipy.special.logsumexp(np.asarray(found, np.float64) - log_posterior) + log_cell
    exact = log_evidence_of_eight_schools()
    assert exact == pytest.approx(-31.311, abs=2e-3)
    assert log_z == pytest.approx(exact, abs=1e-3)
    np.testing.assert_allclose(sites["tau"], np.exp(nodes[:, 1]), rtol=1e-5)
    np.testing.assert_allclose(sites["theta"], mu + tau * eta, rtol=1e-4, atol=1e-3)


def test_log_z_of_a_logistic_regression(numpyro):
    """31 coefficients, by independent importance sampling in NumPy; for real data it is -55.22."""
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    features = np.c_[np.ones(len(features)), (features - features.mean(axis=0)) / features.std(axis=0)]
    dist = numpyro.distributions

    def regression(features, labels):
        coefficients = numpyro.sample("coefficients", dist.Normal(0.0, 1.0).expand([31]).to_event(1))
        with numpyro.plate("rows", len(features)):
            numpyro.sample("labels", dist.Bernoulli(logits=features @ coefficients), obs=labels)

    def log_joint(b):
        logits = b @ features.T
        log_likelihood = np.sum(labels * logits - np.logaddexp(0.0, logits), axis=-1)
        return log_likelihood + np.sum(scipy.stats.norm.logpdf(b), axis=-1)

    mode = np.zeros(31)
    for _ in range(30):
        p = scipy.special.expit(features @ mode)
        hessian = (features.T * (p * (1.0 - p))) @ features + np.eye(31)
        mode = mode + np.linalg.solve(hessian, features.T @ (labels - p) - mode)
    tril = np.linalg.cholesky(1.15 * np.linalg.inv(hessian))
    noise = np.random.default_rng(0).standard_normal((20_000, 31))
    log_q = np.sum(scipy.stats.norm.logpdf(noise), axis=1) - np.sum(np.log(np.diagonal(tril)))
    weights = np.exp(log_joint(mode + noise @ tril.T) - log_q + 55.0)
    exact, error = np.log(np.mean(weights)) - 55.0, np.std(weights) / np.mean(weights) / np.sqrt(len(weights))

    model = hj.numpyro_model(regression, jnp.asarray(features, jnp.float32), labels=jnp.asarray(labels))
    laplace = lambda params, x: (jnp.float32(mode), jnp.float32(tril))
    proposal = hj.independent(laplace, num_samples=100, family=hj.full_rank_gaussian)
    log_weights = hj.make_log_weights(model.log_joint, proposal)
    result = jax.jit(hj.make_log_evidence(log_weights, num_draws=100))(None, None, jax.random.key(0))
    assert abs(exact + 55.22) < 5.0 * error < 0.4
    assert abs(result.estimate - exact) < 4.0 * np.hypot(error, result.standard_error)
    at_mode = float(model.log_joint(None, None, jnp.float32(mode)))
    assert at_mode == pytest.approx(log_joint(mode), abs=1e-3)


def test_models_that_have_no_log_joint_of_all_data_are_refused(numpyro):
    dist = numpyro.distributions
    normal, coin = dist.Normal(0.0, 1.0), dist.Bernoulli(0.5)

    def subsampled():
        with numpyro.plate("rows", 10, subsample_size=5):
            numpyro.sample("z", normal)

    refused = [
        (lambda: numpyro.sample("c", coin), "expected continuous latent sites, and 'c' is discrete"),
        (lambda: numpyro.sample("z", dist.Normal(numpyro.param("w", 0.0), 1.0)), "'w' is a param"),
        (subsampled, "the plate 'rows' takes 5 of 10"),
        (lambda: numpyro.sample("y", normal, obs=0.3), "at least one latent site"),
    ]
    for model, message in refused:
        with pytest.raises(ValueError, match=f"model: .*{message}"):
            hj.numpyro_model(model)
    with pytest.raises(TypeError, match="model: expected a function of NumPyro primitives, got str"):
        hj.numpyro_model("no")


def test_without_numpyro_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro", None)
    with pytest.raises(
        ImportError, match=r'numpyro_model: NumPyro is not installed; pip install "hiwae_jax\[numpyro\]"'
    ):
        hj.numpyro_model(lambda: None)
