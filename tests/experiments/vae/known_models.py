"""Models for the experiments whose objective, bounds and likelihood are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

import hiwae_jax as hj
from experiments.vae import images
from experiments.vae.models import Model, Params

# Where the inference and the generative parameters of `quadratic` start. Seed 0 meets the validation set of `grey_data`
# on its way to the training set; seed 1 comes from the other side, and from far away.
STARTS = (
    np.array([[0.0, 0.1], [4.5, 4.2]], np.float32),
    np.array([[0.0, 0.0, -0.2, 0.0], [4.0, 3.8, 3.5, 3.2]], np.float32),
)


def grey_data():
    """Images of four grey levels, so that pixels are drawn anew; the validation set is half as bright."""
    random = np.random.default_rng(0)
    probabilities = np.array([0.8, 0.7, 0.3, 0.2])
    train, validation = (
        np.clip(255 * (mean + 0.2 * random.normal(size=(count, 4))), 0, 255).astype(np.uint8)
        for mean, count in ((probabilities, 14), (0.5 * probabilities, 11))
    )
    return images.datasets.GreyDataset(train, validation, validation, (1, 4), "grey", "")


def _unit_normal(num_samples):
    return hj.independent(lambda params, x: (jnp.zeros(1), jnp.ones(1)), num_samples=num_samples)


def _log_unit_normal(z):
    return hj.diagonal_gaussian.log_prob((jnp.zeros(1), jnp.ones(1)), z)


def quadratic():
    """Weights that do not depend on z: `log w = -|x - g|^2 / 2 - |a - x[:2]|^2 / 2`, g generative, a inference.

    The proposal is the prior but for the second term. So the annealed objective with K = 2 is, to rounding and whatever
    the noise, `-|x - g|^2 / 2 - beta |a - x[:2]|^2 / 2 + (1 - beta) log 2`: beta scales the mixing weights 1/2 as well.
    Seed s starts at row s of both parts of `STARTS`.
    """

    def init(key):
        inference, generative = (jnp.asarray(part)[jax.random.key_data(key)[-1]] for part in STARTS)
        return Params({"a": inference}, {"g": generative})

    return Model(
        init,
        _unit_normal(2),
        hj.uniform_weighting(),
        log_likelihood=lambda params, x, z: -0.5 * jnp.sum((x - params.generative["g"]) ** 2),
        log_prior=lambda params, x, z: _log_unit_normal(z) - 0.5 * jnp.sum((x[:2] - params.inference["a"]) ** 2),
        decode=lambda params, z: params.generative["g"],
    )


def log_normal_weights(num_samples, *, pixel_values, spread):
    """`log p(x, z) / q(z) = level + x . pixel_values + spread z` with z standard normal, for parameters `level`.

    So `log p(x) = level + x . pixel_values + spread^2 / 2`, at K = 1 the bound of an image has the mean `log p(x) -
    spread^2 / 2` and the standard deviation `spread`, and an average of R weights has the variance `(exp(spread^2) - 1)
    / R` over its square.
    """

    def log_likelihood(params, x, z):
        return params.generative["level"] + jnp.sum(x * jnp.asarray(pixel_values)) + spread * z[0]

    return Model(
        lambda key: Params({}, {"level": jnp.zeros(())}),
        _unit_normal(num_samples),
        hj.uniform_weighting(),
        log_likelihood,
        log_prior=lambda params, x, z: _log_unit_normal(z),
        decode=lambda params, z: z,
    )
