"""Flax NNX modules of the paper's models, to be used functionally.

Every module acts on one example and holds parameters only: no random state, no mutable statistics. Split a
model once, and merge it inside the functions that are differentiated and compiled:

>>> import jax
>>> import jax.numpy as jnp
>>> from flax import nnx
>>> graphdef, params = nnx.split(MLPEncoder(6, (4,), rngs=nnx.Rngs(0)), nnx.Param)
>>> def features(params, x):
...     return nnx.merge(graphdef, params)(x)
>>> jax.jit(jax.vmap(features, in_axes=(None, 0)))(params, jnp.zeros((3, 6))).shape
(3, 4)
"""

from hiwae_jax.nn._conv import ConvDecoder, ConvEncoder
from hiwae_jax.nn._gaussian import GaussianHead, LinearGaussianHead, positive_scale, scale_from_log_variance
from hiwae_jax.nn._hierarchical import HierarchicalConditionals, ReverseModel
from hiwae_jax.nn._likelihoods import bernoulli_log_prob, logits_from_mean
from hiwae_jax.nn._mlp import MLPDecoder, MLPEncoder
from hiwae_jax.nn._residual import ResidualConv, ResidualLinear
from hiwae_jax.nn._weight_norm import ConditionalWeightNormLinear, WeightNormConv, WeightNormLinear

__all__ = [
    "ConditionalWeightNormLinear",
    "ConvDecoder",
    "ConvEncoder",
    "GaussianHead",
    "HierarchicalConditionals",
    "LinearGaussianHead",
    "MLPDecoder",
    "MLPEncoder",
    "ResidualConv",
    "ResidualLinear",
    "ReverseModel",
    "WeightNormConv",
    "WeightNormLinear",
    "bernoulli_log_prob",
    "logits_from_mean",
    "positive_scale",
    "scale_from_log_variance",
]
