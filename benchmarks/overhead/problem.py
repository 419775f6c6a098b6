"""The bounds that `benchmarks.overhead` times: the paper's networks, and parts of a step alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import hiwae_jax as hj
from experiments.shared import networks
from hiwae_jax import nn

PIXELS = 784
DECODER_HIDDEN = (200, 200)
PARTS = ("encoder", "proposal networks", "decoder")

Objective = Callable[..., jax.Array]  # `(params, x, drawn) -> scalar` of one example


class Sizes(NamedTuple):
    """The sizes of the networks.

    Attributes:
      decoder: "mlp" or "conv", which is the kind of the encoder too.
      context: size of the encoder's output.
      hidden: units of the conditionals and of the reverse model.
      latent: dimensions of z and z_0.
    """

    decoder: str
    context: int
    hidden: int
    latent: int = 32

    def name(self) -> str:
        """The name in tables."""
        return f"{self.decoder} {self.context}/{self.hidden:,}"


class Method(NamedTuple):
    """A bound and the estimator of its gradient; alpha None is the IWLB, whose proposal is independent."""

    alpha: float | None
    gradient: str

    def name(self) -> str:
        """The name in tables."""
        return f"{'IWLB' if self.alpha is None else f'H-IWLB {self.alpha:g}'} {self.gradient}"

    def baseline(self) -> "Method":
        """The IWLB whose step it is compared with: nothing is refilled where members are equal."""
        return Method(None, self.gradient.replace("refilled", "doubly_reparameterized"))


class Problem(NamedTuple):
    """A bound and its parts, as functions of one example.

    Attributes:
      params: initial parameters, of NNX modules in a state.
      bound: of `hj.make_bound`.
      parts: for each of PARTS a scalar function of `(params, x, drawn)` that evaluates it alone at the shapes of a
        step, and the parameters that it depends on.
    """

    params: Any
    bound: Any
    parts: dict[str, tuple[Objective, Any]]


class _Networks(networks.Networks):
    def __init__(self, sizes: Sizes, num_samples: int, **options: Any):
        hidden = (DECODER_HIDDEN[0], sizes.context)
        of_all = networks.Sizes(sizes.decoder, PIXELS, sizes.latent, hidden, DECODER_HIDDEN, sizes.hidden)
        super().__init__(of_all, **options)
        # The inputs of the parts are made of this parameter, so that their gradients are computed as in a step.
        self.start = nnx.Param(jnp.zeros((sizes.context + sizes.latent + num_samples * sizes.latent,)))


def make_problem(sizes: Sizes, method: Method, num_samples: int) -> Problem:
    """A bound with the paper's networks, its parts, and initial parameters."""
    alpha, K = method.alpha, num_samples

    def make(key):
        members, reverse_models = None if alpha is None else K, K if alpha == 0.0 else None
        return _Networks(sizes, K, members=members, reverse_models=reverse_models, rngs=nnx.Rngs(key))

    graphdef = nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))[0]
    params = jax.jit(lambda key: nnx.split(make(key))[1])(jax.random.key(0, impl="unsafe_rbg"))

    def net(params):
        return nnx.merge(graphdef, params)

    def part(names, function):
        """The function of the modules and x, with the other modules held fixed."""
        own = {name: child for name, child in params.items() if name in names}
        rest = nnx.State({name: child for name, child in params.items() if name not in names})
        return lambda own, x, key: function(nnx.merge(graphdef, nnx.State(own), rest), x), own

    def start(net, x):
        values = net.start[...]
        # The inputs differ between examples, as in a step, so that no part is computed once for the batch.
        values = values + x[0] * jnp.linspace(-1.0, 1.0, values.size, dtype=values.dtype)
        context, z0, z = jnp.split(values, [sizes.context, sizes.context + sizes.latent])
        return context, z0, z.reshape(K, sizes.latent)

    def encoder(net, x):
        return jnp.sum(net.encoder(x))

    def proposal_networks(net, x):
        context, z0, z = start(net, x)
        outputs = [net.base(context)]
        if alpha is not None:
            outputs += [net.conditionals(context, z0), net.reverse(context, z)]
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(outputs))

    def decoder(net, x):
        return jnp.sum(jax.vmap(lambda z: nn.bernoulli_log_prob(net.decoder(z), x))(start(net, x)[2]))

    parts = {
        "encoder": part(("encoder",), encoder),
        "proposal networks": part(("base", "conditionals", "reverse", "start"), proposal_networks),
        "decoder": part(("decoder", "start"), decoder),
    }
    proposal = networks.independent(net, num_samples=K) if alpha is None else networks.hierarchical(net)
    weighting = hj.power_heuristic(alpha or 0.0)
    bound = hj.make_bound(networks.log_joint(net), proposal, weighting=weighting, gradient=method.gradient)
    return Problem(params, bound, parts)


def make_batch(batch_size: int) -> jax.Array:
    """Binary images [B, 784] with one pixel in ten on. The cost of a step does not depend on the pixels."""
    return jax.random.bernoulli(jax.random.key(1), 0.1, (batch_size, PIXELS)).astype(jnp.float32)
