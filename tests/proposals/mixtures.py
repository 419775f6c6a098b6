"""A scalar mixture of four members, and all picks of each scheme with their probabilities, by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import hiwae_jax as hj
from tests import models

M = 4
ALL = (True,) * M
TWO = (True, False, True, False)
DRAWS = ("without_replacement", "stratified", "with_replacement")
X = models.SCALAR_X


def params():
    """The scalar model with four members of its own."""
    own = {"centres": [0.9, -0.8, 0.1, 0.4], "log_scales": [-0.3, -0.4, -0.2, -0.5]}
    return {**models.scalar_params(0.5), **jax.tree.map(jnp.asarray, own, is_leaf=lambda leaf: isinstance(leaf, list))}


def conditional(params, x):
    """Four members; x is `(x, mask)`."""
    return params["centres"][:, None] + 0.2 * x[0][None], jnp.exp(params["log_scales"])[:, None]


def present(params, x):
    """The mask that comes with the example."""
    return x[1]


def log_likelihood(params, x, z):
    """That of the scalar model."""
    return models.scalar_log_likelihood(params, x[0], z)


def log_joint(params, x, z):
    """Likewise."""
    return models.scalar_log_joint(params, x[0], z)


def proposal(draw, num_samples, **options):
    """The mixture with its mask."""
    return hj.mixture(conditional, num_samples=num_samples, draw=draw, present=present, **options)


def all_picks(draw, num_samples, mask):
    """Picks [N, K] in ascending order where their order makes no difference, and their probabilities [N]."""
    members = [i for i in range(len(mask)) if mask[i]]
    m, K = len(members), num_samples
    if draw == "without_replacement":
        rounds = tuple(members) * (K // m)
        picks = [tuple(sorted((*rounds, *rest))) for rest in itertools.combinations(members, K % m)]
        return np.array(picks), np.full(len(picks), 1.0 / len(picks))
    picks = np.array(list(itertools.product(members, repeat=K)))
    if draw == "with_replacement":
        return picks, np.full(len(picks), 1.0 / len(picks))
    place = np.searchsorted(members, picks)
    stratum = np.arange(K)[None, :]
    length = np.minimum((place + 1) / m, (stratum + 1) / K) - np.maximum(place / m, stratum / K)
    probability = np.prod(K * np.maximum(length, 0.0), axis=1)
    return picks[probability > 1e-12], probability[probability > 1e-12]


def drawn(proposal, params, x, picks, noise):
    """The draw with these picks and this noise [K], which a bound takes in place of a key."""
    draw = proposal.draw(params, x, jax.random.key(0))
    parameters = draw.parameters._replace(picks=picks)
    return draw._replace(z=proposal.members.forward(parameters, noise[:, None]), parameters=parameters)
