"""The problems of `benchmarks.agreement`: a small model with every kind of proposal, and the paper's networks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import hiwae_jax as hj
from experiments.shared import networks

BATCH, K, D, P = 8, 3, 2, 5  # examples, samples, dimensions of z and z_0, numbers in an example
CONV_BATCH, CONV_K, CONV_PIXELS = 2, 2, 784
NETWORKS = "convolutional networks"


class Problem(NamedTuple):
    """A model, a proposal and a batch.

    Attributes:
      params: parameters.
      batch: examples [B, P].
      log_joint: of the model.
      proposal: of the bound.
      weighting: of the bound.
      gradients: names of the gradients to compare; those that are not valid for the proposal are left out.
    """

    params: Any
    batch: jax.Array
    log_joint: Callable[..., Any]
    proposal: hj.Proposal
    weighting: hj.Weighting
    gradients: tuple[str, ...]

    def bounds(self) -> dict[str, hj.Bound]:
        """The bound under each gradient that is valid."""
        found = {}
        for gradient in self.gradients:
            try:
                found[gradient] = hj.make_bound(
                    self.log_joint, self.proposal, weighting=self.weighting, gradient=gradient
                )
            except ValueError:  # the library says why, and this is not the place to repeat it
                continue
        return found


def _small_params() -> dict[str, jax.Array]:
    """Parameters of all small problems: maps of an example, of a sample, and locations of the members."""
    shapes = {"encoder": (P, D), "decoder": (D, P), "step": (D, D), "loc": (K, D), "log_scale": (K, D)}
    shapes |= {"covariance": (D, K, K), "logits": (K,)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {
        name: 0.3 * jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, sorted(shapes.items()), strict=True)
    }


def _log_joint(params, x, z):
    logits = jnp.tanh(z) @ params["decoder"]
    return jnp.sum(x * logits - jax.nn.softplus(logits)) - 0.5 * jnp.sum(z**2)


def _one(params, x):
    """A location and a scale [D] of an example."""
    return x @ params["encoder"], jnp.exp(params["log_scale"][0])


def _broad(params, x):
    del x
    return params["loc"][0], jnp.exp(0.5 + params["log_scale"][1])


def _members(params, x):
    """Locations and scales [K, D] of an example."""
    return x @ params["encoder"] + params["loc"], jnp.exp(params["log_scale"])


def _conditionals(params, x, z0):
    loc, scale = _members(params, x)
    return loc + jnp.tanh(z0 @ params["step"]), scale


def _reverse(params, x, z):
    del x
    return jnp.sin(z @ params["step"]), jnp.exp(params["log_scale"][2]) * jnp.ones_like(z)


def _step(params, x, z, step):
    loc, scale = _one(params, x)
    return loc + jnp.tanh(z @ params["step"]) + 0.1 * step, scale


def _joint(params, x):
    """Locations [K, D], and a Cholesky factor [D, K, K] in each dimension."""
    factor = jnp.tril(params["covariance"], -1) + jnp.eye(K)
    return _members(params, x)[0], factor


def _map(params, x):
    return 0.3 * _one(params, x)[0], jnp.exp(params["log_scale"][1])


# The kinds of proposals, each with the power of its heuristic.
PROPOSALS: dict[str, tuple[Callable[[], hj.Proposal], float]] = {
    "independent": (lambda: hj.independent(_one, num_samples=K), 0.0),
    "hierarchical": (lambda: hj.hierarchical(_one, _conditionals, _reverse), 1.0),
    "hierarchical, a z_0 for each sample": (lambda: hj.hierarchical(_one, _conditionals, _reverse, shared=False), 0.0),
    "hierarchical, reverse draws": (lambda: hj.hierarchical(_one, _conditionals, _reverse, reverse_samples=2), 0.0),
    "joint_gaussian": (lambda: hj.joint_gaussian(_joint), 1.0),
    "defensive": (lambda: hj.defensive(_one, _broad, num_samples=K), 1.0),
    "antithetic": (lambda: hj.antithetic(_one, num_samples=4), 0.0),
    "flow_chain": (lambda: hj.flow_chain(_one, [hj.affine_map(_map)] * (K - 1)), 1.0),
    "markov": (lambda: hj.markov(_one, _step, _step, num_samples=K), 0.0),
    "mixture": (lambda: hj.mixture(_members, num_samples=2), 0.0),
}


def names(*, smoke: bool) -> list[str]:
    """The names of all problems; of a smoke test, two."""
    return ["antithetic", "joint_gaussian"] if smoke else [*PROPOSALS, NETWORKS]


def make(name: str) -> Problem:
    """The problem of this name, the same at every call."""
    if name == NETWORKS:
        return _convolutional()
    make_proposal, alpha = PROPOSALS[name]
    batch = jax.random.bernoulli(jax.random.key(1), 0.4, (BATCH, P)).astype(jnp.float32)
    weighting = hj.power_heuristic(alpha) if alpha > 0.0 else hj.uniform_weighting()
    return Problem(_small_params(), batch, _log_joint, make_proposal(), weighting, hj.GRADIENTS)


def _convolutional() -> Problem:
    """The H-IWLB of the paper's convolutional networks, whose convolutions are compiled in another way on a CPU."""
    sizes = networks.Sizes("conv", CONV_PIXELS, 4, (16,), (16,), 12)

    def initial(key: Any) -> networks.Networks:
        return networks.Networks(sizes, members=CONV_K, rngs=nnx.Rngs(key))

    graphdef = nnx.split(nnx.eval_shape(lambda: initial(jax.random.key(0))))[0]
    params = jax.jit(lambda key: nnx.split(initial(key))[1])(jax.random.key(0))

    def net(params: Any) -> networks.Networks:
        return nnx.merge(graphdef, params)

    batch = jax.random.bernoulli(jax.random.key(1), 0.2, (CONV_BATCH, CONV_PIXELS)).astype(jnp.float32)
    proposal, weighting = networks.hierarchical(net), hj.power_heuristic(1.0)
    return Problem(params, batch, networks.log_joint(net), proposal, weighting, ("doubly_reparameterized",))
