"""Training on a problem, the time of a step, and the bound that is reached in equal time."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.shared.problems import Problem

STORED_POINTS = 20  # points of each training curve
TIMED_ROUNDS = 15

MeanBound = Callable[..., jax.Array]  # (params, x [B, ...], key) -> scalar, of a batch


def mean_of(bound: Callable[..., jax.Array]) -> MeanBound:
    """The mean over a batch of a bound of one example."""

    def value(params, x, key):
        return jnp.mean(jax.vmap(bound, in_axes=(None, 0, 0))(params, x, jax.random.split(key, len(x))))

    return value


def train(problem: Problem, value: MeanBound, *, steps: int, seeds: int) -> tuple[np.ndarray, list[Any]]:
    """Train: bounds [seeds, STORED_POINTS + 1], and the parameters of all seeds at each stored point."""
    optimizer = optax.adam(problem.learning_rate)
    chunk = steps // STORED_POINTS

    def advance(seed, state, first):
        def step(state, index):
            params, opt_state = state
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), seed), index)
            batch_key, noise_key = jax.random.split(key)
            x = problem.batch(batch_key)
            gradient = jax.grad(lambda p: -value(p, x, noise_key))(params)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, state, first + jnp.arange(chunk))[0]

    advance = jax.jit(jax.vmap(advance, in_axes=(0, 0, None)))
    evaluate = jax.jit(jax.vmap(lambda params: problem.evaluate(params, jax.random.key(2))))
    numbers = jnp.arange(seeds)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[problem.init(seed) for seed in range(seeds)])
    state = params, jax.vmap(optimizer.init)(params)
    bounds, stored = [], []
    for point in range(STORED_POINTS + 1):
        bounds.append(np.asarray(evaluate(state[0])))
        stored.append(jax.tree.map(np.asarray, state[0]))
        if point < STORED_POINTS:
            state = advance(numbers, state, jnp.int32(point * chunk))
    return np.stack(bounds, axis=1), stored


def step_costs(
    problem: Problem, values: Mapping[str, MeanBound], params: Mapping[str, Any], *, relative_to: str
) -> dict[str, dict[str, float]]:
    """Time and FLOPs of value and gradient of a batch, each with its own parameters, relative to one of the values."""
    x, key = problem.batch(jax.random.key(5)), jax.random.key(6)
    programs = {}
    for name, value in values.items():
        programs[name] = jax.jit(jax.value_and_grad(value)).lower(params[name], x, key).compile()
        jax.block_until_ready(programs[name](params[name], x, key))
    seconds = {name: [] for name in programs}
    for _ in range(TIMED_ROUNDS):
        for name, program in programs.items():
            began = time.perf_counter()
            for _ in range(3):
                jax.block_until_ready(program(params[name], x, key))
            seconds[name].append((time.perf_counter() - began) / 3)
    base = np.asarray(seconds[relative_to])
    flops = {name: program.cost_analysis()["flops"] for name, program in programs.items()}
    return {
        name: {
            "time_ratio": float(np.median(np.asarray(seconds[name]) / base)),
            "milliseconds": 1e3 * float(np.median(seconds[name])),
            "flops_ratio": flops[name] / flops[relative_to],
        }
        for name in programs
    }


def bound_at_time(bounds: np.ndarray, time_ratio: float) -> list[float]:
    """Of each seed's curve, the bound at the point where a step that takes one unit of time would be done."""
    reached = min(1.0, 1.0 / time_ratio) * STORED_POINTS
    return [float(np.interp(reached, np.arange(STORED_POINTS + 1), row)) for row in bounds]
