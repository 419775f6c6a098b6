"""The model of images at twelve pixels, where every transformation compiles soon: its proposals and one example."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import hiwae_jax as hj
from tests import images

SIZES = {"pixels": 12, "hidden": 6, "latent": 3}
K = 4
PROPOSALS = {
    "independent": images.iwae(K),
    "shared": images.hiwae(),
    "own z_0": images.hiwae(shared=False),
    "equal members": hj.hierarchical(
        images.base,
        lambda p, h, z0: jax.tree.map(lambda a: a[:1], images.conditionals(p, h, z0)),
        images.reverse,
        num_samples=K,
        context=images.encode,
    ),
}
X = jnp.asarray(np.random.default_rng(0).integers(0, 2, SIZES["pixels"]), jnp.float32)
KEY = jax.random.key(7)


@functools.cache
def params():
    """One set of parameters for all proposals."""
    return images.init(K, **SIZES)


def make(name, gradient, alpha=1.0, log_joint=images.log_joint):
    """The bound of one of the proposals with one of the estimators."""
    return hj.make_bound(log_joint, PROPOSALS[name], weighting=hj.power_heuristic(alpha), gradient=gradient)
