"""Fit a proposal to the toy target for several seeds at once, measure its weights, and keep both on disk."""

import hashlib
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import hiwae_jax as hj
from experiments.shared.provenance import provenance
from experiments.shared.stored import (
    FORMAT,
    UnusableError,
    is_number,
    read_arrays,
    read_json,
    write_arrays,
    write_json,
)
from experiments.toy.problem import Problem, Settings, make_problem

STEPS_A_CALL = 500
DRAWS_AT_ONCE = 1_000
# The figures of `measure` that are one number a seed.
MEASURES = (
    *("bound", "gap", "bound_standard_error", "estimate_log_variance", "estimate_variance", "estimate_deviation"),
    *("log_weight_variance", "effective_sample_size"),
)


class Fit(NamedTuple):
    """A finished fit.

    Attributes:
      result: what is written as JSON: the settings, log Z and the figures of `evaluate`, as lists over seeds.
      params: the trained parameters, with a leading axis of seeds.
    """

    result: dict[str, Any]
    params: Any


def _initial_params(settings: Settings, problem: Problem) -> Any:
    def start(seed):
        return problem.init(jax.random.fold_in(jax.random.key(0), seed))

    return jax.jit(jax.vmap(start))(jnp.arange(settings.seeds))


def _title(settings: Settings) -> str:
    weighting = "learned weighting" if settings.learned else f"alpha {settings.alpha:g}"
    return f"{settings.z0}, {weighting}, {settings.gradient}"


def train(settings: Settings, problem: Problem) -> Any:
    """Trained parameters with a leading axis of seeds; all seeds are one compiled program."""
    rate = settings.learning_rate
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, settings.steps) if settings.decay else rate)
    bound = problem.make_bound(gradient=settings.gradient)
    x = jnp.zeros(())

    def loss(params, keys):
        return -jnp.mean(jax.vmap(bound, in_axes=(None, None, 0))(params, x, keys))

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
    params = _initial_params(settings, problem)
    state = params, jax.jit(jax.vmap(optimizer.init))(params)
    run_call = jax.jit(jax.vmap(run, in_axes=(0, 0, None)), donate_argnums=1)
    title = _title(settings)
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


def evaluate(settings: Settings, problem: Problem, params: Any, *, log_z: float) -> dict[str, list[Any]]:
    """The figures of `measure` for each seed, as lists over seeds, from `settings.draws` fresh draws of K samples."""
    chunks = -(-settings.draws // DRAWS_AT_ONCE)

    @jax.jit
    def draw(seed, params):
        params = jax.tree.map(lambda leaf: leaf[seed], params)

        def chunk(number):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(2), seed), number)
            keys = jax.random.split(key, DRAWS_AT_ONCE)
            return jax.vmap(problem.log_weights, in_axes=(None, None, 0))(params, jnp.zeros(()), keys)

        return jax.lax.map(chunk, jnp.arange(chunks)).reshape(-1, settings.num_samples)

    rows = [measure(draw(jnp.int32(seed), params), log_z=log_z) for seed in range(settings.seeds)]
    return {name: [row[name] for row in rows] for name in rows[0]}


def measure(log_weights: Any, *, log_z: float) -> dict[str, Any]:
    """The figures of one proposal, from N draws of K log-weights [N, K], mixing weights included.

    With `w = sum_j w_j`, the estimate of Z: `bound` is the mean of log w and `bound_standard_error` its Monte Carlo
    error; `estimate_log_variance` is Var(log w), in squared nats; `estimate_variance` and `estimate_deviation` are the
    variance and standard deviation of w / Z, whose mean is one. `log_weight_variance` is Var(log w_j), mean over j,
    `effective_sample_size` the mean of `w^2 / sum_j w_j^2`, `weight_correlation` that of the w_j, [K, K].
    """
    log_w = np.asarray(log_weights, np.float64)
    log_estimate = np.logaddexp.reduce(log_w, axis=1)
    estimate = np.exp(log_estimate - log_z)
    return {
        "bound": float(np.mean(log_estimate)),
        "gap": float(log_z - np.mean(log_estimate)),
        "bound_standard_error": float(np.std(log_estimate) / np.sqrt(len(log_w))),
        "estimate_log_variance": float(np.var(log_estimate)),
        "estimate_variance": float(np.var(estimate)),
        "estimate_deviation": float(np.std(estimate)),
        "log_weight_variance": float(np.mean(hj.log_weight_variance(log_weights, axis=0))),
        "effective_sample_size": float(np.mean(hj.effective_sample_size(log_weights))),
        "weight_correlation": np.asarray(hj.weight_correlation(log_weights), np.float64).round(5).tolist(),
    }


def _stored(path: pathlib.Path, settings: Settings, shapes: Any, *, log_z: float) -> Fit:
    """Read the fit in a file and in the arrays beside it, or raise an UnusableError that names what is wrong."""
    result = read_json(path, remedy="it cannot be read")
    arrays, seeds = path.with_suffix(".npz"), settings.seeds
    if result.get("settings") != settings.written() or result.get("format") != FORMAT:
        raise UnusableError(f"{path}: of other settings, or of another version")
    numbers = [result.get(name) for name in ("log_z", "train_seconds")]
    rows = [result.get(name) for name in MEASURES]
    if not (
        all(map(is_number, numbers)) and abs(numbers[0] - log_z) < 1e-4 and isinstance(result.get("provenance"), dict)
    ):
        raise UnusableError(f"{path}: lacks log Z, seconds or provenance, or has another log Z than {log_z:.5f}")
    if not all(isinstance(row, list) and len(row) == seeds and all(map(is_number, row)) for row in rows):
        raise UnusableError(f"{path}: lacks {seeds} finite numbers for each of {', '.join(MEASURES)}")
    K = settings.num_samples
    matrices = result.get("weight_correlation")
    try:
        square = np.shape(np.asarray(matrices, np.float64)) == (seeds, K, K)
    except (TypeError, ValueError):
        square = False
    if not square:
        raise UnusableError(f"{path}: weight_correlation: expected a matrix of {K} rows for each of {seeds} seeds")
    if hashlib.sha256(arrays.read_bytes()).hexdigest() != result.get("parameters"):
        raise UnusableError(f"{arrays}: damaged, or of another fit than {path.name}")
    found = read_arrays(arrays)
    leaves = [found.get(str(i)) for i in range(len(found))]
    if [None if leaf is None else leaf.shape for leaf in leaves] != [leaf.shape for leaf in jax.tree.leaves(shapes)]:
        raise UnusableError(f"{arrays}: parameters of other shapes")
    return Fit(result, jax.tree.unflatten(jax.tree.structure(shapes), map(jnp.asarray, leaves)))


def fit(settings: Settings, folder: pathlib.Path, *, log_z: float) -> Fit:
    """Train and evaluate, or read what an earlier call with the same settings left in `folder`.

    A file that is damaged, or of other settings, is made anew. Names of files round numbers, so they may coincide.
    """
    problem = make_problem(settings)
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in settings.written().values()]
    path = folder / ("_".join(words) + ".json")
    arrays = path.with_suffix(".npz")
    shapes = jax.eval_shape(lambda: _initial_params(settings, problem))
    if path.exists() and arrays.exists():
        try:
            return _stored(path, settings, shapes, log_z=log_z)
        except UnusableError as error:
            print(f"{error}; fitted anew")
    began = time.monotonic()
    params = jax.block_until_ready(train(settings, problem))
    trained = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(arrays, {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))})
    result = {
        "format": FORMAT,
        "settings": settings.written(),
        "log_z": log_z,
        **evaluate(settings, problem, params, log_z=log_z),
        "train_seconds": trained - began,
        "evaluation_seconds": time.monotonic() - trained,
        "provenance": provenance(),
        "parameters": hashlib.sha256(arrays.read_bytes()).hexdigest(),
    }
    # The last file to be written: where it is, the fit is whole.
    write_json(path, result)
    return Fit(result, params)
