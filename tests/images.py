"""An MLP model of 784 pixels on plain dicts: the size at which costs are asserted."""

import jax
import jax.numpy as jnp
import numpy as np

import hiwae_jax as hj

PIXELS, HIDDEN, LATENT, PROPOSAL_HIDDEN = 784, 200, 50, 100


def init(num_samples, *, pixels=PIXELS, hidden=HIDDEN, latent=LATENT):
    """Parameters as a dict of dicts."""
    random = np.random.default_rng(0)
    width = PROPOSAL_HIDDEN
    sizes = {
        "encoder1": (pixels, hidden),
        "encoder2": (hidden, hidden),
        "base": (hidden, 2 * latent),
        "conditionals1": (latent + hidden, width),
        "conditionals2": (width, 2 * num_samples * latent),
        "reverse1": (latent + hidden, width),
        "reverse2": (width, 2 * latent),
        "decoder1": (latent, hidden),
        "decoder2": (hidden, hidden),
        "decoder3": (hidden, pixels),
    }
    return {
        name: {
            "kernel": jnp.asarray(random.normal(size=size) / np.sqrt(size[0]), jnp.float32),
            "bias": jnp.zeros(size[1]),
        }
        for name, size in sizes.items()
    }


def dense(layer, x):
    """One linear layer."""
    return x @ layer["kernel"] + layer["bias"]


def gaussian(output):
    """Location and positive scale from one array."""
    loc, raw = jnp.split(output, 2, axis=-1)
    return loc, jax.nn.softplus(raw) + 1e-3


def encode(params, x):
    """The context."""
    return jnp.tanh(dense(params["encoder2"], jnp.tanh(dense(params["encoder1"], x))))


def base(params, context):
    """q_0, and q of the independent proposal."""
    return gaussian(dense(params["base"], context))


def conditionals(params, context, z0):
    """All members from one hidden layer."""
    hidden = jnp.tanh(dense(params["conditionals1"], jnp.concatenate([z0, context])))
    return gaussian(dense(params["conditionals2"], hidden).reshape(-1, 2 * z0.shape[-1]))


def reverse(params, context, z):
    """One reverse model for all members."""

    def row(z):
        return gaussian(dense(params["reverse2"], jnp.tanh(dense(params["reverse1"], jnp.concatenate([z, context])))))

    return jax.vmap(row)(z)


def log_joint(params, x, z):
    """Bernoulli pixels and a standard normal prior, without the prior's constant."""
    hidden = jnp.tanh(dense(params["decoder2"], jnp.tanh(dense(params["decoder1"], z))))
    logits = dense(params["decoder3"], hidden)
    return jnp.sum(x * logits - jax.nn.softplus(logits)) - 0.5 * jnp.sum(z**2)


def iwae(num_samples):
    """Independent samples."""
    return hj.independent(lambda params, x: base(params, encode(params, x)), num_samples=num_samples)


def hiwae(*, shared=True, encoder=encode):
    """Hierarchical samples with the encoder as the shared context."""
    return hj.hierarchical(base, conditionals, reverse, shared=shared, context=encoder)
