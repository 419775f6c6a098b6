"""Bias, noise and cost of every gradient estimator on a problem, and the bounds that training with it reaches."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks.shared.problems import Problem
from benchmarks.shared.training import STORED_POINTS, bound_at_time, mean_of, step_costs, train
from hiwae_jax import PATHWISE_GRADIENTS

ONE_BACKWARD_SAMPLE = "one backward sample"
ESTIMATORS = (*PATHWISE_GRADIENTS, ONE_BACKWARD_SAMPLE)
EQUAL_WITHOUT_PAIRS = ("refilled", "path_squared")  # to RECOMMENDED, where the weighting compares no densities
PLAIN = "reparameterized"
RECOMMENDED = "doubly_reparameterized"  # gradients are compared at the parameters that training with it reaches
STAGES = ("initial", "mid-training", "trained")
GROUPS = 20  # groups of independent draws


def estimators(alpha: float) -> list[str]:
    """The estimators that differ from one another at this alpha."""
    return [name for name in ESTIMATORS if alpha > 0.0 or name not in EQUAL_WITHOUT_PAIRS]


def reference(estimator: str) -> str:
    """The unbiased estimator with which another one is compared: the least noisy one of another derivation."""
    return PLAIN if estimator in (PLAIN, RECOMMENDED) else RECOMMENDED


def mean_bound(problem: Problem, estimator: str):
    """`(params, x [B, ...], key) -> scalar`: the mean bound of a batch."""
    if estimator == ONE_BACKWARD_SAMPLE:
        bound = problem.make_bound(gradient=RECOMMENDED, backward_samples=1)
    else:
        bound = problem.make_bound(gradient=estimator)

    return mean_of(bound)


def make_moments(problem: Problem, *, draws: int):
    """`(params, key) -> four arrays [estimators, parameters]`, of the proposal's parameters alone.

    Means over `draws` of the gradients, of their squares, of their differences from the reference, and of the squares
    of these.
    """
    names = estimators(problem.alpha)
    x = problem.batch(jax.random.key(3))[: problem.compared_examples]
    gradients = [jax.grad(mean_bound(problem, name)) for name in names]
    references = np.asarray([names.index(reference(name)) for name in names])

    def of_proposal(gradient):
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(problem.of_proposal), strict=True)
        return jnp.concatenate([leaf.ravel() for leaf, chosen in pairs if chosen])

    @jax.jit
    def moments(params, key):
        def draw(total, key):
            rows = jnp.stack([of_proposal(gradient(params, x, key)) for gradient in gradients])
            difference = rows - rows[references]
            return jax.tree.map(jnp.add, total, (rows, rows**2, difference, difference**2)), None

        empty = (jnp.zeros((len(names), of_proposal(params).size)),) * 4
        keys = jax.random.split(key, draws)
        return jax.tree.map(lambda total: total / draws, jax.lax.scan(draw, empty, keys)[0])

    return moments


def compare(problem: Problem, moments: Callable[..., Any], params: Any, *, draws: int) -> dict[str, dict[str, float]]:
    """Bias and noise of every estimator's gradient at one point, from GROUPS calls of `moments`."""
    names = estimators(problem.alpha)
    groups = [moments(params, jax.random.fold_in(jax.random.key(4), group)) for group in range(GROUPS)]
    rows, squares, differences, difference_squares = (
        np.stack(parts).astype(np.float64) for parts in zip(*groups, strict=True)
    )  # [GROUPS, estimators, parameters]
    count = draws // GROUPS * GROUPS
    noise = _variance(rows, squares, count)
    difference_noise = _variance(differences, difference_squares, count)
    gradient_norm = math.sqrt(max(_squared_norm(rows[:, names.index(RECOMMENDED)])[0], 0.0))
    return {
        name: {
            **_bias(differences[:, i], difference_noise[i], noise[i], count),
            "gradient_norm": gradient_norm,
            "variance_ratio": float(np.sum(noise[i]) / np.sum(noise[0])),
            "signal_to_noise": gradient_norm / math.sqrt(np.sum(noise[i])),
        }
        for i, name in enumerate(names)
    }


def _variance(means: np.ndarray, squares: np.ndarray, count: int) -> np.ndarray:
    """The variance of one draw, from the means over groups of draws of a number and of its square."""
    return np.maximum(squares.mean(0) - means.mean(0) ** 2, 0.0) * count / (count - 1)


def _bias(differences: np.ndarray, difference_noise: np.ndarray, noise: np.ndarray, count: int) -> dict[str, float]:
    """How far an estimator's mean is from that of its reference.

    Args:
      differences: their difference, means over the draws of a group, [GROUPS, parameters].
      difference_noise: the variance of one draw of it, [parameters].
      noise: the variance of one draw of the estimator itself.
      count: draws in all.
    """
    squared, error = _squared_norm(differences)
    # Differences below 1e-6 of the estimator's own noise are rounding: both estimators agree there in every draw.
    moving = difference_noise > 1e-12 * noise
    scores = np.abs(differences.mean(0)[moving]) / np.sqrt(difference_noise[moving] / count)
    return {
        "largest_z": float(np.max(scores, initial=0.0)),
        "expected_largest_z": math.sqrt(2.0 * math.log(max(np.sum(moving), 2))),
        "bias_norm": math.sqrt(max(squared, 0.0)),
        "bias_is_seen": squared > 3.0 * error,
        "largest_bias_norm": math.sqrt(max(squared, 0.0) + 3.0 * error),
    }


def _squared_norm(group_means: np.ndarray) -> tuple[float, float]:
    """Unbiased estimate of the squared norm of the expectation, and its standard error where that is zero.

    Products of different groups alone, [GROUPS, parameters]: noise in one is independent of noise in another.
    """
    gram = group_means @ group_means.T
    products = gram[~np.eye(len(gram), dtype=bool)]
    return float(np.mean(products)), math.sqrt(2.0 * np.mean(products**2) / len(products))


def costs(problem: Problem, params: Any) -> dict[str, dict[str, float]]:
    """Time and FLOPs of a batch's value and gradient, relative to the plain estimator."""
    values = {name: mean_bound(problem, name) for name in estimators(problem.alpha)}
    return step_costs(problem, values, dict.fromkeys(values, params), relative_to=PLAIN)


def run_cell(problem: Problem, *, steps: int, seeds: int, draws: int) -> dict[str, Any]:
    """All figures of one cell."""
    began = time.monotonic()
    curves, stored = {}, None
    for name in tqdm(estimators(problem.alpha), desc=problem.title, leave=False):
        curves[name], points = train(problem, mean_bound(problem, name), steps=steps, seeds=seeds)
        if name == RECOMMENDED:
            stored = [jax.tree.map(lambda leaf: leaf[0], point) for point in points]  # of the first seed
    points = (0, STORED_POINTS // 10, STORED_POINTS)
    moments = make_moments(problem, draws=draws // GROUPS)
    quality = {
        stage: compare(problem, moments, stored[point], draws=draws)
        for stage, point in zip(STAGES, points, strict=True)
    }
    cost = costs(problem, stored[-1])
    final = {}
    for name, bounds in curves.items():
        at_time = bound_at_time(bounds, cost[name]["time_ratio"])
        final[name] = {"equal_steps": bounds[:, -1].tolist(), "equal_time": at_time, "curve": bounds.mean(0).tolist()}
    return {
        "problem": problem.title,
        "alpha": problem.alpha,
        "num_samples": problem.num_samples,
        "steps": steps,
        "seeds": seeds,
        "draws": draws,
        "quality": quality,
        "cost": cost,
        "bound": final,
        "seconds": time.monotonic() - began,
    }
