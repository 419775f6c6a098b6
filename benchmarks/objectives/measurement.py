"""Train with every objective, judge all of them by the same bound, and time a step of each."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

import hiwae_jax as hj
from benchmarks.shared.problems import Problem
from benchmarks.shared.training import bound_at_time, mean_of, step_costs, train

MANY_REVERSE_SAMPLES = 16  # of the second bound that training is judged by


class Objective(NamedTuple):
    """What is maximised.

    Attributes:
      order: of `make_bound`.
      gradient: likewise; None for the default.
      reverse_samples: further draws of the reverse model.
    """

    order: float = 0.0
    gradient: str | None = None
    reverse_samples: int = 0


BOUND = "the bound"
PLAIN = "plain gradient"
OBJECTIVES = {
    BOUND: Objective(),
    "order 0.3": Objective(order=0.3),
    "order 0.7": Objective(order=0.7),
    PLAIN: Objective(gradient="reparameterized"),
    "1 reverse draw": Objective(gradient="reparameterized", reverse_samples=1),
    "4 reverse draws": Objective(gradient="reparameterized", reverse_samples=4),
}


def bound_of(problem: Problem, objective: Objective) -> hj.Bound:
    """The bound of one example that an objective maximises."""
    reverse = problem.proposal.reverse
    assert reverse is not None  # the proposals are hierarchical
    return hj.make_bound(
        problem.log_joint,
        reverse.with_num_samples(objective.reverse_samples),
        weighting=problem.weighting,
        gradient=objective.gradient,
        order=objective.order,
    )


def run_cell(problem: Problem, *, steps: int, seeds: int) -> dict[str, Any]:
    """All figures of one problem."""
    began = time.monotonic()
    curves, trained = {}, {}
    values = {name: mean_of(bound_of(problem, objective)) for name, objective in OBJECTIVES.items()}
    for name, value in tqdm(values.items(), desc=problem.title, leave=False):
        curves[name], points = train(problem, value, steps=steps, seeds=seeds)
        trained[name] = points[-1]
    of_many = jax.jit(
        jax.vmap(lambda params: problem.evaluate(params, jax.random.key(2), reverse_samples=MANY_REVERSE_SAMPLES))
    )
    with_many = {name: np.asarray(of_many(params)).tolist() for name, params in trained.items()}
    first_seed = jax.tree.map(lambda leaf: leaf[0], trained[BOUND])
    cost = step_costs(problem, values, dict.fromkeys(values, first_seed), relative_to=BOUND)
    return {
        "problem": problem.title,
        "alpha": problem.alpha,
        "num_samples": problem.num_samples,
        "steps": steps,
        "seeds": seeds,
        "cost": cost,
        "bound": {
            name: {
                "equal_steps": bounds[:, -1].tolist(),
                "equal_time": bound_at_time(bounds, cost[name]["time_ratio"]),
                "many_reverse_samples": with_many[name],
            }
            for name, bounds in curves.items()
        },
        "seconds": time.monotonic() - began,
    }
