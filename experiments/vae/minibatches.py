"""The division of examples into minibatches, epochs and compiled calls, and their order in each epoch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt8


class Plan(NamedTuple):
    """How steps divide into epochs and compiled calls.

    Attributes:
      batch_size: examples of a minibatch.
      steps_an_epoch: minibatches of an epoch.
      epochs_a_call: epochs of a compiled call.
      calls: compiled calls in all.
      patience: calls without a better validation bound after which a seed is stopped.
    """

    batch_size: int
    steps_an_epoch: int
    epochs_a_call: int
    calls: int
    patience: int

    @property
    def steps_a_call(self) -> int:
        """Minibatches of one compiled call."""
        return self.epochs_a_call * self.steps_an_epoch

    @property
    def steps(self) -> int:
        """Minibatches in all."""
        return self.calls * self.steps_a_call


class Minibatch(NamedTuple):
    """One minibatch, or with a leading axis those of an epoch.

    Attributes:
      rows: the examples as the data set stores them.
      step: the number of the step, from 0 in the first epoch.
      key: of its pixels and its samples.
    """

    rows: UInt8[Array, "batch bytes"]
    step: Int[Array, ""]
    key: PRNGKeyArray


def make_plan(*, steps: int, steps_a_call: int, batch_size: int, patience: int, num_examples: int) -> Plan:
    """The plan with at least `steps` steps, in whole calls of whole epochs.

    Args:
      steps: minibatches in all.
      steps_a_call: about as many in one call.
      batch_size: examples of a minibatch.
      patience: epochs without a better validation bound after which a seed is stopped; 0 for never.
      num_examples: of the training set.
    """
    if batch_size > num_examples:
        raise ValueError(f"batch_size: expected at most the {num_examples} training examples, got {batch_size}")
    steps_an_epoch = num_examples // batch_size
    epochs_a_call = max(1, min(steps_a_call, steps) // steps_an_epoch)
    calls = -(-steps // (epochs_a_call * steps_an_epoch))
    return Plan(batch_size, steps_an_epoch, epochs_a_call, calls, patience=-(-patience // epochs_a_call) or calls)


def epoch_of(
    train: UInt8[Array, "examples bytes"],
    call_key: PRNGKeyArray,
    *,
    call: Int[Array, ""],
    number: Int[Array, ""],
    plan: Plan,
) -> Minibatch:
    """The minibatches of epoch `number` of a call: examples in a new order, none of them twice.

    Args:
      train: the training set; what is left over when it is divided by the batch size sits out this epoch.
      call_key: of the seed and the call.
      call: the number of the call.
      number: of the epoch within the call.
      plan: how many there are.
    """
    index = call * plan.epochs_a_call + number
    order_key, noise_key = jax.random.split(jax.random.fold_in(call_key, number))
    order = jax.random.permutation(order_key, len(train))[: plan.steps_an_epoch * plan.batch_size]
    return Minibatch(
        train[order].reshape(plan.steps_an_epoch, plan.batch_size, -1),
        index * plan.steps_an_epoch + jnp.arange(plan.steps_an_epoch),
        jax.random.split(noise_key, plan.steps_an_epoch),
    )
