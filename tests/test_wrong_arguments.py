"""Every argument of every public function, given values of the wrong type, rank or dtype: the error names it."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

import hiwae_jax as hj
from tests.public_calls import CALLS, call


class Distribution:
    """An object that is no array."""


WRONG = {
    "None": None,
    "text": "no",
    "True": True,
    "-1": -1,
    "NaN": float("nan"),
    "1.5": 1.5,
    "an empty dict": {},
    "an object": Distribution(),
    "a function of nothing": lambda: 1,
    "a scalar array": jnp.zeros(()),
    "an array without entries": jnp.zeros(0),
    "integers": jnp.arange(3),
    "booleans": jnp.ones(3, bool),
    "an array of text": np.array(["a"]),
}
ANYTHING = set(WRONG)  # what only the caller's functions read
NUMBERS = {"1.5", "a scalar array"}
# What is right after all, or cannot be told from what is right, by argument: for all functions, then for one.
RIGHT = {
    "axis": {"-1"},
    "alpha": NUMBERS,
    "df": {"1.5"},
    "free_bits": NUMBERS,
    "beta": NUMBERS,
    "params": ANYTHING,
    "x": ANYTHING,
    **{
        key: {"None"}
        for key in ("sampler", "sharding", "context", "weighting", "draw", "independent_samples", "present")
    },
    **{key: {"None"} for key in ("backward_samples", "chunk_size", "gradient")},
}
RIGHT_FOR = {
    ("renyi_bound", "alpha"): {"-1", "1.5"},
    ("make_log_weights", "reverse_samples"): {"None"},
    ("make_bound", "order"): {"a scalar array"},
    ("make_annealed_objective", "order"): {"a scalar array"},
    ("interval", "low"): {"-1", "a scalar array", "1.5", "integers"},  # for the last two the error names high
    ("interval", "high"): {"1.5"},
    ("hierarchical", "num_samples"): {"None"},
    ("family_from", "inverse"): {"None"},
    ("hierarchical", "shared"): {"True"},
    ("mixture", "draw"): set(),
    ("make_log_evidence", "independent_samples"): {"None", "True"},
    ("make_discrete_bound", "gradient"): set(),
    ("batched_value_and_grad", "dispatch"): {"True"},
    ("batched_value_and_grad", "has_aux"): {"True"},
    ("batched_value_and_grad", "spmd_axis_name"): {"None", "text"},
    ("batched_value_and_grad", "objective"): {"a function of nothing"},  # shared arguments may follow
    ("batched_value_and_grad", "draw"): {"None", "a function of nothing"},
    ("posterior_resample", "z"): {"integers", "booleans"},
    ("the batched gradient", "params"): ANYTHING - {"True", "-1", "text", "an object", "a function of nothing"},
    ("the batched gradient", "batch"): {"integers", "booleans"},
    ("bernoulli.log_prob", "parameters"): {"an array without entries"},  # the error names z
    ("bernoulli.log_prob", "z"): {"booleans"},
    ("bernoulli.sample", "parameters"): {"an array without entries"},
    ("nn.bernoulli_log_prob", "logits"): {"a scalar array", "an array without entries"},  # the error names x
    ("nn.bernoulli_log_prob", "x"): {"booleans"},
    **{
        (name, argument): {"1.5", "NaN", "a scalar array", "an array without entries"}
        for name, argument in [
            ("nn.logits_from_mean", "mean"),
            ("nn.positive_scale", "raw"),
            ("nn.scale_from_log_variance", "log_variance"),
        ]
    },
}
ARGUMENTS = [(name, argument) for name, (_, given, by_keyword) in CALLS.items() for argument in (*given, *by_keyword)]
# Types, and values that are no functions.
NO_CALLS = {
    *(
        "Bijection",
        "Bound",
        "DiscreteFamily",
        "Draw",
        "Family",
        "LogEvidence",
        "Members",
        "Proposal",
        "Shared",
        "Weighting",
    ),
    *("bernoulli", "categorical", "diagonal_gaussian", "full_rank_gaussian", "uniform_weighting"),
    *("positive", "simplex", "unit_interval", "GRADIENTS", "PATHWISE_GRADIENTS"),
    *("NumpyroModel", "numpyro_model"),  # tests/test_numpyro_model.py, where NumPyro is installed
}


# Their calls compile, and other tests make them.
TAKE_TIME = {"check_family", "check_bijection", "pareto_khat", "the log-evidence", "the discrete bound", "jackknife"}


def test_every_public_function_and_every_argument_is_tried():
    assert set(hj.__all__) - NO_CALLS <= set(CALLS)
    for name, (function, given, by_keyword) in CALLS.items():
        if hasattr(hj, name) and name != "standard_normal":
            assert set(inspect.signature(function).parameters) == {*given, *by_keyword}, name


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_the_error_names_the_argument(name, argument):
    right = RIGHT_FOR.get((name, argument), RIGHT.get(argument, set()))
    if name not in TAKE_TIME and argument == next(iter(CALLS[name][1])):
        call(name)  # what is wrong is not another argument
    for title, value in WRONG.items():
        if title in right:
            continue
        with pytest.raises((TypeError, ValueError)) as error:
            call(name, argument, value)
        assert str(error.value).startswith(argument), (title, str(error.value))


# What comes for the text "no" in place of each argument; in place of one of a function where it says something else.
OF_TEXT = {
    "low": "a finite number, or an array [D] of them, got 'no'",
    "high": "a finite number, or an array [D] of them, got 'no'",
    "bijection": "hj.Bijection(forward, inverse), got str",
    "log_weights": "a floating-point array, got str; pass the logarithms of the importance weights",
    "axis": "one integer, the axis that runs over the samples, got 'no'",
    "order": "an integer from 0 to 4, got 'no'; 0 is iwlb",
    "alpha": "a number that is known when the function is called, got 'no'",
    "log_proposal": "a floating-point array, got str",
    "gradients": "arrays, got a leaf of type str",
    "key": "a typed key from jax.random.key(seed), got str",
    "weights": "a floating-point array, got str",
    "num_samples": "an integer of at least 1, got 'no'",
    "z": "a floating-point array of zeros and ones, got str",
    "logits_fn": "a function (params, x, z, z0) -> [K] logits, got str",
    "df": "a number, got 'no'",
    "conditional": "a function (params, x) -> (loc [D], scale [D]), got str",
    "sharding": "NamedSharding(mesh, P(axis)) with the mesh axis of the samples, got str",
    "family": "hj.diagonal_gaussian, hj.student_t(5.0) or another hj.Family, got str",
    "sampler": "a function (key, shape, dtype) -> noise, got str",
    "present": "a function (params, x) -> bool [M], got str",
    "broad": "a function (params, x) -> (loc [D], scale [D]), got str",
    "num_broad": "an integer of at least 1, got 'no'",
    "base": "a function (params, x) -> (loc [D], scale [D]), got str",
    "conditionals": "a function (params, x, z0) -> (loc [K, D], scale [K, D]), got str",
    "reverse": "a function (params, x, z) -> (loc [K, D0], scale [K, D0]), got str",
    "shared": "True or False, got 'no'",
    "context": "a function (params, x), got str",
    "base_family": "hj.diagonal_gaussian, hj.student_t(5.0) or another hj.Family, got str",
    "make": "a function (parameters) -> a distribution with log_prob and sample, got str",
    "paths": "one of 'all', 'own', 'none', got 'no'",
    "forward": "a function (distribution, noise), got str",
    "inverse": "a function (distribution, z), got str",
    "maps": "a list of hj.Bijection, got str",
    "kept": "booleans for D dimensions, some true and some false, got 'no'",
    "transition": "a function (params, x, z, step) -> (loc [D], scale [D]), got str",
    "log_joint": "a function (params, x, z) -> scalar, got str",
    "proposal": "what hj.independent, hj.hierarchical or their like return, got str",
    "gradient": f"one of {', '.join(map(repr, hj.GRADIENTS))}, got 'no'",
    "backward_samples": "an integer of at least 1, got 'no'",
    "reverse_samples": "an integer of at least 0, got 'no'",
    "weighting": "what hj.uniform_weighting or hj.power_heuristic returns, got str",
    "chunk_size": "an integer of at least 1, got 'no'",
    "log_likelihood": "a function (params, x, z) -> scalar, got str",
    "log_prior": "a function (params, x, z) -> scalar, got str",
    "free_bits": "a number, got 'no'",
    "num_draws": "an integer of at least 1, got 'no'",
    "independent_samples": "True or False, got 'no'",
    "control_variates": "True or False, got 'no'",
    "objective": "a function (params, x, key) of one example, got str",
    "draw": "a function (params, x, key) of one example, got str",
    "dispatch": "True or False, got 'no'",
    "has_aux": "True or False, got 'no'",
    "beta": "a number, got 'no'",
    "params": "arrays, got a leaf of type str; hand over the arrays alone and put the rest back within objective, as "
    "eqx.partition and eqx.combine do",
    "batch": "arrays, got a leaf of type str",
    "parameters": "one array of logits [D] for one example, got str; the caller vmaps over the batch",
    "logits": "an array, got str",
    "x": "an array, got str",
    "mean": "a floating-point array, got str",
    "margin": "a number, got 'no'",
    "raw": "a floating-point array, got str",
    "log_variance": "a floating-point array, got str",
}
OF_TEXT_FOR = {
    ("transformed", "bijection"): "hj.unit_interval, hj.positive or another hj.Bijection, got str",
    ("check_family", "parameters"): "arrays [D], got str; return the arrays that a distribution is made of, such as "
    "(loc, scale), and not the distribution",
    ("check_bijection", "z"): "a floating-point array, got str",
    ("weight_correlation", "log_weights"): "a floating-point array, got str",
    ("posterior_resample", "log_weights"): "a floating-point array, got str",
    ("make_log_evidence", "log_weights"): "a function (params, x, key) -> [K], got str",
    ("power_heuristic", "alpha"): "a number, got 'no'",
    ("make_bound", "order"): "a number, got 'no'",
    ("make_annealed_objective", "order"): "a number, got 'no'",
    ("posterior_resample", "z"): "arrays, got a leaf of type str",
    ("joint_gaussian", "conditional"): "a function (params, x) -> (loc [K, D], scale_tril [D, K, K]), got str",
    ("mixture", "conditional"): "a function (params, x) -> (loc [M, D], scale [M, D]), got str",
    ("mixture", "draw"): "one of 'without_replacement', 'stratified', 'with_replacement', got 'no'",
    ("affine_map", "conditional"): "a function (params, x) -> (shift [D], scale [D]), got str",
    ("coupling_map", "conditional"): "a function (params, x, z) -> (shift [D], scale [D]), got str",
    ("make_discrete_bound", "conditional"): "a function (params, x) -> parameters, got str",
    ("make_discrete_bound", "family"): "hj.bernoulli, hj.categorical or a DiscreteFamily, got str",
    ("hierarchical", "base"): "a function (params, x) -> (loc [D0], scale [D0]), got str",
    ("markov", "reverse"): "a function (params, x, z, step) -> (loc [D], scale [D]), got str",
    ("make_discrete_bound", "gradient"): "one of 'score_function', 'vimco', 'wake_phase', got 'no'",
    (
        "categorical.log_prob",
        "parameters",
    ): "one array of logits [D, C] for one example, got str; the caller vmaps over the batch",
    (
        "categorical.sample",
        "parameters",
    ): "one array of logits [D, C] for one example, got str; the caller vmaps over the batch",
}


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_the_message_for_text(name, argument):
    if "text" in RIGHT_FOR.get((name, argument), RIGHT.get(argument, set())):
        return
    expected = OF_TEXT_FOR.get((name, argument), OF_TEXT[argument])
    with pytest.raises((TypeError, ValueError)) as error:
        call(name, argument, "no")
    assert str(error.value).splitlines()[0] == f"{argument}: expected {expected}"
