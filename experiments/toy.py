"""Fit the unnormalised 2-D density of Huang et al. (2019), figure 2, and compare each bound with log Z by quadrature.

    python -m experiments.toy                                  # alpha 0 and 1, shared and separate z_0, K = 3
    python -m experiments.toy --alpha 1 --z0 shared --num-samples 10 --gradient reparameterized doubly_reparameterized

There is no data and no generative model to learn: with the target in place of the joint density the bound lies
below log Z, and the gap is what the proposal leaves open. "shared" is one z_0 for all members, "separate" a z_0
of its own for each sample; the members are distinct under both.

Columns of the table, each a mean over seeds, evaluated with --draws fresh draws of K samples a seed:
  bound     mean over draws of `log sum_j w_j`, mixing weights included.
  gap       log Z - bound, with the standard deviation of the gap between seeds after +-.
  Var log w variance over draws of `log w_j` (its mixing weight included) for each member j, then the mean over members.
  ESS       mean over draws of `(sum_j w_j)^2 / sum_j w_j^2`, between 1 and K.
  seconds   training of all seeds together, compilation included.
"""

import argparse
import functools
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import hiwae_jax as hj
from experiments import report
from hiwae_jax import nn

DIMENSIONS = 2  # of z and of z_0
STEPS_A_CALL = 500
DRAWS_AT_ONCE = 1_000  # a seed; all that evaluation keeps in memory
RAW_UNIT_SCALE = math.log(math.expm1(1.0))  # where `nn.positive_scale` is one
HEADER = (
    "| z_0 | alpha | gradient | K | bound | log Z | gap | Var log w | ESS | seconds |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


class Settings(NamedTuple):
    """One row of the table.

    Attributes:
      z0: "shared" or "separate".
      alpha: of the power heuristic. At 0 the reverse model knows the member, above 0 it may not.
      gradient: the gradient estimator of `make_bound`.
      num_samples: K.
      steps: optimizer steps.
      seeds: independent runs, of seed 0, 1, ...
      draws: fresh draws of K samples a seed for the evaluation, rounded up to whole thousands.
      batch_size: draws of K samples in a step.
      learning_rate: of Adam, constant.
      hidden: units of the one hidden layer of each network.
    """

    z0: str = "shared"
    alpha: float = 0.0
    gradient: str = "doubly_reparameterized"
    num_samples: int = 3
    steps: int = 5_000
    seeds: int = 4
    draws: int = 100_000
    batch_size: int = 64
    learning_rate: float = 5e-4
    hidden: int = 64

    def check(self) -> "Settings":
        """Return the settings, or say which one cannot be."""
        for name in ("num_samples", "steps", "seeds", "draws", "batch_size", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0.0:
            raise ValueError(f"learning_rate: expected above 0, got {self.learning_rate}")
        if self.z0 not in ("shared", "separate"):
            raise ValueError(f"z0: expected 'shared' or 'separate', got {self.z0!r}")
        return self


class Problem(NamedTuple):
    """What a run optimises, as pure functions.

    Attributes:
      init: `(key) -> params`, a plain dict.
      make_bound: `(**options of hj.make_bound) -> bound(params, x, key)`; x is not looked at.
      log_weights: `(params, x, key) -> [K]`.
    """

    init: Callable[[Any], Any]
    make_bound: Callable[..., Any]
    log_weights: Callable[..., Any]


def log_target(z):
    """`log p~(z)`, z [2]: a ring of radius `2 sqrt(2)`, shared out among three modes.

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
    # Biases as large as the weights: hidden units that all bend at the origin leave a gap almost twice as large.
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


def make_problem(settings: Settings) -> Problem:
    """The target, a hierarchical proposal of small networks, and their bound."""
    settings.check()
    K = settings.num_samples
    knows_member = settings.alpha == 0.0

    def init(key):
        conditionals_key, reverse_key = jax.random.split(key)
        reverse_inputs = DIMENSIONS + (K if knows_member else 0)
        # A scale without a dtype would be weakly typed, and the second compiled call would compile anew.
        unit_scale = jnp.full((DIMENSIONS,), RAW_UNIT_SCALE, jnp.float32)
        return {
            "base": {"loc": jnp.zeros(DIMENSIONS), "raw": unit_scale},
            "conditionals": _init_network(conditionals_key, DIMENSIONS, settings.hidden, K * DIMENSIONS),
            "reverse": _init_network(reverse_key, reverse_inputs, settings.hidden, DIMENSIONS),
        }

    def base(params, x):
        return params["base"]["loc"], nn.positive_scale(params["base"]["raw"])

    def conditionals(params, x, z0):
        loc, raw = _network(params["conditionals"], z0)
        return loc.reshape(K, DIMENSIONS), nn.positive_scale(raw.reshape(K, DIMENSIONS))

    def reverse(params, x, z):
        inputs = jnp.concatenate([z, jnp.eye(K)], axis=1) if knows_member else z
        loc, log_variance = jax.vmap(_network, in_axes=(None, 0))(params["reverse"], inputs)
        return loc, nn.scale_from_log_variance(log_variance)

    def log_joint(params, x, z):
        return log_target(z)

    proposal = hj.hierarchical(base, conditionals, reverse, shared=settings.z0 == "shared")
    weighting = hj.power_heuristic(settings.alpha)
    return Problem(
        init=init,
        make_bound=functools.partial(hj.make_bound, log_joint, proposal, weighting=weighting),
        log_weights=hj.make_log_weights(log_joint, proposal, weighting=weighting),
    )


def train(settings: Settings, problem: Problem) -> Any:
    """Trained parameters with a leading axis of seeds; all seeds are one compiled program."""
    optimizer = optax.adam(settings.learning_rate)
    bound = problem.make_bound(gradient=settings.gradient)
    x = jnp.zeros(())

    def loss(params, keys):
        return -jnp.mean(jax.vmap(bound, in_axes=(None, None, 0))(params, x, keys))

    def start(seed):
        params = problem.init(jax.random.fold_in(jax.random.key(0), seed))
        return params, optimizer.init(params)

    def run(seed, state, indices):
        def step(carry, index):
            params, opt_state = carry
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), seed), index)
            value, gradient = jax.value_and_grad(loss)(params, jax.random.split(key, settings.batch_size))
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), -value

        state, values = jax.lax.scan(step, state, indices)
        return state, jnp.mean(values)

    seeds = jnp.arange(settings.seeds)
    state = jax.jit(jax.vmap(start))(seeds)
    run_call = jax.jit(jax.vmap(run, in_axes=(0, 0, None)), donate_argnums=1)
    title = f"{settings.z0}, alpha {settings.alpha:g}, {settings.gradient}"
    with tqdm(total=settings.steps, unit="step", desc=title) as progress:
        for first in range(0, settings.steps, STEPS_A_CALL):
            indices = jnp.arange(first, min(first + STEPS_A_CALL, settings.steps))
            state, values = run_call(seeds, state, indices)
            if not np.all(np.isfinite(values)):
                raise FloatingPointError(
                    f"{title}: the bound is not finite within steps {first} to {first + len(indices)}, at seed "
                    f"{int(np.argmin(np.isfinite(values)))}; lower the learning rate"
                )
            progress.set_postfix(bound=f"{np.mean(values):.4f}")
            progress.update(len(indices))
    return state[0]


def evaluate(settings: Settings, problem: Problem, params: Any) -> dict[str, list[float]]:
    """The figures of each seed, as lists over seeds; the module's docstring defines them.

    `bound_standard_error` is the Monte Carlo error of `bound`.
    """
    chunks = -(-settings.draws // DRAWS_AT_ONCE)
    x = jnp.zeros(())

    def moments(seed, params):
        def chunk(number):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(2), seed), number)
            keys = jax.random.split(key, DRAWS_AT_ONCE)
            log_w = jax.vmap(problem.log_weights, in_axes=(None, None, 0))(params, x, keys)
            bounds, ess = jax.nn.logsumexp(log_w, axis=-1), hj.effective_sample_size(log_w)
            columns = jnp.concatenate([bounds[:, None], ess[:, None], log_w], axis=1)
            return jnp.mean(columns, axis=0), jnp.var(columns, axis=0)

        return jax.lax.map(chunk, jnp.arange(chunks))

    means, variances = jax.jit(jax.vmap(moments))(jnp.arange(settings.seeds), params)
    means, variances = np.asarray(means, np.float64), np.asarray(variances, np.float64)  # [seeds, chunks, 2 + K]
    mean = np.mean(means, axis=1)
    # All chunks are equally large, so that the variance is the mean within chunks plus that between their means.
    variance = np.mean(variances, axis=1) + np.var(means, axis=1)
    return {
        "bound": mean[:, 0].tolist(),
        "bound_standard_error": np.sqrt(variance[:, 0] / (chunks * DRAWS_AT_ONCE)).tolist(),
        "log_weight_variance": np.mean(variance[:, 2:], axis=1).tolist(),
        "effective_sample_size": mean[:, 1].tolist(),
    }


def run(settings: Settings, log_z: float) -> dict[str, Any]:
    """One row: trained and evaluated."""
    problem = make_problem(settings)
    began = time.monotonic()
    params = jax.block_until_ready(train(settings, problem))
    trained = time.monotonic()
    figures = evaluate(settings, problem, params)
    return {
        "settings": settings._asdict(),
        "log_z": log_z,
        "gap": [log_z - bound for bound in figures["bound"]],
        **figures,
        "train_seconds": trained - began,
        "evaluation_seconds": time.monotonic() - trained,
    }


def row(result: dict[str, Any]) -> str:
    """One line of the Markdown table."""
    settings = result["settings"]
    spread = f"{np.std(result['gap'], ddof=1):.4f}" if len(result["gap"]) > 1 else "-"
    return (
        f"| {settings['z0']} | {settings['alpha']:g} | {settings['gradient']} | {settings['num_samples']} "
        f"| {np.mean(result['bound']):.4f} | {result['log_z']:.5f} | {np.mean(result['gap']):.4f} +- {spread} "
        f"| {np.mean(result['log_weight_variance']):.3f} | {np.mean(result['effective_sample_size']):.3f} "
        f"| {result['train_seconds']:.0f} |"
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Settings()
    parser.add_argument("--z0", nargs="+", choices=("shared", "separate"), default=["shared", "separate"])
    parser.add_argument("--alpha", nargs="+", type=float, default=[0.0, 1.0], help="default: 0 1")
    parser.add_argument("--gradient", nargs="+", default=[default.gradient], help="default: %(default)s")
    parser.add_argument("--num-samples", type=int, default=default.num_samples, help="K; default: %(default)s")
    parser.add_argument("--steps", type=int, default=default.steps, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=default.seeds, help="how many; default: %(default)s")
    parser.add_argument("--draws", type=int, default=default.draws, help="default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/toy"), help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run every combination asked for; print the table and write it with the figures of each seed."""
    options = parse(arguments)
    grid = [
        Settings(
            z0=z0,
            alpha=alpha,
            gradient=gradient,
            num_samples=options.num_samples,
            steps=options.steps,
            seeds=options.seeds,
            draws=options.draws,
        )
        for z0 in options.z0
        for alpha in options.alpha
        for gradient in options.gradient
    ]
    for settings in grid:
        make_problem(settings).make_bound(
            gradient=settings.gradient
        )  # a mistake in the last row is an error before the first one trains
    log_z = log_normaliser()
    results = [run(settings, log_z) for settings in grid]
    text = "\n".join([HEADER, *map(row, results)])
    print(f"\n{text}\n")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "toy.md").write_text(text + "\n")
    report.write_json(options.output / "toy.json", {"results": results, "provenance": report.provenance()})
    print(f"table and JSON are in {options.output}/")


if __name__ == "__main__":
    main()
