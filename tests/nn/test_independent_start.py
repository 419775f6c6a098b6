"""Networks that start as independent samples: the H-IWLB is then the IWLB of N(0, I)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hiwae_jax as hj
from hiwae_jax import nn
from tests import models

C, D, D0, K = 5, 3, 2, 4
SIZES = {"context_features": C, "base_features": D0, "latent_features": D, "hidden_features": 8}


class Networks(nnx.Module):
    """Both kinds of a head for q_0, the conditionals, and both kinds of a reverse model."""

    def __init__(self, start: Any, *, rngs: nnx.Rngs):
        heads = nn.LinearGaussianHead, nn.GaussianHead
        self.heads = nnx.List([head(C, D0, start=start, rngs=rngs) for head in heads])
        self.conditionals = nn.HierarchicalConditionals(num_samples=K, start=start, **SIZES, rngs=rngs)
        each = {"per_member": True, "num_samples": K}
        self.reverse = nnx.List([nn.ReverseModel(start=start, **SIZES, **given, rngs=rngs) for given in ({}, each)])


def log_joint(params: Any, x: Any, z: Any) -> Any:
    """Of some model; z on its own has the density N(0, I)."""
    return -0.5 * jnp.sum((z - 0.3) ** 2) - jnp.sum(jnp.cos(z))


def bound_and_iwlb(graphdef: Any, which: int, alpha: float) -> Any:
    """`params -> (bound, IWLB of N(0, I) at the same samples)`."""
    x, key = jnp.linspace(-1.0, 1.0, C), jax.random.key(1)
    net = lambda params: nnx.merge(graphdef, params)
    proposal = hj.hierarchical(
        lambda params, x: net(params).heads[which](x),
        lambda params, x, z0: net(params).conditionals(x, z0),
        lambda params, x, z: net(params).reverse[which](x, z),
    )
    bound = hj.make_bound(log_joint, proposal, weighting=hj.power_heuristic(alpha))

    def values(params: Any) -> Any:
        log_q = lambda z: hj.diagonal_gaussian.log_prob((jnp.zeros(D), jnp.ones(D)), z)
        log_weight = lambda z: log_joint(params, x, z) - log_q(z)
        return bound(params, x, key), hj.iwlb(jax.vmap(log_weight)(proposal.draw(params, x, key).z))

    return values


def test_the_h_iwlb_starts_as_the_iwlb_of_the_same_family(initialise: Any) -> None:
    """For both heads and reverse models, with gradients by every member's gains; the other start is the control."""
    graphdef, params, _ = initialise(lambda rngs: Networks("independent", rngs=rngs))
    _, distinct, _ = initialise(lambda rngs: Networks("distinct", rngs=rngs))
    cases = [bound_and_iwlb(graphdef, which, alpha) for which, alpha in ((0, 1.0), (1, 0.0))]
    values = models.quick_jit(lambda params: [values(params) for values in cases])
    for bound, iwlb in values(params):
        assert abs(bound - iwlb) < 1e-5
    for bound, iwlb in values(distinct):
        assert abs(bound - iwlb) > 1e-2
    gradient = models.quick_jit(jax.grad(lambda params: cases[0](params)[0]))(params)
    gains_and_biases = np.asarray(gradient["conditionals"]["network"]["of_context"]["bias"][...])
    assert np.all(gains_and_biases[8 + K * D : 8 + 2 * K * D] != 0.0)  # the gains of the locations
    assert jax.tree.structure(params) == jax.tree.structure(distinct)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, distinct)


def test_an_unknown_start_is_refused() -> None:
    for make in (
        lambda start: nn.LinearGaussianHead(C, D, start=start, rngs=nnx.Rngs(0)),
        lambda start: nn.HierarchicalConditionals(num_samples=K, start=start, **SIZES, rngs=nnx.Rngs(0)),
    ):
        with pytest.raises(ValueError, match="start: expected 'distinct' or 'independent', got 'near'"):
            make("near")
