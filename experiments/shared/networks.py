"""The networks that experiments and benchmarks train, and the proposals and densities that are made of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

import hiwae_jax as hj
from hiwae_jax import nn

Net = Callable[[Any], "Networks"]


class Sizes(NamedTuple):
    """The sizes of the networks.

    Attributes:
      architecture: "mlp", or "conv" for the paper's residual networks.
      pixels: of an image; 784 for "conv".
      latent: dimensions of z and z_0.
      encoder_hidden: units of the MLP encoder's layers; the last is the size of the context, and all that counts for
        "conv".
      decoder_hidden: units of the MLP decoder's layers.
      proposal_hidden: hidden units of the conditionals and of the reverse model.
    """

    architecture: str
    pixels: int
    latent: int
    encoder_hidden: tuple[int, ...]
    decoder_hidden: tuple[int, ...]
    proposal_hidden: int


class Networks(nnx.Module):
    """An encoder from an image to a context, the heads of the proposal on that context, and a decoder.

    Args:
      sizes: of all of them.
      members: conditionals of the hierarchical proposal; None for a proposal that has none, nor a reverse model.
      reverse_models: how many reverse models there are, one for each sample; None is one for all samples.
      mixture: Gaussians that the head gives in place of one; None for one.
      output_bias: [P], where the MLP decoder's logits start; zero without it.
      kind: `rngs`, and `dtype` if it is not float32.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        members: int | None = None,
        reverse_models: int | None = None,
        mixture: int | None = None,
        output_bias: Any = None,
        **kind: Any,
    ) -> None:
        context, latent = sizes.encoder_hidden[-1], sizes.latent
        numbers = latent * (mixture or 1)
        if sizes.architecture == "conv":
            self.encoder = nn.ConvEncoder(context, **kind)
            self.base = nn.GaussianHead(context, numbers, **kind)
        else:
            self.encoder = nn.MLPEncoder(sizes.pixels, sizes.encoder_hidden, **kind)
            self.base = nn.LinearGaussianHead(context, numbers, **kind)
        if members is not None:
            widths = {"context_features": context, "base_features": latent, "latent_features": latent}
            widths["hidden_features"] = sizes.proposal_hidden
            self.conditionals = nn.HierarchicalConditionals(num_samples=members, **widths, **kind)
            self.reverse = nn.ReverseModel(
                per_member=reverse_models is not None, num_samples=reverse_models, **widths, **kind
            )
        self.latent = latent
        if sizes.architecture == "conv":
            self.decoder = nn.ConvDecoder(latent, context, **kind)
        else:
            self.decoder = nn.MLPDecoder(latent, sizes.pixels, sizes.decoder_hidden, output_bias=output_bias, **kind)


def independent(net: Net, **options: Any) -> hj.Proposal:
    """`hj.independent` of the encoder with its head; `net(params)` is the module."""
    return hj.independent(lambda params, x: net(params).base(net(params).encoder(x)), **options)


def mixture(net: Net, **options: Any) -> hj.Proposal:
    """`hj.mixture` of the Gaussians that the encoder's head gives; `net(params)` is the module."""

    def conditional(params, x):
        networks = net(params)
        loc, scale = networks.base(networks.encoder(x))
        return loc.reshape(-1, networks.latent), scale.reshape(-1, networks.latent)

    return hj.mixture(conditional, **options)


def hierarchical(net: Net, **options: Any) -> hj.Proposal:
    """`hj.hierarchical` of encoder, head, conditionals and reverse model; `net(params)` is the module."""

    def context(params, x):
        features = net(params).encoder(x)
        return features, net(params).reverse.given(features)

    return hj.hierarchical(
        lambda params, context: net(params).base(context[0]),
        lambda params, context, z0: net(params).conditionals(context[0], z0),
        lambda params, context, z: net(params).reverse.at(context[1], z),
        context=context,
        **options,
    )


def log_likelihood(net: Net) -> Callable[..., Any]:
    """`(params, x, z) -> log p(x | z)` of binary x; `net(params)` is the module."""
    return lambda params, x, z: nn.bernoulli_log_prob(net(params).decoder(z), x)


def log_prior(params: Any, x: Any, z: Any) -> Any:
    """`log p(z)`, standard normal."""
    del params, x
    return hj.diagonal_gaussian.log_prob((jnp.zeros_like(z), jnp.ones_like(z)), z)


def log_joint(net: Net) -> Callable[..., Any]:
    """`(params, x, z) -> log p(x, z)`; `net(params)` is the module."""
    likelihood = log_likelihood(net)
    return lambda params, x, z: likelihood(params, x, z) + log_prior(params, x, z)
