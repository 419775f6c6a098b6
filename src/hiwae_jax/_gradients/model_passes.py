r"""How the generative model is differentiated: at all samples at once, at a few of them, or in chunks.

For chunks, one pass is enough. The gradient in the model's arrays is `sum_j wbar_j d log w_j`. The weights wbar_j are
known only when all samples are, but up to a factor they are known earlier. A chunk uses its weights relative to the
largest so far, and the sum is scaled down when a larger one comes. (Milakov and Gimelshein, 2018, "Online normalizer
calculation for softmax", do this for the softmax alone.) Every estimator uses the same weights for the model.
Estimators differ in how they move the samples, so the slope of each log-weight is kept for that.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._assembly.parts import Model, ModelDensities, Terms
from hiwae_jax._checks import at_least_float32
from hiwae_jax._families.shared import over_samples
from hiwae_jax._gradients.rule import Step, outer_factor
from hiwae_jax._log_weights.bounds import weighted_tangent
from hiwae_jax._log_weights.resampling import systematic_indices
from hiwae_jax._programs import bytes_of, kept_for_backward, primitive_names
from hiwae_jax._types import Arrays, Samples, Scalar, Tree

Result = TypeVar("Result")


class ModelPass(NamedTuple):
    """The generative model at K samples.

    Attributes:
      densities: the model's densities, [K] each.
      push: `(step, tangents of the model's arrays) -> (tangents of the densities, scalar)`. The scalar is the part of
        the bound's tangent that does not come through the densities.
    """

    densities: ModelDensities
    push: Callable[[Step, Arrays], tuple[ModelDensities, Scalar | float]]


def _over_all(model: Model, chunk_size: int | None) -> Callable[..., ModelDensities]:
    def of_all(z: Samples, *arrays: jax.Array) -> ModelDensities:
        return over_samples(lambda one: model(one, *arrays), z, chunk_size)

    return of_all


def at_all_samples(model: Model, z: Samples, arrays: Arrays, *, chunk_size: int | None) -> ModelPass:
    """Linearize the model at every sample. In chunks, each is evaluated again for its derivative."""
    densities, push = jax.linearize(_over_all(model, chunk_size), z, *arrays)
    return ModelPass(densities, lambda step, moved: (push(step.z, *moved), 0.0))


def at_drawn_samples(
    model: Model, z: Samples, arrays: Arrays, *, chunk_size: int | None, num_samples: int, uniform: Scalar
) -> ModelPass:
    """Linearize the model at `num_samples` samples, drawn by their weights with the number `uniform` in [0, 1)."""
    of_all = _over_all(model, chunk_size)
    densities = of_all(z, *arrays)

    def push(step: Step, moved: Arrays) -> tuple[ModelDensities, Scalar | float]:
        draw_weights = step.weights if step.draw_weights is None else step.draw_weights
        least = float(np.finfo(draw_weights.dtype).tiny)
        probabilities = draw_weights / jnp.maximum(jnp.sum(draw_weights), least)
        drawn = systematic_indices(uniform, probabilities, num_samples=num_samples)
        _, push_drawn = jax.linearize(of_all, z[drawn], *arrays)
        scale = 1.0 / (num_samples * jnp.maximum(probabilities[drawn], least))

        def scattered(density: Float[Array, " K"], tangent: Float[Array, " M"]) -> Float[Array, " K"]:
            return jnp.zeros_like(density).at[drawn].add((scale * tangent).astype(density.dtype))

        return jax.tree.map(scattered, densities, push_drawn(step.z[drawn], *moved)), 0.0

    return ModelPass(densities, push)


def one_pass_pays(model: Model, z: Samples, arrays: Arrays, *, chunk_size: int) -> bool:
    """Whether one pass over the chunks is faster than evaluating them twice, and does not take many times the memory.

    In one pass, each example has a gradient of the model of its own until its weights are known. There is room for it
    if it is no larger than what a chunk keeps for its backward pass. Writing it then takes less time than evaluating
    the chunk again. Two cases are excluded. Under `vmap`, the gradient of a convolution would become one with a group
    for each example, which is slow everywhere. And in arrays that the devices of a `jax.shard_map` share, the gradient
    would be summed over the devices.
    """
    if chunk_size >= len(z) or jax.sharding.get_abstract_mesh().manual_axes:
        return False
    if "conv_general_dilated" in primitive_names(jax.make_jaxpr(model)(z[0], *arrays)):
        return False
    kept, _ = kept_for_backward(model, (z[0], *arrays), ())
    return bytes_of(arrays) <= chunk_size * kept


class _Sums(NamedTuple):
    """Sums over the chunks so far.

    Attributes:
      largest: the largest log-weight.
      total: the sum of all weights relative to it.
      gradient: the sum of `w_j d log w_j / d arrays`, relative to it as well.
    """

    largest: Scalar
    total: Scalar
    gradient: Arrays


def in_one_pass(
    model: Model,
    z: Samples,
    arrays: Arrays,
    *,
    proposal_term: Float[Array, " K"],
    combine: Callable[[ModelDensities, Float[Array, " C"]], Terms],
    chunk_size: int,
) -> ModelPass:
    """Compute densities, slopes and gradient of each chunk while it is in memory.

    Args:
      model: the model of one sample.
      z: the samples, more than `chunk_size`.
      arrays: the arrays on which the model depends, for which a gradient is wanted.
      proposal_term: the terms of the log-weights besides the model.
      combine: the function that computes the log-weights of a chunk from the two.
      chunk_size: how many samples are in memory.
    """

    def densities_of(z: Samples, *arrays: jax.Array) -> ModelDensities:
        return jax.vmap(lambda one: model(one, *arrays))(z)

    def add(
        sums: _Sums, chunk: tuple[Float[Array, "C D"], Float[Array, " C"]]
    ) -> tuple[_Sums, tuple[ModelDensities, Float[Array, "C D"]]]:
        z, term = chunk
        densities, pull = jax.vjp(densities_of, z, *arrays)
        log_weights, pull_densities = jax.vjp(lambda densities: combine(densities, term).log_weights, densities)
        sums, slopes = _added(sums, log_weights, lambda factor: pull(*pull_densities(factor)))
        return sums, (densities, slopes)

    at_first = z[:1], proposal_term[:1]
    of_first = jax.eval_shape(lambda z, term: combine(densities_of(z, *arrays), term).log_weights, *at_first)
    zero = jnp.zeros((), of_first.dtype)
    none = _Sums(zero - jnp.inf, zero, [jnp.zeros_like(at_least_float32(array)) for array in arrays])
    sums, (densities, slopes) = _scan_chunks(add, none, (z, proposal_term), chunk_size)
    inverse = 1.0 / jnp.where(sums.total == 0.0, 1.0, sums.total)

    def push(step: Step, moved: Arrays) -> tuple[ModelDensities, Scalar | float]:
        along_slopes = jnp.sum(slopes * step.z.astype(slopes.dtype), axis=-1)  # of each log-weight
        of_arrays = jnp.zeros_like(inverse)
        for g, move in zip(sums.gradient, moved, strict=True):
            of_arrays += jnp.vdot(g, move.astype(g.dtype)).astype(inverse.dtype)
        none_left = jax.tree.map(jnp.zeros_like, densities)  # all of the model's part is in the scalar
        return none_left, inverse * of_arrays + weighted_tangent(step.weights, along_slopes)

    return ModelPass(densities, push)


def _added(
    sums: _Sums, log_weights: Float[Array, " C"], pull: Callable[[Float[Array, " C"]], tuple[Array, ...]]
) -> tuple[_Sums, Float[Array, "C D"]]:
    """Add a chunk to the sums, and return the slope of each of its log-weights in its sample too."""
    larger = jnp.maximum(sums.largest, jax.lax.stop_gradient(jnp.max(log_weights)))
    shift = jnp.where(larger == -jnp.inf, 0.0, larger)
    weights, rescale = jnp.exp(log_weights - shift), jnp.exp(sums.largest - shift)
    factor, inverse = outer_factor(log_weights, weights)
    slopes, *parts = jax.tree.map(at_least_float32, pull(factor))
    gradient = [rescale.astype(part.dtype) * g + part for g, part in zip(sums.gradient, parts, strict=True)]
    total = rescale * sums.total + jnp.sum(weights)
    return _Sums(larger, total, gradient), inverse.astype(slopes.dtype) * slopes


def _scan_chunks(
    add: Callable[[_Sums, Tree], tuple[_Sums, Result]], sums: _Sums, rows: Tree, chunk_size: int
) -> tuple[_Sums, Result]:
    """Scan `add` over chunks of the rows, of which the last may be smaller. The results are rows again."""
    K = len(jax.tree.leaves(rows)[0])
    whole = K - K % chunk_size
    chunks = jax.tree.map(lambda rows: rows[:whole].reshape(-1, chunk_size, *rows.shape[1:]), rows)
    sums, results = jax.lax.scan(add, sums, chunks)
    results = jax.tree.map(lambda rows: rows.reshape(whole, *rows.shape[2:]), results)
    if whole < K:
        sums, last = add(sums, jax.tree.map(lambda rows: rows[whole:], rows))
        results = jax.tree.map(lambda *parts: jnp.concatenate(parts), results, last)
    return sums, results
