"""Which K of M members a mixture draws from: at random, so that each member present is expected K / m times.

Here m is the number of members present. The weights of a mixture ask for nothing else. With `q` the density
`(1/m) sum_i q_i`, `E sum_j f(z_j) = sum_i E[times that i is picked] E_{q_i}[f] = K E_q[f]` for every f.

A gradient rule that turns scores into paths asks for more (`_gradients/picked_paths.py`): from what density sample j
comes, given the picks of the others. `Slots` says that.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hiwae_jax._families.shared import num_rows
from hiwae_jax._types import Parameters


class Picked(NamedTuple):
    """The parameters of M members, and which of them drew the K samples.

    Attributes:
      rows: the members' parameters, with M leading rows. A row of an absent member is a copy of another one.
      picks: the member of each sample [K].
      present: which members take part [M]; None if all do.
    """

    rows: Parameters
    picks: Int[Array, " K"]
    present: Bool[Array, " M"] | None

    @property
    def number(self) -> int:
        """M."""
        return num_rows(self.rows)

    @property
    def taking_part(self) -> Bool[Array, " M"]:
        """Which members take part [M]."""
        return jnp.ones(self.number, bool) if self.present is None else self.present


class Slots(NamedTuple):
    """From which members the K slots are filled, one sample in each. `own` and `lent` have a row for each slot.

    Attributes:
      own: `own[j, i]`: given the picks of the others, sample j has the density `sum_i own[j, i] q_i`, normalised.
      lent: `lent[k, i]`: likewise for sample k, as another sample sees it.
      pairs: `pairs[j, k]`, 0 for j = k, such that for every j and i `own[j, i] + sum_k pairs[j, k] lent[k, i] = 1` if
        member i is present. So every score at sample j has a sample that member i may have drawn.
    """

    own: Float[Array, "K M"]
    lent: Float[Array, "K M"]
    pairs: Float[Array, "K K"]


class Scheme(NamedTuple):
    """A way to pick members.

    Attributes:
      pick: `(key, present [M], num_samples) -> picks [K]`.
      slots: `(parameters, dtype) -> Slots`; None if the picks are independent of each other. Then every sample has
        the density of the mixture, whatever the others do.
    """

    pick: Callable[[PRNGKeyArray, Bool[Array, " M"], int], Int[Array, " K"]]
    slots: Callable[[Picked, DTypeLike], Slots] | None


def _with_replacement(key: PRNGKeyArray, present: Bool[Array, " M"], num_samples: int) -> Int[Array, " K"]:
    number = jnp.maximum(jnp.sum(present), 1)
    return _present_first(present)[jax.random.randint(key, (num_samples,), 0, number)]


def _stratified(key: PRNGKeyArray, present: Bool[Array, " M"], num_samples: int) -> Int[Array, " K"]:
    """The members present, side by side, are cut into K strata of equal length, with a pick uniform in each."""
    number = jnp.maximum(jnp.sum(present), 1)
    # Place (j + uniform) m / K, of which the whole number j m // K is taken out before anything is rounded.
    start = jnp.arange(num_samples) * number
    uniform = jax.random.uniform(key, (num_samples,))
    further = (start % num_samples).astype(uniform.dtype) + uniform * number.astype(uniform.dtype)
    places = start // num_samples + jnp.floor(further / num_samples).astype(start.dtype)
    return _present_first(present)[jnp.minimum(places, number - 1)]


def _without_replacement(key: PRNGKeyArray, present: Bool[Array, " M"], num_samples: int) -> Int[Array, " K"]:
    """A random order, from its start; and from its start again, where it ends."""
    number = jnp.maximum(jnp.sum(present), 1)
    order = jnp.argsort(jnp.where(present, jax.random.uniform(key, present.shape), 2.0))
    # The order of the samples makes no difference. If all members are picked, sample j is that of member j.
    return jnp.sort(order[jnp.arange(num_samples) % number])


def _present_first(present: Bool[Array, " M"]) -> Int[Array, " M"]:
    """The indices of the members present, then those of the others."""
    return jnp.argsort(~present, stable=True)


def _stratified_slots(parameters: Picked, dtype: DTypeLike) -> Slots:
    """Member i has the part of its length that lies in stratum j there, whatever is picked in other strata."""
    present, K = parameters.taking_part, len(parameters.picks)
    number = jnp.maximum(jnp.sum(present), 1)
    place = (jnp.cumsum(present) - 1)[None, :]
    stratum = jnp.arange(K)[:, None]
    # In units in which a member has the length K and a stratum m.
    first = jnp.maximum(place * K, stratum * number)
    overlap = jnp.minimum((place + 1) * K, (stratum + 1) * number) - first
    own = jnp.where(present[None, :], jnp.maximum(overlap, 0), 0).astype(dtype) / K
    return Slots(own, own, 1.0 - jnp.eye(K, dtype=dtype))


def _slots_without_replacement(parameters: Picked, dtype: DTypeLike) -> Slots:
    """Sample j may come from any member that the others have not picked, or not as often as the rest."""
    present, picks = parameters.taking_part, parameters.picks
    is_pick = (picks[:, None] == jnp.arange(parameters.number, dtype=picks.dtype)[None, :]).astype(dtype)
    times = jnp.sum(is_pick, axis=0, keepdims=True) - is_pick  # by the other samples [K, M]
    least = jnp.min(jnp.where(present[None, :], times, jnp.inf), axis=1, keepdims=True)
    is_free = present[None, :] & (times == least)
    per_time = jnp.where(is_free, 0.0, 1.0 / jnp.maximum(times, 1.0))
    return Slots(is_free.astype(dtype), is_pick, per_time[:, picks])


SCHEMES = {
    "without_replacement": Scheme(_without_replacement, _slots_without_replacement),
    "stratified": Scheme(_stratified, _stratified_slots),
    "with_replacement": Scheme(_with_replacement, None),
}
