"""`make_bound` and its like turn a log-joint and a proposal into `bound(params, x, key)` for one example."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hiwae_jax import _checks
from hiwae_jax._assembly.arguments import checked_chunk_size, checked_weighting
from hiwae_jax._assembly.ingredients import Ingredients, no_prior
from hiwae_jax._assembly.parts import log_weight_terms, make_parts
from hiwae_jax._assembly.reverse_model import require_reverse_noise
from hiwae_jax._gradients.linearize import bound_by_rule, stopped
from hiwae_jax._gradients.needs import Request
from hiwae_jax._gradients.registry import GradientName, chosen_rule
from hiwae_jax._gradients.rule import Rule
from hiwae_jax._log_weights.bounds import log_mean_exp, log_sum_exp
from hiwae_jax._proposals.draw import Draw
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._random_streams import Stream, stream_key
from hiwae_jax._types import Example, Key, LogDensity, Params, Scalar, Unchecked
from hiwae_jax._weightings import Weighting


@dataclasses.dataclass(frozen=True)
class Bound:
    """A bound, or an annealed objective, as a function of one example: `bound(params, x, key, *shared) -> scalar`.

    Attributes:
      evaluate: the function. In place of the key it takes what `draw` has drawn.
      draw: `(params, x, key, *shared) -> Draw`. It draws all random numbers of the bound, for
        `batched_value_and_grad(bound, draw=bound.draw)`.
    """

    evaluate: Callable[..., Scalar]
    draw: Callable[..., Draw]

    def __call__(self, params: Params, x: Example, key: Key, *shared: object, **named: object) -> Scalar:
        """The value for one example, in nats. An annealed objective takes beta as `shared`, or by name."""
        return self.evaluate(params, x, key, *shared, **named)


@_checks.by_name
def make_bound(
    log_joint: LogDensity,
    proposal: Proposal,
    *,
    weighting: Weighting | None = None,
    gradient: GradientName | None = None,
    order: float = 0.0,
    backward_samples: int | None = None,
    chunk_size: int | None = None,
) -> Bound:
    """A lower bound on log p(x) as a pure function of one example: `log sum_j w_j`, to be maximised.

    With `independent` samples it is the importance-weighted bound, which is the ELBO at K = 1. With a `hierarchical`
    proposal it is the hierarchical bound (H-IWLB). The value does not depend on `gradient`. ("refilled" draws more
    noise. With it, this holds for generators whose first numbers do not depend on how many are drawn, such as JAX's
    default.)

    Args:
      log_joint: `(params, x, z [D]) -> scalar`, `log p(x, z)` of one latent sample. z has the shape or the structure
        that the proposal gave it. Where log_joint jumps in z (a box prior, `floor`), every gradient loses a surface
        term; `hj.transformed` avoids that.
      proposal: what `independent`, `hierarchical` and their like return.
      weighting: how the members share the target; `uniform_weighting()` if None. If all members are equal, only a
        learned weighting makes a difference.
      gradient: how the bound is differentiated in the proposal's parameters. The generative model, the reverse model
        and a learned weighting always receive the plain gradient. None chooses "doubly_reparameterized", but
        "reparameterized" if samples are correlated or the caller gave a `sampler`. The other gradients need noise that
        is independent from sample to sample. (A family without an inverse, or without paths, has another default;
        see `family_from`.) "Unbiased" holds where log_joint has no jumps in z (docs/guide.md, "Where
        unbiased holds").
        "reparameterized": the plain pathwise gradient. Unbiased for every proposal; noisy at large K.
        "doubly_reparameterized": unbiased for every weighting, without the scores that make the plain one noisy.
        "refilled": likewise unbiased, and moves samples along their own paths only. It costs K more evaluations of the
        model (no backward pass). A little less noise. Under a weighting that does not compare densities it is the same
        as "doubly_reparameterized".
        "path_squared": own paths with squared weights and nothing else. Least noise; biased unless the weighting is
        uniform or learned.
        "authors": the rule of the code released with the paper, for comparisons. Biased where there is a z_0, and where
        "path_squared" is.
        "score_function": no path through any sample, but scores with the other samples as a baseline. Unbiased for
        every weighting, and also where log_joint jumps in z. By far the noisiest.
      order: the Renyi order a, with 0 <= a < 1. The bound is `1/(1 - a) log 1/K sum_j (K w_j)^(1 - a)`, the logarithm
        of a power mean of the K estimates `K w_j` of p(x). At 0 it is the logarithm of their mean. As a grows, the
        samples count more evenly, and the bound becomes lower; towards 1 it becomes the mean of the logarithms. Every
        gradient is unbiased where it is at order 0, except "path_squared", which is biased at any other order.
      backward_samples: M, or None for all K samples. After a forward pass of all K, the backward pass through the
        generative model runs for M samples only, which are drawn by their weights (systematic resampling). The gradient
        stays as unbiased as without it, at K + M forward and M backward evaluations. The choice has a key of its own,
        folded from the one given.
      chunk_size: how many samples the model evaluates at once, or None for all K. With it, memory does not grow with K,
        and value and gradient change by rounding only. Each chunk is differentiated in one pass, while it is in memory,
        if the model has no convolutions and its gradient is no larger than what a chunk keeps (a hundred samples or two
        for an MLP). Otherwise, and inside `jax.shard_map`, the backward pass evaluates each chunk again.

    Returns:
      `bound(params, x, key) -> scalar`, in nats, in at least float32. `params` is any pytree, `x` one example, and
      `key` one typed key. In place of the key it takes what `bound.draw(params, x, key)` has drawn with the same
      parameters. The bound composes with `jit`, `grad`, `jvp`, `vmap` and `scan`; for a batch use `vmap`, with a key
      for each example. The estimators are of first derivatives; for second ones take "reparameterized".

    Raises:
      ValueError: for an unknown `gradient`, and for a `gradient` or `weighting` that is not valid for the proposal.
        When called: for arrays of unexpected shape, and for a reverse model that treats members differently under a
        weighting that is not uniform.
      TypeError: for a `proposal` or `weighting` of another type. When called: for unexpected dtypes or an untyped key.

    Reference: Burda et al. (2016), equation 8; Huang et al. (2019), section 3.2; Tucker et al. (2019); Bauer and Mnih
    (2021); Daudel et al. (2023), for `order`; Huang and Courville (2017), for `backward_samples` = 1.

    >>> import hiwae_jax as hj
    >>> def log_joint(params, x, z):
    ...     return -0.5 * jnp.sum((x - params["w"] * z) ** 2) - 0.5 * jnp.sum(z**2)
    >>> def conditional(params, x):
    ...     return params["a"] * x, jnp.exp(params["s"]) * jnp.ones_like(x)
    >>> bound = hj.make_bound(log_joint, hj.independent(conditional, num_samples=8))
    >>> params = {"w": 1.0, "a": 0.5, "s": -0.3}
    >>> value, gradient = jax.value_and_grad(bound)(params, jnp.array([1.0, -2.0]), jax.random.key(0))
    >>> value.shape, sorted(gradient)
    ((), ['a', 's', 'w'])
    """
    weighting = checked_weighting({"log_joint": log_joint}, proposal, weighting)
    chunk_size = checked_chunk_size(chunk_size)
    power = _power_of(order)
    ingredients = Ingredients("log_joint", log_joint, no_prior, proposal, weighting, power=power, chunk_size=chunk_size)
    recipe = _recipe(ingredients, gradient, backward_samples)
    return Bound(lambda params, x, key: _evaluate(recipe, params, x, key, 1.0), functools.partial(_draw, recipe))


@_checks.by_name
def make_annealed_objective(
    log_likelihood: LogDensity,
    log_prior: LogDensity,
    proposal: Proposal,
    *,
    weighting: Weighting | None = None,
    gradient: GradientName | None = None,
    free_bits: float = 0.0,
    order: float = 0.0,
    backward_samples: int | None = None,
    chunk_size: int | None = None,
) -> Bound:
    """A training objective with warm-up and free bits, which scale and floor all terms besides the likelihood.

    With `kl_j = log q_0 + log q_j - log r - log p(z_j) - log pi_j` the log-weights are
    `log p(x | z_j) - max(beta * kl_j, free_bits)`. The objective is a bound, and equal to `make_bound`, only at
    beta = 1 without free bits.

    Args:
      log_likelihood: `(params, x, z [D]) -> scalar`, `log p(x | z)`.
      log_prior: `(params, x, z [D]) -> scalar`, `log p(z)`.
      proposal: as for `make_bound`.
      weighting: as for `make_bound`.
      gradient: as for `make_bound`. Where `make_bound` calls a gradient unbiased, it is unbiased here for every beta
        and `free_bits`. The exception is "path_squared", which is unbiased only at beta = 1 without free bits. With
        free bits and alpha of about 3, "reparameterized" is less noisy (docs/choosing.md).
      free_bits: the floor in nats for each sample, at least 0. 0 means no floor. "refilled" needs 0.
      order: as for `make_bound`.
      backward_samples: as for `make_bound`.
      chunk_size: as for `make_bound`.

    Returns:
      `objective(params, x, key, beta) -> scalar`, with a `draw` like a bound. `beta` may be traced, so that a schedule
      does not recompile.

    Reference: Sonderby et al. (2016) for warm-up, Kingma et al. (2016) for free bits.
    """
    free_bits = _checks.number("free_bits", free_bits, least=0.0, remark="; 0 is none")
    weighting = checked_weighting({"log_likelihood": log_likelihood, "log_prior": log_prior}, proposal, weighting)
    chunk_size = checked_chunk_size(chunk_size)
    ingredients = Ingredients(
        "log_likelihood",
        log_likelihood,
        log_prior,
        proposal,
        weighting,
        free_bits=free_bits,
        power=_power_of(order),
        chunk_size=chunk_size,
    )
    recipe = _recipe(ingredients, gradient, backward_samples)

    def objective(params: Params, x: Example, key: Key, beta: Unchecked) -> Scalar:
        return _evaluate(recipe, params, x, key, beta)

    return Bound(objective, functools.partial(_draw, recipe))


def _power_of(order: Unchecked) -> float:
    """The power to which a bound of this order raises the weights."""
    checked = _checks.number("order", order, least=0.0, remark="; 0 is the importance-weighted bound")
    if checked >= 1.0:
        raise ValueError(
            f"order: expected a number of at least 0 and below 1, got {checked}; for the ELBO, which is order 1, take "
            "num_samples=1, or the mean of the log-weights"
        )
    return 1.0 - checked


class _Recipe(NamedTuple):
    """The ingredients of a bound, and how it is differentiated.

    Attributes:
      ingredients: what the log-weights are made of.
      request: what of them the rule may refuse.
      rule: the gradient rule.
      backward_samples: how many samples have a backward pass through the model; None for all.
    """

    ingredients: Ingredients
    request: Request
    rule: Rule
    backward_samples: int | None

    @property
    def has_refills(self) -> bool:
        """Whether every sample is drawn a second time."""
        return self.rule.refills and not self.request.scores_are_constant

    @property
    def is_automatic(self) -> bool:
        """Whether automatic differentiation of the value gives the gradient."""
        return self.rule.automatic and self.backward_samples is None and self.ingredients.chunk_size is None


def _recipe(ingredients: Ingredients, gradient: str | None, backward_samples: int | None) -> _Recipe:
    """The ingredients with the rule of this name."""
    request = Request(ingredients.proposal, ingredients.weighting, ingredients.free_bits)
    rule = chosen_rule(gradient, request)
    if backward_samples is not None:
        backward_samples = _checks.positive_integer("backward_samples", backward_samples)
    return _Recipe(ingredients, request, rule, backward_samples)


def _draw(recipe: _Recipe, params: Params, x: Example, key: Key, *shared: object) -> Draw:
    """All that is drawn for one example."""
    draw = recipe.ingredients.proposal.draw(params, x, key, refill=recipe.has_refills)
    if recipe.backward_samples is None:
        return draw
    return draw._replace(uniform=jax.random.uniform(stream_key(key, Stream.BACKWARD_CHOICE), dtype=draw.z.dtype))


def _evaluate(recipe: _Recipe, params: Params, x: Example, key: Key, beta: Unchecked) -> Scalar:
    """The annealed objective: draw, make the parts of the log-weights, add them up, differentiate by the rule."""
    ingredients, rule = recipe.ingredients, recipe.rule
    draw = key if isinstance(key, Draw) else _draw(recipe, params, x, key)
    _require_extras(draw, recipe)
    require_reverse_noise(draw, ingredients.proposal)
    beta = _checks.scalar_number("beta", beta, least=0.0).astype(draw.z.dtype)
    frozen_params = stopped((params, draw.context))
    scored = (params, draw.context) if rule.scores else frozen_params
    parts = make_parts(ingredients, params, x, draw, beta, scored=scored)
    total = log_sum_exp if ingredients.power == 1.0 else log_mean_exp
    if recipe.is_automatic:
        value = total(log_weight_terms(parts, draw).log_weights, -1)
    else:
        value = bound_by_rule(
            parts,
            draw,
            rule=rule,
            request=recipe.request,
            total=total,
            beta=ingredients.power * beta,
            frozen_params=frozen_params,
            backward_samples=recipe.backward_samples,
        )
    if ingredients.power == 1.0:
        return value
    return value / ingredients.power + jnp.log(jnp.asarray(len(draw.z), value.dtype))


def _require_extras(draw: Draw, recipe: _Recipe) -> None:
    """Raise if the caller's draw lacks something that this bound would have drawn besides the samples."""
    if recipe.has_refills and draw.refill is None:
        what = f"the refills of gradient={recipe.rule.name!r}"
    elif recipe.backward_samples is not None and draw.uniform is None:
        what = "the choice of backward_samples"
    else:
        return
    raise ValueError(
        f"key: expected a key, or what bound.draw(params, x, key) has drawn, got a draw that lacks {what}; "
        "draw with this bound"
    )
