"""The two problems on which gradient estimators are compared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

import hiwae_jax as hj
from experiments.toy import problem as toy
from experiments.vae import models
from experiments.vae.settings import Settings
from hiwae_jax.data import load_digits, unpack_bits

TOY_EVALUATIONS = 10_000
BATCH_SIZE = 64


class Problem(NamedTuple):
    """A model with a hierarchical proposal, as functions of any gradient estimator.

    Attributes:
      title: "toy" or "digits".
      alpha: of the power heuristic.
      num_samples: K.
      init: `(seed) -> params`.
      of_proposal: a pytree like params, true where the gradient estimators differ.
      make_bound: `(**options of hj.make_bound) -> bound(params, x, key)` of one example.
      batch: `(key) -> x [B, ...]`, a training minibatch.
      compared_examples: how many examples of a batch a compared gradient is the mean of.
      evaluate: `(params, key) -> scalar`, the bound that training is judged by.
      learning_rate: of Adam.
    """

    title: str
    alpha: float
    num_samples: int
    init: Callable[[int], Any]
    of_proposal: Any
    make_bound: Callable[..., Callable[..., jax.Array]]
    batch: Callable[[PRNGKeyArray], jax.Array]
    compared_examples: int
    evaluate: Callable[[Any, PRNGKeyArray], jax.Array]
    learning_rate: float


def make_toy(*, alpha: float, num_samples: int) -> Problem:
    """The density of Huang et al. (2019), figure 2: no data, no generative model to learn; the bound is below log Z."""
    problem = toy.make_problem(toy.Settings(alpha=alpha, num_samples=num_samples))

    def init(seed):
        return problem.init(jax.random.fold_in(jax.random.key(0), seed))

    bound = problem.make_bound(gradient="reparameterized")

    def evaluate(params, key):
        keys = jax.random.split(key, TOY_EVALUATIONS)
        values = jax.lax.map(lambda key: bound(params, jnp.zeros(()), key), keys, batch_size=500)
        return jnp.mean(values)

    return Problem(
        title="toy",
        alpha=alpha,
        num_samples=num_samples,
        init=init,
        of_proposal=_marked(jax.eval_shape(lambda: init(0))),
        make_bound=problem.make_bound,
        batch=lambda key: jnp.zeros(BATCH_SIZE),
        compared_examples=1,
        evaluate=evaluate,
        learning_rate=toy.Settings().learning_rate,
    )


def make_digits(*, alpha: float, num_samples: int) -> Problem:
    """An H-IWAE of 200-200 MLPs with 20 latent dimensions on scikit-learn's digits, judged on their test images."""
    digits = load_digits()
    images = {name: unpack_bits(jnp.asarray(getattr(digits, name)), num_pixels=64) for name in ("train", "test")}

    settings = Settings(model=f"hiwae-{alpha:g}", num_samples=num_samples)
    model = models.make_model(settings, pixel_mean=jnp.mean(images["train"], axis=0))

    def init(seed):
        return model.init(jax.random.key(seed))

    def make_bound(**options):
        return hj.make_bound(model.log_joint, model.proposal, weighting=model.weighting, **options)

    def evaluate(params, key):
        keys = jax.random.split(key, len(images["test"]))
        bound = make_bound(gradient="reparameterized")
        values = jax.lax.map(lambda row: bound(params, *row), (images["test"], keys), batch_size=100)
        return jnp.mean(values)

    return Problem(
        title="digits",
        alpha=alpha,
        num_samples=num_samples,
        init=init,
        of_proposal=_marked(jax.eval_shape(lambda: init(0))),
        make_bound=make_bound,
        batch=lambda key: jax.random.choice(key, images["train"], (BATCH_SIZE,), replace=False),
        compared_examples=4,
        evaluate=evaluate,
        learning_rate=settings.learning_rate,
    )


PROBLEMS = {"toy": make_toy, "digits": make_digits}


def _marked(params: Any) -> Any:
    """A tree that is true at the parameters of the proposal, recognised by the names on their path."""

    def of_proposal(path, leaf):
        return not any(name in jax.tree_util.keystr(path) for name in ("generative", "reverse"))

    return jax.tree_util.tree_map_with_path(of_proposal, params)
