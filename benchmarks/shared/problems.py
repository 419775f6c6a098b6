"""The two problems on which gradients and objectives are compared."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

import hiwae_jax as hj
from experiments.toy import problem as toy
from experiments.vae import images as vae_images
from experiments.vae import models
from experiments.vae.settings import Settings

TOY_EVALUATIONS = 10_000
BATCH_SIZE = 64


class Problem(NamedTuple):
    """A model and its proposal, as functions of any gradient estimator.

    Attributes:
      title: "toy", or the name of a data set.
      alpha: of the power heuristic; None without one.
      num_samples: K.
      init: `(seed) -> params`.
      of_proposal: a pytree like params, true where the gradient estimators differ.
      log_joint: of the model.
      proposal: hierarchical with a shared z_0, unless another model was asked for.
      weighting: the power heuristic, or None.
      make_bound: `(**options of hj.make_bound) -> bound(params, x, key)` of one example.
      batch: `(key) -> x [B, ...]`, a training minibatch.
      compared_examples: how many examples of a batch a compared gradient is the mean of.
      evaluate: `(params, key, *, reverse_samples=None) -> scalar`, the bound that training is judged by; with further
        draws of the reverse model if they are given.
      learning_rate: of Adam.
    """

    title: str
    alpha: float | None
    num_samples: int
    init: Callable[[int], Any]
    of_proposal: Any
    log_joint: Callable[..., jax.Array]
    proposal: hj.Proposal
    weighting: hj.Weighting | None
    make_bound: Callable[..., Callable[..., jax.Array]]
    batch: Callable[[PRNGKeyArray], jax.Array]
    compared_examples: int
    evaluate: Callable[..., jax.Array]
    learning_rate: float


def make_toy(*, alpha: float, num_samples: int) -> Problem:
    """The density of Huang et al. (2019), figure 2: no data, no generative model to learn; the bound is below log Z."""
    problem = toy.make_problem(toy.Settings(alpha=alpha, num_samples=num_samples))

    def init(seed):
        return problem.init(jax.random.fold_in(jax.random.key(0), seed))

    log_joint, proposal, weighting = problem.log_joint, problem.proposal, problem.weighting

    def evaluate(params, key, *, reverse_samples=None):
        keys = jax.random.split(key, TOY_EVALUATIONS)
        weights = hj.make_log_weights(log_joint, proposal, weighting=weighting, reverse_samples=reverse_samples)
        bound = lambda key: jax.nn.logsumexp(weights(params, jnp.zeros(()), key))
        return jnp.mean(jax.lax.map(bound, keys, batch_size=500))

    return Problem(
        title="toy",
        alpha=alpha,
        num_samples=num_samples,
        init=init,
        of_proposal=_marked(jax.eval_shape(lambda: init(0))),
        log_joint=log_joint,
        proposal=proposal,
        weighting=weighting,
        make_bound=problem.make_bound,
        batch=lambda key: jnp.zeros(BATCH_SIZE),
        compared_examples=1,
        evaluate=evaluate,
        learning_rate=toy.Settings().learning_rate,
    )


def make_digits(*, alpha: float, num_samples: int) -> Problem:
    """An H-IWAE of 200-200 MLPs with 20 latent dimensions on scikit-learn's digits, judged on their test images."""
    return make_digits_model(f"hiwae-{alpha:g}", num_samples=num_samples)


def make_digits_model(name: str, *, num_samples: int) -> Problem:
    """Any model of `experiments.vae` of this size on the digits."""
    return make_image_model("digits", name, num_samples=num_samples)


def make_image_model(
    dataset: str, name: str, *, num_samples: int, data_dir: pathlib.Path | None = None, **options: Any
) -> Problem:
    """Any model of `experiments.vae` on any of its data sets; `options` are other settings of it."""
    data = vae_images.load(dataset, data_dir)
    unpack = vae_images.make_pixels(data)
    images = {part: unpack(jnp.asarray(getattr(data, part)), jax.random.key(0)) for part in ("train", "test")}

    settings = Settings(dataset=dataset, model=name, num_samples=num_samples, **options)
    model = models.make_model(settings, pixel_mean=jnp.mean(images["train"], axis=0))

    def init(seed):
        return model.init(jax.random.key(seed))

    def make_bound(**options):
        return hj.make_bound(model.log_joint, model.proposal, weighting=model.weighting, **options)

    def evaluate(params, key, *, reverse_samples=None):
        keys = jax.random.split(key, len(images["test"]))
        weights = hj.make_log_weights(
            model.log_joint, model.proposal, weighting=model.weighting, reverse_samples=reverse_samples
        )
        bound = lambda row: jax.nn.logsumexp(weights(params, *row))
        return jnp.mean(jax.lax.map(bound, (images["test"], keys), batch_size=100))

    return Problem(
        title=dataset,
        alpha=models.alpha_of(name),
        num_samples=num_samples,
        init=init,
        of_proposal=_marked(jax.eval_shape(lambda: init(0))),
        log_joint=model.log_joint,
        proposal=model.proposal,
        weighting=model.weighting,
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
