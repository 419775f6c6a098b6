"""The models: networks from hiwae_jax.nn, a proposal for each, and the log-densities of the generative model."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding

import hiwae_jax as hj
from experiments.settings import Settings
from hiwae_jax import nn

MODELS = ("vae", "iwae", "iwae-h", "hiwae-0", "hiwae-1", "hiwae-3")  # those of the paper
_DARK = -3.0  # logit of a pixel that is on with probability 0.05, where the paper's decoder starts


def alpha_of(name: str) -> float | None:
    """The exponent in "hiwae-A", and None for the other models; a ValueError for what is no model."""
    if name in ("vae", "iwae", "iwae-h"):
        return None
    try:
        alpha = float(name.removeprefix("hiwae-")) if name.startswith("hiwae-") else math.nan
    except ValueError:
        alpha = math.nan
    if not 0.0 <= alpha < math.inf:
        raise ValueError(
            f"model: expected vae, iwae, iwae-h, or hiwae-A with A a number of at least 0 as in hiwae-1, got {name!r}"
        )
    return alpha


def title(name: str) -> str:
    """The model's name in tables."""
    alpha = alpha_of(name)
    titles = {"vae": "VAE", "iwae": "IWAE", "iwae-h": "IWAE(h)"}
    return titles[name] if alpha is None else f"H-IWAE alpha {alpha:g}"


class Params(NamedTuple):
    """Parameters in two NNX states: of what infers, and of what generates."""

    inference: Any
    generative: Any


def of_one(params: Any, seed: int) -> Any:
    """The parameters of one seed, from those with a leading axis of seeds."""
    return jax.tree.map(lambda leaf: leaf[seed], params)


class Model(NamedTuple):
    """A model as pure functions of its parameters.

    Attributes:
      init: `(key) -> Params`.
      proposal: how z is drawn and weighed.
      weighting: how the members share the target.
      log_likelihood: `(params, x, z) -> log p(x | z)`.
      log_prior: `(params, x, z) -> log p(z)`.
      decode: `(params, z) -> logits`.
    """

    init: Callable[[Any], Params]
    proposal: hj.Proposal
    weighting: hj.Weighting
    log_likelihood: Callable[..., Any]
    log_prior: Callable[..., Any]
    decode: Callable[..., Any]

    def log_joint(self, params, x, z):
        """`log p(x, z)`."""
        return self.log_likelihood(params, x, z) + self.log_prior(params, x, z)

    def log_weights(self):
        """`(params, x, key) -> [K]` of the model's own proposal and weighting."""
        return hj.make_log_weights(self.log_joint, self.proposal, weighting=self.weighting)


class _Networks(nnx.Module):
    """Encoder to a context, the proposal's heads on it, and the decoder."""

    def __init__(self, settings: Settings, *, pixel_mean, rngs):
        context, latent = settings.hidden[-1], settings.latent
        alpha = alpha_of(settings.model)
        if settings.architecture == "conv":
            self.encoder = nn.ConvEncoder(context, rngs=rngs)
            self.base = nn.GaussianHead(context, latent, rngs=rngs)
        else:
            self.encoder = nn.MLPEncoder(len(pixel_mean), settings.hidden, rngs=rngs)
            self.base = nn.LinearGaussianHead(context, latent, rngs=rngs)
        if settings.model not in ("vae", "iwae"):
            per_member = alpha == 0.0
            self.conditionals = nn.HierarchicalConditionals(
                num_samples=1 if settings.model == "iwae-h" else settings.num_samples,
                context_features=context,
                base_features=latent,
                latent_features=latent,
                hidden_features=settings.proposal_hidden,
                rngs=rngs,
            )
            self.reverse = nn.ReverseModel(
                context_features=context,
                latent_features=latent,
                base_features=latent,
                hidden_features=settings.proposal_hidden,
                per_member=per_member,
                num_samples=settings.num_samples if per_member else None,
                rngs=rngs,
            )
        if settings.architecture == "conv":
            self.decoder = nn.ConvDecoder(latent, context, output_bias=_DARK, rngs=rngs)
        else:
            output_bias = nn.logits_from_mean(jnp.asarray(pixel_mean, jnp.float32))
            self.decoder = nn.MLPDecoder(
                latent, len(pixel_mean), settings.hidden[::-1], output_bias=output_bias, rngs=rngs
            )


def make_model(settings: Settings, *, pixel_mean: Any, sharding: NamedSharding | None = None) -> Model:
    """Build `settings.model`.

    Args:
      settings: the cell.
      pixel_mean: [P], of the training set: where the MLP decoder starts.
      sharding: of the samples of an example over devices, as for `hj.independent`.
    """
    name, K = settings.model, settings.num_samples
    alpha = alpha_of(name)

    def networks(key):
        return _Networks(settings, pixel_mean=pixel_mean, rngs=nnx.Rngs(key))

    def split(key):
        return nnx.split(networks(key), nnx.PathContains("decoder"), nnx.Param)

    graphdef = nnx.split(nnx.eval_shape(lambda: networks(jax.random.key(0))))[0]

    # All parameters from one compiled program, with the generator that takes the least time to compile.
    @jax.jit
    def draw(seed):
        _, generative, inference = split(jax.random.wrap_key_data(seed, impl="unsafe_rbg"))
        return Params(inference, generative)

    def init(key):
        return draw(jax.random.bits(key, (4,), jnp.uint32))

    def net(params):
        return nnx.merge(graphdef, params.generative, params.inference)

    def encode(params, x):
        return net(params).encoder(x)

    def base(params, context):
        return net(params).base(context)

    if name in ("vae", "iwae"):
        proposal = hj.independent(
            lambda params, x: base(params, encode(params, x)),
            num_samples=1 if name == "vae" else K,
            sharding=sharding,
        )
    else:

        def given(params, x):
            context = encode(params, x)
            return context, net(params).reverse.given(context)

        proposal = hj.hierarchical(
            lambda params, given: base(params, given[0]),
            lambda params, given, z0: net(params).conditionals(given[0], z0),
            lambda params, given, z: net(params).reverse.at(given[1], z),
            shared=name != "iwae-h",
            num_samples=K if name == "iwae-h" else None,
            context=given,
            sharding=sharding,
        )

    def decode(params, z):
        return net(params).decoder(z)

    def log_likelihood(params, x, z):
        return nn.bernoulli_log_prob(decode(params, z), x)

    def log_prior(params, x, z):
        return hj.diagonal_gaussian.log_prob((jnp.zeros_like(z), jnp.ones_like(z)), z)

    return Model(init, proposal, hj.power_heuristic(alpha or 0.0), log_likelihood, log_prior, decode)
