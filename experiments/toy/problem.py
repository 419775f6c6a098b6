"""The unnormalised 2-D density of Huang et al. (2019), figure 2, and the proposals that are fitted to it."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PRNGKeyArray

import hiwae_jax as hj
from hiwae_jax import nn

DIMENSIONS = 2  # of z and of z_0
RAW_UNIT_SCALE = math.log(math.expm1(1.0))  # `nn.positive_scale` is one here
MIXTURES = {"mixture-12": 12}  # members, of which K are drawn without replacement
CHOICES = {
    "z0": ("shared", "separate", "markov", *MIXTURES),
    "reverse": ("embedded", "heads"),
    "networks": ("small", "paper"),
}
LATER = ("networks",)  # fields that the first fits do not have; with its default value a field of these is not written
START_SPREAD = 2.0  # of the locations of a mixture's members; the target's ring has a radius of 2.8


class Settings(NamedTuple):
    """The settings of one fit.

    Attributes:
      z0: "shared", "separate", or "markov": no z_0, each sample is conditioned by the one before it. "mixture-12": no
        z_0 either, K of 12 Gaussians.
      alpha: of the power heuristic; 1 for a mixture, whose weights are those of the balance heuristic.
      learned: whether a network of z shares the target out, in place of the power heuristic; alpha is 0 then.
      reverse: how the reverse model knows the member, which it may under the uniform weighting alone. "embedded": a
        one-hot vector beside z, which shifts the hidden units while all weights are shared. "heads": shared hidden
        units, and output weights for each member. All members share one reverse model under any other weighting.
      gradient: the gradient estimator of `make_bound`.
      num_samples: K.
      steps: optimizer steps.
      seeds: independent runs, of seed 0, 1, ...
      draws: fresh draws of K samples a seed for the evaluation, rounded up to whole thousands.
      batch_size: draws of K samples in a step.
      learning_rate: of Adam.
      decay: whether the learning rate falls to zero, along half a cosine.
      hidden: units of the one hidden layer of each network.
      networks: "small": one hidden layer and two affine outputs. "paper": those of the paper's appendix D, with a skip
        from z_0 to the locations of the members and from z to that of the reverse model, and conditional weight norm,
        for which the reverse model has a context for each member where it may know the member; `reverse` is of no use
        then.
    """

    z0: str = "shared"
    alpha: float = 0.0
    learned: bool = False
    reverse: str = "embedded"
    gradient: str = "doubly_reparameterized"
    num_samples: int = 3
    steps: int = 5_000
    seeds: int = 4
    draws: int = 100_000
    batch_size: int = 64
    learning_rate: float = 5e-4
    decay: bool = False
    hidden: int = 64
    networks: str = "small"

    @property
    def knows_member(self) -> bool:
        """Whether the reverse model may differ between the members."""
        return self.alpha == 0.0 and not self.learned

    def check(self) -> "Settings":
        """Return the settings, or raise a ValueError that names the one that is not possible."""
        for name in ("num_samples", "steps", "seeds", "draws", "batch_size", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0.0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected above 0 and finite, got {self.learning_rate}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                expected = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")
        if self.networks == "paper" and self.z0 not in ("shared", "separate"):
            raise ValueError(f'networks: z0={self.z0!r} has none of the networks of the paper; choose "small"')
        if self.networks == "paper" and self.reverse != Settings().reverse:
            raise ValueError("reverse: the networks of the paper give each member a context of its own; leave it out")
        if self.learned and self.alpha != 0.0:
            raise ValueError(f"alpha: expected 0 where the weighting is learned, got {self.alpha}")
        if self.z0 in MIXTURES and (self.alpha != 1.0 or self.learned):
            raise ValueError(f"alpha: expected 1 for z0={self.z0!r}, whose weighting is fixed, got {self.alpha:g}")
        if self.z0 == "markov" and self.num_samples < 2:
            raise ValueError(f"num_samples: expected at least 2 for a Markov chain, got {self.num_samples}")
        return self

    def written(self) -> dict[str, Any]:
        """The settings as files and their names have them: a field of `LATER` only where it has no default value.

        So the fits of earlier versions, which did not have the field, are found.
        """
        default = Settings()._asdict()
        return {name: value for name, value in self._asdict().items() if name not in LATER or value != default[name]}


class Problem(NamedTuple):
    """The bound that a fit maximises, and its parts, as pure functions.

    Attributes:
      init: `(key) -> params`, a dict.
      log_joint: `(params, x, z) -> scalar`, the target; only z is looked at.
      proposal: the proposal that is fitted.
      weighting: how its members share the target.
      make_bound: `(**options of hj.make_bound) -> bound(params, x, key)`; x is not looked at.
      log_weights: `(params, x, key) -> [K]`.
      draw: `(params, x, key) -> hj.Draw`, the samples that `log_weights` weighs under the same key.
    """

    init: Callable[[PRNGKeyArray], Any]
    log_joint: Callable[..., jax.Array]
    proposal: hj.Proposal
    weighting: hj.Weighting
    make_bound: Callable[..., Callable[..., jax.Array]]
    log_weights: Callable[..., jax.Array]
    draw: Callable[..., hj.Draw]


def log_target(z):
    """`log p~(z)` at z [2]: a ring of radius `2 sqrt(2)` with three modes.

    Reference: Huang et al. (2019), figure 2, after Rezende and Mohamed (2015).
    """
    ring = -0.5 * ((jnp.linalg.norm(z) / math.sqrt(2.0) - 2.0) / 0.5) ** 2
    modes = jnp.stack([(z[0] - 2.0) / 0.6, jnp.sin(z[0]) / 0.5, (z[0] + z[1] + 2.5) / 0.6])
    return ring + jax.nn.logsumexp(-0.5 * modes**2)


def log_normaliser(*, extent: float = 10.0, cells: int = 1_000) -> float:
    """`log Z`, by the midpoint rule on `[-extent, extent]^2`; 3.30983 to five decimals."""
    width = 2.0 * extent / cells
    axis = (jnp.arange(cells) + 0.5) * width - extent
    rows = jax.lax.map(lambda z1: jax.vmap(lambda z2: log_target(jnp.stack([z1, z2])))(axis), axis)
    return float(jax.nn.logsumexp(rows)) + 2.0 * math.log(width)


def _init_layer(key, fan_in, fan_out):
    # Biases are as large as weights. With hidden units that all bend at the origin, the gap is almost twice as large.
    weight_key, bias_key = jax.random.split(key)
    limit = 1.0 / math.sqrt(fan_in)
    return {
        "weight": jax.random.uniform(weight_key, (fan_out, fan_in), minval=-limit, maxval=limit),
        "bias": jax.random.uniform(bias_key, (fan_out,), minval=-limit, maxval=limit),
    }


def _init_network(key, fan_in, hidden, fan_out):
    hidden_key, loc_key, raw_key = jax.random.split(key, 3)
    return {
        "hidden": _init_layer(hidden_key, fan_in, hidden),
        "loc": _init_layer(loc_key, hidden, fan_out),
        "raw": _init_layer(raw_key, hidden, fan_out),
    }


def _affine(layer, inputs):
    return layer["weight"] @ inputs + layer["bias"]


def _network(params, inputs):
    features = jax.nn.elu(_affine(params["hidden"], inputs))
    return _affine(params["loc"], features), _affine(params["raw"], features)


def learned_logits(params, z):
    """The logits [K] of the learned weighting at z [2]: one hidden layer.

    Reference: Huang et al. (2019), appendix E.
    """
    return _affine(params["weighting"]["out"], jax.nn.elu(_affine(params["weighting"]["hidden"], z)))


def _init_base():
    # A scale without a dtype would be weakly typed, and the second compiled call would compile anew.
    return {"loc": jnp.zeros(DIMENSIONS), "raw": jnp.full((DIMENSIONS,), RAW_UNIT_SCALE, jnp.float32)}


def _base(params, x):
    return params["base"]["loc"], nn.positive_scale(params["base"]["raw"])


def _make_hierarchical(settings: Settings):
    """`(init, proposal)`: small networks of z_0 for the members and of z for the reverse model."""
    K = settings.num_samples
    embedded = settings.knows_member and settings.reverse == "embedded"
    heads = settings.knows_member and settings.reverse == "heads"

    def init(key):
        conditionals_key, reverse_key = jax.random.split(key)
        reverse_inputs, reverse_outputs = DIMENSIONS + (K if embedded else 0), (K if heads else 1) * DIMENSIONS
        return {
            "base": _init_base(),
            "conditionals": _init_network(conditionals_key, DIMENSIONS, settings.hidden, K * DIMENSIONS),
            "reverse": _init_network(reverse_key, reverse_inputs, settings.hidden, reverse_outputs),
        }

    def conditionals(params, x, z0):
        loc, raw = _network(params["conditionals"], z0)
        return loc.reshape(K, DIMENSIONS), nn.positive_scale(raw.reshape(K, DIMENSIONS))

    def reverse(params, x, z):
        inputs = jnp.concatenate([z, jnp.eye(K)], axis=1) if embedded else z
        rows = jax.vmap(_network, in_axes=(None, 0))(params["reverse"], inputs)
        if heads:
            rows = [jnp.einsum("jjd->jd", leaf.reshape(K, K, DIMENSIONS)) for leaf in rows]
        loc, log_variance = rows
        return loc, nn.scale_from_log_variance(log_variance)

    return init, hj.hierarchical(_base, conditionals, reverse, shared=settings.z0 == "shared")


def _make_papers(settings: Settings):
    """`(init, proposal)`: the library's networks of the paper's appendix D, given a constant context.

    Nothing is conditioned on, so the encoder's output is a constant. The linear map of it that gives each member a
    context is then an embedding of the member. The constant's elements have the sum one. A gain is linear in them, with
    a weight for each, and so a step of Adam moves it by no more than a parameter of its own.
    """
    K, size = settings.num_samples, settings.hidden
    constant = jnp.full(size, 1.0 / size)
    widths = {"base_features": DIMENSIONS, "latent_features": DIMENSIONS, "hidden_features": size}

    def make(key):
        conditionals_key, reverse_key = jax.random.split(key)
        known = settings.knows_member
        return (
            nn.HierarchicalConditionals(
                num_samples=K, context_features=size, rngs=nnx.Rngs(conditionals_key), **widths
            ),
            nn.ReverseModel(
                context_features=size,
                per_member=known,
                num_samples=K if known else None,
                rngs=nnx.Rngs(reverse_key),
                **widths,
            ),
        )

    graphs = [nnx.split(module)[0] for module in nnx.eval_shape(lambda: make(jax.random.key(0)))]

    def init(key):
        conditionals, reverse = (nnx.state(module, nnx.Param) for module in make(key))
        return {"base": _init_base(), "conditionals": conditionals, "reverse": reverse}

    def conditionals(params, x, z0):
        return nnx.merge(graphs[0], params["conditionals"])(constant, z0)

    def reverse(params, x, z):
        return nnx.merge(graphs[1], params["reverse"])(constant, z)

    return init, hj.hierarchical(_base, conditionals, reverse, shared=settings.z0 == "shared")


def _make_markov(settings: Settings):
    """`(init, proposal)`: a chain of K samples with networks of its own for each step, forward and back."""

    def init(key):
        def networks(key):
            keys = jax.random.split(key, settings.num_samples - 1)
            return jax.vmap(lambda key: _init_network(key, DIMENSIONS, settings.hidden, DIMENSIONS))(keys)

        transition_key, reverse_key = jax.random.split(key)
        return {"base": _init_base(), "transition": networks(transition_key), "reverse": networks(reverse_key)}

    def at(networks, z, step):
        return _network(jax.tree.map(lambda leaf: leaf[step], networks), z)

    def transition(params, x, z, step):
        loc, raw = at(params["transition"], z, step)
        return loc, nn.positive_scale(raw)

    def reverse(params, x, z, step):
        loc, log_variance = at(params["reverse"], z, step)
        return loc, nn.scale_from_log_variance(log_variance)

    return init, hj.markov(_base, transition, reverse, num_samples=settings.num_samples)


def _make_mixture(settings: Settings):
    """`(init, proposal)`: K of M Gaussians. There is no network, since nothing conditions them."""
    shape = MIXTURES[settings.z0], DIMENSIONS

    def init(key):
        loc = START_SPREAD * jax.random.normal(key, shape)
        return {"loc": loc, "raw": jnp.full(shape, RAW_UNIT_SCALE, jnp.float32)}

    def conditional(params, x):
        return params["loc"], nn.positive_scale(params["raw"])

    return init, hj.mixture(conditional, num_samples=settings.num_samples)


def make_problem(settings: Settings) -> Problem:
    """The target, a proposal of small networks, and their bound."""
    settings.check()
    hierarchical = {"small": _make_hierarchical, "paper": _make_papers}[settings.networks]
    makers = {"markov": _make_markov, **dict.fromkeys(MIXTURES, _make_mixture)}
    init_proposal, proposal = makers.get(settings.z0, hierarchical)(settings)
    weighting = None if settings.z0 in MIXTURES else hj.power_heuristic(settings.alpha)
    if settings.learned:
        weighting = hj.learned_weighting(lambda params, x, z, z0: learned_logits(params, z))

    def init(key):
        params = init_proposal(key)
        if settings.learned:
            hidden_key, out_key = jax.random.split(jax.random.fold_in(key, 1))
            params["weighting"] = {
                "hidden": _init_layer(hidden_key, DIMENSIONS, settings.hidden),
                "out": _init_layer(out_key, settings.hidden, settings.num_samples),
            }
        return params

    def log_joint(params, x, z):
        return log_target(z)

    return Problem(
        init=init,
        log_joint=log_joint,
        proposal=proposal,
        weighting=weighting,
        make_bound=functools.partial(hj.make_bound, log_joint, proposal, weighting=weighting),
        log_weights=hj.make_log_weights(log_joint, proposal, weighting=weighting),
        draw=proposal.draw,
    )
