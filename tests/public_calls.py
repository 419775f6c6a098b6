"""One right call of every public function: its positional arguments by name, and those given by keyword."""

import inspect

import jax
import jax.numpy as jnp

import hiwae_jax as hj
from hiwae_jax import nn
from tests.unit_normal import KEY, X, base, conditional, conditionals, identity, log_joint, reverse

LOG_WEIGHTS = jnp.zeros(30)
UNEQUAL = jnp.array([0.3, -1.0]), jnp.array([0.5, 2.0])
PROPOSAL = hj.independent(conditional, num_samples=3)


def step(params, x, z, number):
    """A transition, or a step back."""
    return z, jnp.ones(2)


def rows(params, x):
    """Three members of a mixture."""
    return jnp.zeros((3, 2)), jnp.ones((3, 2))


def correlated(params, x):
    """Three samples of a joint Gaussian."""
    return jnp.zeros((3, 2)), jnp.stack([jnp.eye(3)] * 2)


def coupling(params, x, z):
    """The network of a coupling layer."""
    return z, jnp.ones(2)


def logits(params, x, z, z0):
    """Of three members, all alike."""
    return jnp.zeros(3)


def objective(params, x, key):
    """Of one example."""
    return jnp.sum(params)


def two_logits(params, x):
    """Of two Bernoulli variables."""
    return jnp.zeros(2)


OF_LOG_WEIGHTS = {"log_weights": LOG_WEIGHTS}, {"axis": -1}
SAMPLING = {"family": hj.diagonal_gaussian, "sampler": None}
EVALUATING = {"weighting": None, "chunk_size": None}
CALLS = {
    "elbo": (hj.elbo, *OF_LOG_WEIGHTS),
    "iwlb": (hj.iwlb, *OF_LOG_WEIGHTS),
    "chi_square": (hj.chi_square, *OF_LOG_WEIGHTS),
    "effective_sample_size": (hj.effective_sample_size, *OF_LOG_WEIGHTS),
    "pareto_khat": (hj.pareto_khat, *OF_LOG_WEIGHTS),
    "log_weight_variance": (hj.log_weight_variance, *OF_LOG_WEIGHTS),
    "coefficient_of_variation": (hj.coefficient_of_variation, *OF_LOG_WEIGHTS),
    "jackknife": (hj.jackknife, {"log_weights": LOG_WEIGHTS}, {"order": 1, "axis": -1}),
    "renyi_bound": (hj.renyi_bound, {"log_weights": LOG_WEIGHTS}, {"alpha": 0.5, "axis": -1}),
    "wake_phase": (hj.wake_phase, {"log_weights": LOG_WEIGHTS, "log_proposal": LOG_WEIGHTS}, {"axis": -1}),
    "vimco": (hj.vimco, {"log_weights": LOG_WEIGHTS, "log_proposal": LOG_WEIGHTS}, {"axis": -1}),
    "weight_correlation": (hj.weight_correlation, {"log_weights": jnp.zeros((4, 3))}, {}),
    "gradient_signal_to_noise": (hj.gradient_signal_to_noise, {"gradients": jnp.ones((3, 2))}, {}),
    "systematic_resample": (hj.systematic_resample, {"key": KEY, "weights": jnp.ones(3)}, {"num_samples": 2}),
    "posterior_resample": (
        hj.posterior_resample,
        {"key": KEY, "log_weights": jnp.zeros(3), "z": jnp.zeros((3, 2))},
        {"num_samples": 2},
    ),
    "power_heuristic": (hj.power_heuristic, {"alpha": 1.0}, {}),
    "learned_weighting": (hj.learned_weighting, {"logits_fn": logits}, {}),
    "student_t": (hj.student_t, {"df": 3.0}, {}),
    "standard_normal": (lambda key: hj.standard_normal(key, (2,), jnp.float32), {"key": KEY}, {}),
    "defensive": (
        hj.defensive,
        {"conditional": conditional, "broad": conditional},
        {"num_samples": 3, "num_broad": 1, **SAMPLING},
    ),
    "hierarchical": (
        hj.hierarchical,
        {"base": base, "conditionals": conditionals, "reverse": reverse},
        {
            "shared": True,
            "num_samples": None,
            "context": None,
            "base_family": hj.diagonal_gaussian,
            "reverse_samples": 0,
            "sharding": None,
            **SAMPLING,
        },
    ),
    "mixture": (
        hj.mixture,
        {"conditional": rows},
        {"num_samples": 2, "draw": "stratified", "present": None, **SAMPLING},
    ),
    "joint_gaussian": (hj.joint_gaussian, {"conditional": correlated}, {"sampler": hj.standard_normal}),
    "flow_chain": (
        hj.flow_chain,
        {"base": base, "maps": [hj.Bijection(identity, identity)]},
        {"context": None, **SAMPLING},
    ),
    "interval": (hj.interval, {"low": 0.0, "high": 1.0}, {}),
    "transformed": (hj.transformed, {"family": hj.diagonal_gaussian, "bijection": hj.positive}, {}),
    "family_from": (
        hj.family_from,
        {"make": lambda parameters: parameters},
        {"paths": "all", "forward": lambda made, noise: noise, "inverse": lambda made, z: z, "sampler": None},
    ),
    "check_family": (hj.check_family, {"family": hj.diagonal_gaussian, "parameters": UNEQUAL, "key": KEY}, {}),
    "check_bijection": (
        hj.check_bijection,
        {"bijection": hj.positive, "params": None, "x": X, "z": jnp.array([0.3, -1.0])},
        {},
    ),
    "affine_map": (hj.affine_map, {"conditional": conditional}, {}),
    "coupling_map": (hj.coupling_map, {"conditional": coupling}, {"kept": [True, False]}),
    "markov": (
        hj.markov,
        {"base": base, "transition": step, "reverse": step},
        {"num_samples": 3, "context": None, **SAMPLING},
    ),
    "make_bound": (
        hj.make_bound,
        {"log_joint": log_joint, "proposal": PROPOSAL},
        {"gradient": None, "order": 0.0, "backward_samples": None, **EVALUATING},
    ),
    "make_annealed_objective": (
        hj.make_annealed_objective,
        {"log_likelihood": log_joint, "log_prior": log_joint, "proposal": PROPOSAL},
        {"gradient": None, "free_bits": 0.0, "order": 0.0, "backward_samples": None, **EVALUATING},
    ),
    "make_log_weights": (
        hj.make_log_weights,
        {"log_joint": log_joint, "proposal": PROPOSAL},
        {"reverse_samples": None, **EVALUATING},
    ),
    "make_log_evidence": (
        hj.make_log_evidence,
        {"log_weights": hj.make_log_weights(log_joint, PROPOSAL)},
        {"num_draws": 2, "chunk_size": 1, "independent_samples": None, "control_variates": False},
    ),
    "make_discrete_bound": (
        hj.make_discrete_bound,
        {"log_joint": log_joint, "conditional": two_logits},
        {"num_samples": 2, "family": hj.bernoulli, "gradient": "vimco"},
    ),
    "batched_value_and_grad": (
        hj.batched_value_and_grad,
        {"objective": objective},
        {"draw": None, "chunk_size": None, "dispatch": False, "has_aux": False, "spmd_axis_name": None},
    ),
    "the bound": (hj.make_bound(log_joint, PROPOSAL), {"params": None, "x": X, "key": KEY}, {}),
    "the log-weights": (hj.make_log_weights(log_joint, PROPOSAL), {"params": None, "x": X, "key": KEY}, {}),
    "the annealed objective": (
        hj.make_annealed_objective(log_joint, log_joint, PROPOSAL),
        {"params": None, "x": X, "key": KEY, "beta": 1.0},
        {},
    ),
    "the log-evidence": (
        hj.make_log_evidence(hj.make_log_weights(log_joint, PROPOSAL), num_draws=2),
        {"params": None, "x": X, "key": KEY},
        {},
    ),
    "the discrete bound": (
        hj.make_discrete_bound(log_joint, two_logits, num_samples=2, family=hj.bernoulli),
        {"params": None, "x": X, "key": KEY},
        {},
    ),
    "the batched gradient": (
        hj.batched_value_and_grad(objective),
        {"params": jnp.zeros(2), "batch": jnp.zeros((4, 2)), "key": KEY},
        {},
    ),
    "bernoulli.log_prob": (hj.bernoulli.log_prob, {"parameters": jnp.zeros(3), "z": jnp.zeros(3)}, {}),
    "categorical.log_prob": (hj.categorical.log_prob, {"parameters": jnp.zeros((2, 3)), "z": jnp.zeros((2, 3))}, {}),
    "bernoulli.sample": (hj.bernoulli.sample, {"key": KEY, "parameters": jnp.zeros(3), "num_samples": 2}, {}),
    "categorical.sample": (hj.categorical.sample, {"key": KEY, "parameters": jnp.zeros((2, 3)), "num_samples": 2}, {}),
    "nn.bernoulli_log_prob": (nn.bernoulli_log_prob, {"logits": jnp.zeros(3), "x": jnp.zeros(3)}, {}),
    "nn.logits_from_mean": (nn.logits_from_mean, {"mean": jnp.zeros(3)}, {"margin": 1e-3}),
    "nn.positive_scale": (nn.positive_scale, {"raw": jnp.zeros(3)}, {}),
    "nn.scale_from_log_variance": (nn.scale_from_log_variance, {"log_variance": jnp.zeros(3)}, {}),
}
# The other public functions are tried by themselves, where their arguments have the names of others.
BY_ARGUMENT = {}
for _, positional, named in CALLS.values():
    BY_ARGUMENT |= positional | named
BY_ARGUMENT |= {"conditional": conditional, "base": base, "reverse": reverse, "num_samples": 2, **SAMPLING}
for name in hj.__all__:
    # NumPyro need not be installed.
    if name not in CALLS and name != "numpyro_model" and inspect.isfunction(getattr(hj, name)):
        arguments = inspect.signature(getattr(hj, name)).parameters.values()
        given = {a.name: BY_ARGUMENT[a.name] for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD}
        by_keyword = {a.name: BY_ARGUMENT[a.name] for a in arguments if a.kind is a.KEYWORD_ONLY}
        CALLS[name] = (getattr(hj, name), given, by_keyword)


def call(name, argument=None, value=None):
    """The right call, with one argument replaced if it is named."""
    function, positional, by_keyword = CALLS[name]
    replaced = {argument: value}
    given = [replaced.get(key, right) for key, right in positional.items()]
    with jax.numpy_dtype_promotion("standard"):
        return function(*given, **{key: replaced.get(key, right) for key, right in by_keyword.items()})
