r"""How the generative model is differentiated: at all samples at once, at a few of them, or a chunk at a time.

In chunks, one pass is enough. The gradient in the model's arrays is `sum_j wbar_j d log w_j`, whose weights are known
only when all samples are; but up to a factor they are known at once. A chunk goes by its weights relative to the
largest so far, and the sum is scaled down when a larger one comes (for the softmax alone: Milakov and Gimelshein, 2018,
"Online normalizer calculation for softmax"). Every estimator sends these weights to the model; they differ in where
they send the samples, for which the slope of each log-weight is kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hiwae_jax._assembly import ModelValues, Terms
from hiwae_jax._checks import at_least_float32
from hiwae_jax._gradients.paths import Step, outer_factor
from hiwae_jax._log_weights.resampling import systematic_indices
from hiwae_jax._memory import bytes_of, kept_for_backward
from hiwae_jax._proposals.proposal import over_samples

Model = Callable[..., ModelValues]  # (z [D], *arrays) -> (log p(x | z), log p(z)), of one sample
Samples = Float[Array, "K D"]
Arrays = list[Any]


class ModelPass(NamedTuple):
    """The generative model at K samples.

    Attributes:
      values: those of the model, [K] each.
      push: `(step, tangents of the model's arrays) -> (tangents of the values, a scalar)`: the scalar is what of the
        bound's tangent does not come through the values.
    """

    values: ModelValues
    push: Callable[[Step, Arrays], tuple[ModelValues, Any]]


def _over_all(model: Model, chunk_size: int | None) -> Callable[..., ModelValues]:
    def of_all(z: Samples, *arrays: Any) -> ModelValues:
        values: ModelValues = over_samples(lambda one: model(one, *arrays), z, chunk_size)
        return values

    return of_all


def at_all_samples(model: Model, z: Samples, arrays: Arrays, *, chunk_size: int | None) -> ModelPass:
    """Linearized at every sample; in chunks, each is evaluated again for its derivative."""
    of_all = _over_all(model, chunk_size)
    values, push = jax.linearize(of_all, z, *arrays)
    return ModelPass(values, lambda step, moved: (push(step.z, *moved), 0.0))


def at_drawn_samples(
    model: Model, z: Samples, arrays: Arrays, *, chunk_size: int | None, num_samples: int, uniform: Float[Array, ""]
) -> ModelPass:
    """Linearized at `num_samples` that are drawn by their weights, as the number `uniform` in [0, 1) says."""
    of_all = _over_all(model, chunk_size)
    values = of_all(z, *arrays)

    def push(step: Step, moved: Arrays) -> tuple[ModelValues, Any]:
        shares = step.weights if step.shares is None else step.shares
        least = float(np.finfo(shares.dtype).tiny)
        shares /= jnp.maximum(jnp.sum(shares), least)
        drawn = systematic_indices(uniform, shares, num_samples=num_samples)
        _, push_drawn = jax.linearize(of_all, z[drawn], *arrays)
        scale = 1.0 / (num_samples * jnp.maximum(shares[drawn], least))

        def scattered(value: Any, tangent: Any) -> Any:
            return jnp.zeros_like(value).at[drawn].add((scale * tangent).astype(value.dtype))

        return jax.tree.map(scattered, values, push_drawn(step.z[drawn], *moved)), 0.0

    return ModelPass(values, push)


def one_pass_pays(model: Model, z: Samples, arrays: Arrays, *, chunk_size: int) -> bool:
    """Whether chunks take less time in one pass than evaluated twice, and not many times the memory.

    In one pass each example has a gradient of the model to itself until its weights are known. There is room for it
    where it is no larger than what a chunk keeps for its backward pass, and it is then written in less time than the
    chunk takes to be evaluated again. Of a convolution it would be one with a group for each example under `vmap`,
    which is slow everywhere; and in arrays that the devices of a `jax.shard_map` share it would be summed over them.
    """
    if chunk_size >= len(z) or jax.sharding.get_abstract_mesh().manual_axes:
        return False
    if "conv_general_dilated" in str(jax.make_jaxpr(model)(z[0], *arrays)):
        return False
    kept, _ = kept_for_backward(model, (z[0], *arrays), ())
    return bytes_of(arrays) <= chunk_size * kept


def in_one_pass(
    model: Model,
    z: Samples,
    arrays: Arrays,
    *,
    rest: Float[Array, " K"],
    combine: Callable[[ModelValues, Float[Array, " C"]], Terms],
    chunk_size: int,
) -> ModelPass:
    """Values, slopes and gradient of each chunk while it is in memory.

    Args:
      model: of one sample.
      z: the samples, more than `chunk_size`.
      arrays: what the model depends on and a gradient is wanted for.
      rest: what the log-weights have besides the model.
      combine: of an `Evaluation`.
      chunk_size: how many samples are in memory.
    """

    def values_of(z: Any, *arrays: Any) -> ModelValues:
        values: ModelValues = jax.vmap(lambda one: model(one, *arrays))(z)
        return values

    def add(sums: tuple[Any, Any, Arrays], chunk: tuple[Any, Any]) -> tuple[Any, Any]:
        largest, total, gradient = sums
        z, rest = chunk
        values, pull = jax.vjp(values_of, z, *arrays)
        log_weights, pull_values = jax.vjp(lambda values: combine(values, rest).log_weights, values)
        larger = jnp.maximum(largest, jax.lax.stop_gradient(jnp.max(log_weights)))
        shift = jnp.where(larger == -jnp.inf, 0.0, larger)
        weights, rescale = jnp.exp(log_weights - shift), jnp.exp(largest - shift)
        factor, inverse = outer_factor(log_weights, weights)
        slopes, *parts = jax.tree.map(at_least_float32, pull(*pull_values(factor)))
        gradient = [rescale.astype(part.dtype) * g + part for g, part in zip(gradient, parts, strict=True)]
        slopes = inverse.astype(slopes.dtype) * slopes
        return (larger, rescale * total + jnp.sum(weights), gradient), (values, slopes)

    K = len(z)
    whole = K - K % chunk_size
    of_weights = jax.eval_shape(lambda z, rest: combine(values_of(z, *arrays), rest).log_weights, z[:1], rest[:1])
    zero = jnp.zeros((), of_weights.dtype)
    sums = zero - jnp.inf, zero, [jnp.zeros_like(at_least_float32(array)) for array in arrays]
    chunks = jax.tree.map(lambda rows: rows[:whole].reshape(-1, chunk_size, *rows.shape[1:]), (z, rest))
    sums, of_samples = jax.lax.scan(add, sums, chunks)
    of_samples = jax.tree.map(lambda rows: rows.reshape(whole, *rows.shape[2:]), of_samples)
    if whole < K:
        sums, last = add(sums, (z[whole:], rest[whole:]))
        of_samples = jax.tree.map(lambda *rows: jnp.concatenate(rows), of_samples, last)
    (_, total, gradient), (values, slopes) = sums, of_samples
    inverse = 1.0 / jnp.where(total == 0.0, 1.0, total)

    def push(step: Step, moved: Arrays) -> tuple[ModelValues, Any]:
        likelihood, prior = values
        along_slopes = jnp.sum(slopes * step.z.astype(slopes.dtype), axis=-1)  # log w_j moves with its likelihood
        of_arrays = jnp.zeros_like(inverse)
        for g, move in zip(gradient, moved, strict=True):
            of_arrays += jnp.vdot(g, move.astype(g.dtype)).astype(inverse.dtype)
        return (along_slopes.astype(likelihood.dtype), jnp.zeros_like(prior)), inverse * of_arrays

    return ModelPass(values, push)
