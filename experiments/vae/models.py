"""The models: a proposal and a weighting for each, and the log-densities of the generative model."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jaxtyping import PRNGKeyArray

import hiwae_jax as hj
from experiments.shared import networks
from experiments.vae.settings import Settings
from hiwae_jax import nn

Tree = TypeVar("Tree")  # a pytree

MODELS = ("vae", "iwae", "iwae-h", "hiwae-0", "hiwae-1", "hiwae-3")  # the models of the paper
LARGEST_MIXTURE = 1_000  # members


def alpha_of(name: str) -> float | None:
    """The exponent A of the model "hiwae-A", None for other models; a ValueError if there is no such model."""
    if name in ("vae", "iwae", "iwae-h") or mixture_size(name) is not None:
        return None
    try:
        alpha = float(name.removeprefix("hiwae-")) if name.startswith("hiwae-") else math.nan
    except ValueError:
        alpha = math.nan
    if not 0.0 <= alpha < math.inf:
        raise ValueError(
            "model: expected vae, iwae, iwae-h, hiwae-A with A a number of at least 0 as in hiwae-1, or mixture-M with "
            f"M Gaussians from 1 to {LARGEST_MIXTURE:,}, as in mixture-12, got {name!r}"
        )
    return alpha


def mixture_size(name: str) -> int | None:
    """The number M of the model "mixture-M", of Gaussians that the encoder gives; None for other models."""
    number = name.removeprefix("mixture-")
    is_mixture = name.startswith("mixture-") and number.isascii() and number.isdecimal() and number[0] != "0"
    return int(number) if is_mixture and len(number) <= 4 and int(number) <= LARGEST_MIXTURE else None


def title(name: str) -> str:
    """The model's name in tables."""
    alpha = alpha_of(name)
    titles = {"vae": "VAE", "iwae": "IWAE", "iwae-h": "IWAE(h)"}
    if mixture_size(name) is not None:
        return f"Mixture of {mixture_size(name)}"
    return titles[name] if alpha is None else f"H-IWAE alpha {alpha:g}"


class Params(NamedTuple):
    """The parameters, in two NNX states.

    Attributes:
      inference: those that `encoder_updates` updates several times in a minibatch: of the inference model.
      generative: those that are updated once: of the generative model, and with `twice="encoder"` of the reverse model.
    """

    inference: nnx.State
    generative: nnx.State


def of_one(params: Tree, seed: int) -> Tree:
    """The parameters of one seed, from those with a leading axis of seeds."""
    return jax.tree.map(lambda leaf: leaf[seed], params)


class Model(NamedTuple):
    """A model as pure functions of its parameters.

    Attributes:
      init: `(key) -> Params`.
      proposal: how z is drawn and weighed.
      weighting: how the members share the target; None for a mixture, where each sample is weighed with all members.
      log_likelihood: `(params, x, z) -> log p(x | z)`.
      log_prior: `(params, x, z) -> log p(z)`.
      decode: `(params, z) -> logits`.
    """

    init: Callable[[PRNGKeyArray], Params]
    proposal: hj.Proposal
    weighting: hj.Weighting | None
    log_likelihood: Callable[..., jax.Array]
    log_prior: Callable[..., jax.Array]
    decode: Callable[..., jax.Array]

    def log_joint(self, params, x, z):
        """`log p(x, z)`."""
        return self.log_likelihood(params, x, z) + self.log_prior(params, x, z)

    def log_weights(self):
        """`(params, x, key) -> [K]` of the model's own proposal and weighting."""
        return hj.make_log_weights(self.log_joint, self.proposal, weighting=self.weighting)


def make_model(
    settings: Settings, *, pixel_mean: np.ndarray | jax.Array, sharding: NamedSharding | None = None
) -> Model:
    """Build `settings.model`.

    Args:
      settings: the cell.
      pixel_mean: [P], of the training set: where the MLP decoder starts.
      sharding: of the samples of an example over devices, as for `hj.independent`.
    """
    name, K = settings.model, settings.num_samples
    alpha, mixture = alpha_of(name), mixture_size(name)
    sizes = networks.Sizes(
        settings.architecture,
        len(pixel_mean),
        settings.latent,
        encoder_hidden=settings.hidden,
        decoder_hidden=settings.hidden[::-1],
        proposal_hidden=settings.proposal_hidden,
    )

    def make(key):
        return networks.Networks(
            sizes,
            members=None if alpha is None and name != "iwae-h" else 1 if name == "iwae-h" else K,
            reverse_models=K if alpha == 0.0 else None,
            mixture=mixture,
            output_bias=nn.logits_from_mean(jnp.asarray(pixel_mean, jnp.float32)),
            rngs=nnx.Rngs(key),
        )

    once = [nnx.PathContains("decoder"), *([nnx.PathContains("reverse")] if settings.twice == "encoder" else [])]

    def split(key):
        return nnx.split(make(key), nnx.Any(*once), nnx.Param)

    graphdef = nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))[0]

    # All parameters from one compiled program, with the generator that takes the least time to compile.
    @jax.jit
    def draw(seed):
        _, generative, inference = split(jax.random.wrap_key_data(seed, impl="unsafe_rbg"))
        return Params(inference, generative)

    def init(key):
        return draw(jax.random.bits(key, (4,), jnp.uint32))

    def net(params):
        return nnx.merge(graphdef, params.generative, params.inference)

    if mixture is not None:
        proposal = networks.mixture(net, num_samples=K)
    elif name in ("vae", "iwae"):
        proposal = networks.independent(net, num_samples=1 if name == "vae" else K, sharding=sharding)
    else:
        equal = name == "iwae-h"
        proposal = networks.hierarchical(net, shared=not equal, num_samples=K if equal else None, sharding=sharding)
    return Model(
        init,
        proposal,
        weighting=None if mixture is not None else hj.power_heuristic(alpha or 0.0),
        log_likelihood=networks.log_likelihood(net),
        log_prior=networks.log_prior,
        decode=lambda params, z: net(params).decoder(z),
    )
