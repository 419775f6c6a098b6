"""Small classes with the public interfaces of the distributions of other libraries."""

import math

import jax
import jax.numpy as jnp


class Normal:
    """Of NumPyro and distrax: a batch of scalars, with `loc` and `scale`."""

    has_rsample = True

    def __init__(self, loc, scale):
        """Keep the arrays."""
        self.loc, self.scale = loc, scale

    def log_prob(self, z):
        """Of each entry."""
        return -0.5 * ((z - self.loc) / self.scale) ** 2 - jnp.log(self.scale) - 0.5 * math.log(2.0 * math.pi)

    def sample(self, key):
        """Of each entry."""
        return self.loc + self.scale * jax.random.normal(key, self.loc.shape)


class Independent:
    """Of NumPyro: a batch as one event."""

    def __init__(self, base_dist):
        """Keep the base."""
        self.base_dist = base_dist

    @property
    def has_rsample(self):
        """That of the base."""
        return self.base_dist.has_rsample

    def log_prob(self, z):
        """Summed over the entries."""
        return jnp.sum(self.base_dist.log_prob(z))

    def sample(self, key):
        """That of the base."""
        return self.base_dist.sample(key)


class ExpTransform:
    """Of NumPyro: called, and with the attribute `inv`."""

    inv = staticmethod(jnp.log)

    def __call__(self, u):
        """The exponential."""
        return jnp.exp(u)


class AbsTransform(ExpTransform):
    """Of NumPyro: it cannot be undone."""


class TransformedDistribution:
    """Of NumPyro, for exponentials of independent entries."""

    def __init__(self, base_dist, transforms):
        """Keep the base and the steps."""
        self.base_dist, self.transforms = base_dist, transforms

    def log_prob(self, z):
        """With the volume of one exponential."""
        return self.base_dist.log_prob(jnp.log(z)) - jnp.log(z)

    def sample(self, key):
        """The steps in their order."""
        z = self.base_dist.sample(key)
        for step in self.transforms:
            z = step(z)
        return z


class Exp:
    """A bijector of TFP and distrax, or, with `transform`, a bijection of flowjax."""

    forward = transform = staticmethod(jnp.exp)
    inverse = staticmethod(jnp.log)


class Transformed:
    """Of distrax: `distribution`, `bijector`, and a seed given by name."""

    def __init__(self, distribution, bijector):
        """Keep both."""
        self.distribution, self.bijector = distribution, bijector

    def log_prob(self, z):
        """With the volume of an exponential."""
        u = self.bijector.inverse(z)
        return self.distribution.log_prob(u) - jnp.sum(u)

    def sample(self, *, seed, sample_shape=()):
        """The base, moved."""
        return self.bijector.forward(self.distribution.sample(seed))


class StandardNormal:
    """Of flowjax: noise itself, one event."""

    def log_prob(self, z):
        """Summed over the entries."""
        return jnp.sum(Normal(0.0, 1.0).log_prob(z))

    def sample(self, key, sample_shape=()):
        """Two entries."""
        return jax.random.normal(key, (2,))


class Affine:
    """A bijection of flowjax."""

    def __init__(self, loc, scale):
        """Keep the arrays."""
        self.loc, self.scale = loc, scale

    def transform(self, e):
        """Scaled and shifted."""
        return self.loc + self.scale * e

    def inverse(self, z):
        """The way back."""
        return (z - self.loc) / self.scale


class Flow:
    """A `Transformed` of flowjax with an `Affine`."""

    def __init__(self, base_dist, bijection):
        """Keep both."""
        self.base_dist, self.bijection = base_dist, bijection

    def log_prob(self, z):
        """With the volume of the scales."""
        return self.base_dist.log_prob(self.bijection.inverse(z)) - jnp.sum(jnp.log(self.bijection.scale))

    def sample(self, key, sample_shape=()):
        """The base, moved."""
        return self.bijection.transform(self.base_dist.sample(key))


class Logistic:
    """An object that can only sample and tell its density."""

    def __init__(self, loc, scale):
        """Keep the arrays."""
        self.loc, self.scale = loc, scale

    def log_prob(self, z):
        """Summed over the entries."""
        return jnp.sum(jax.scipy.stats.logistic.logpdf(z, self.loc, self.scale))

    def sample(self, key):
        """Of all entries."""
        return self.loc + self.scale * jax.random.logistic(key, self.loc.shape)


class NoRsample(Logistic):
    """One whose samples NumPyro would call not reparameterized."""

    has_rsample = False

    def sample(self, key):
        """Without a derivative."""
        return jax.lax.stop_gradient(super().sample(key))


class MixtureSameFamily(Logistic):
    """One of distrax, which does not say that the choice of a component has no derivative."""


class ReparameterizationType:
    """Of TFP: told apart by its name alone."""

    def __repr__(self):
        """As TFP writes it."""
        return "<Reparameterization Type: NOT_REPARAMETERIZED>"


class OfTFP(Logistic):
    """One whose samples TFP would call not reparameterized."""

    reparameterization_type = ReparameterizationType()
