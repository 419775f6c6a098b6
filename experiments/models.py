"""The six models: networks from hiwae_jax.nn, a proposal for each, and the log-densities of the generative model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import hiwae_jax as hj
from hiwae_jax import nn

MODELS = ("vae", "iwae", "iwae-h", "hiwae-0", "hiwae-1", "hiwae-3")
TITLES = {
    "vae": "VAE",
    "iwae": "IWAE",
    "iwae-h": "IWAE(h)",
    "hiwae-0": "H-IWAE alpha 0",
    "hiwae-1": "H-IWAE alpha 1",
    "hiwae-3": "H-IWAE alpha 3",
}


class Model(NamedTuple):
    """A model as pure functions of its parameters.

    Attributes:
      params: the initial parameters, an NNX state.
      proposal: how z is drawn and weighed.
      weighting: how the members share the target.
      log_likelihood: `(params, x, z) -> log p(x | z)`.
      log_prior: `(params, x, z) -> log p(z)`.
      decode: `(params, z) -> logits`.
    """

    params: Any
    proposal: hj.Proposal
    weighting: hj.Weighting
    log_likelihood: Callable[..., Any]
    log_prior: Callable[..., Any]
    decode: Callable[..., Any]

    def log_joint(self, params, x, z):
        """`log p(x, z)`."""
        return self.log_likelihood(params, x, z) + self.log_prior(params, x, z)


class _Networks(nnx.Module):
    """Encoder to a context, the proposal's heads on it, and the decoder."""

    def __init__(self, name, *, num_pixels, num_samples, latent, hidden, proposal_hidden, pixel_mean, rngs):
        context = hidden[-1]
        self.encoder = nn.MLPEncoder(num_pixels, hidden, rngs=rngs)
        self.base = nn.LinearGaussianHead(context, latent, rngs=rngs)
        if name.startswith(("hiwae", "iwae-h")):
            members = 1 if name == "iwae-h" else num_samples
            per_member = name == "hiwae-0"
            self.conditionals = nn.HierarchicalConditionals(
                num_samples=members,
                context_features=context,
                base_features=latent,
                latent_features=latent,
                hidden_features=proposal_hidden,
                rngs=rngs,
            )
            self.reverse = nn.ReverseModel(
                context_features=context,
                latent_features=latent,
                base_features=latent,
                hidden_features=proposal_hidden,
                per_member=per_member,
                num_samples=num_samples if per_member else None,
                rngs=rngs,
            )
        self.decoder = nn.MLPDecoder(
            latent, num_pixels, hidden[::-1], output_bias=nn.logits_from_mean(pixel_mean), rngs=rngs
        )


def make_model(
    name: str,
    *,
    num_samples: int,
    pixel_mean: Any,
    latent: int,
    hidden: tuple[int, ...],
    proposal_hidden: int,
    seed: int,
) -> Model:
    """Build the model `name` of `MODELS` on MLPs; `pixel_mean` [P] starts the decoder at the training mean."""
    if name not in MODELS:
        raise ValueError(f"name: expected one of {', '.join(MODELS)}, got {name!r}")

    def networks(rngs):
        return _Networks(
            name,
            num_pixels=len(pixel_mean),
            num_samples=num_samples,
            latent=latent,
            hidden=hidden,
            proposal_hidden=proposal_hidden,
            pixel_mean=jnp.asarray(pixel_mean, jnp.float32),
            rngs=rngs,
        )

    graphdef, _ = nnx.split(nnx.eval_shape(lambda: networks(nnx.Rngs(0))), nnx.Param)
    # All parameters from one compiled program, with the generator that takes the least time to compile.
    draw = jax.jit(lambda key: nnx.split(networks(nnx.Rngs(key)), nnx.Param)[1])
    params = draw(jax.random.key(seed, impl="rbg"))

    def net(params):
        return nnx.merge(graphdef, params)

    def encode(params, x):
        return net(params).encoder(x)

    def base(params, context):
        return net(params).base(context)

    if name in ("vae", "iwae"):
        count = 1 if name == "vae" else num_samples
        proposal = hj.independent(lambda params, x: base(params, encode(params, x)), num_samples=count)
    else:
        proposal = hj.hierarchical(
            base,
            lambda params, context, z0: net(params).conditionals(context, z0),
            lambda params, context, z: net(params).reverse(context, z),
            shared=name != "iwae-h",
            num_samples=num_samples if name == "iwae-h" else None,
            context=encode,
        )
    alpha = float(name.removeprefix("hiwae-")) if name.startswith("hiwae-") else 0.0

    def decode(params, z):
        return net(params).decoder(z)

    def log_likelihood(params, x, z):
        return nn.bernoulli_log_prob(decode(params, z), x)

    def log_prior(params, x, z):
        return hj.diagonal_gaussian.log_prob((jnp.zeros_like(z), jnp.ones_like(z)), z)

    return Model(params, proposal, hj.power_heuristic(alpha), log_likelihood, log_prior, decode)
