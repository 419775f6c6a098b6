"""All random keys are derived from the caller's key here, and nowhere else.

A proposal passes the caller's key unchanged to its sampler (see `Sampler`). Whatever else is drawn for the same example
has a key of its own, folded from the caller's key and the constant of a named stream. Samplers may split or fold the
key that they receive. `jax.random.split` folds in small numbers, and so do most users. The constants here have 32 bits,
so that they differ from those.
"""

import enum

import jax
from jaxtyping import Array, Int

from hiwae_jax import _checks
from hiwae_jax._types import Key, Keys


class Stream(enum.IntEnum):
    """The purposes of random numbers, besides the noise that a sampler draws with the caller's key."""

    BASE_NOISE = 0xB9A1C3D7  # of z_0, where the members have another sampler
    MEMBER_NOISE = 0xC4E5F08B  # of the samples, where z_0 has another sampler
    REVERSE_NOISE = 0xD35A7E41  # of further draws of the reverse model
    MEMBER_CHOICE = 0xD1B54A35  # which members of a mixture draw the samples
    BACKWARD_CHOICE = 0xE7632D15  # which samples have a backward pass


def stream_key(key: Key, stream: Stream) -> jax.Array:
    """The key of one stream of one example."""
    return jax.random.fold_in(_checks.one_key(key), stream.value)


def example_keys(key: Key, num_examples: int) -> Keys:
    """Keys [num_examples], one for each example of a minibatch."""
    return jax.random.split(_checks.one_key(key), num_examples)


def draw_key(key: Key, number: Int[Array, ""] | int) -> jax.Array:
    """The key of one of many independent draws for the same example. The caller's own key draws nothing."""
    return jax.random.fold_in(_checks.one_key(key), number)
