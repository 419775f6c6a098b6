"""Importance-weighted variational bounds as pure JAX functions.

Bounds on arrays of log-weights, proposals that draw and weigh K samples, and `make_bound`, which joins a model and a
proposal into `bound(params, x, key)`. Flax modules are in `hiwae_jax.nn`, data sets in `hiwae_jax.data`; neither is
imported from here.
"""

from hiwae_jax._batched.value_and_grad import batched_value_and_grad
from hiwae_jax._discrete.bound import DiscreteFamily, bernoulli, categorical, make_discrete_bound
from hiwae_jax._discrete.score_function import vimco
from hiwae_jax._families.adapter import family_from
from hiwae_jax._families.bijection import Bijection, affine_map, coupling_map
from hiwae_jax._families.consistency import check_bijection, check_family
from hiwae_jax._families.family import Family, standard_normal
from hiwae_jax._families.gaussian import diagonal_gaussian, full_rank_gaussian
from hiwae_jax._families.shared import Shared
from hiwae_jax._families.student_t import student_t
from hiwae_jax._families.supports import interval, positive, simplex, unit_interval
from hiwae_jax._families.transformed import transformed
from hiwae_jax._gradients.registry import GRADIENTS, PATHWISE_GRADIENTS
from hiwae_jax._log_evidence import LogEvidence, make_log_evidence
from hiwae_jax._log_weights.bounds import elbo, iwlb
from hiwae_jax._log_weights.diagnostics import (
    coefficient_of_variation,
    effective_sample_size,
    gradient_signal_to_noise,
    log_weight_variance,
    weight_correlation,
)
from hiwae_jax._log_weights.jackknife import jackknife
from hiwae_jax._log_weights.objectives import chi_square, renyi_bound, wake_phase
from hiwae_jax._log_weights.pareto import pareto_khat
from hiwae_jax._log_weights.resampling import posterior_resample, systematic_resample
from hiwae_jax._make_bound import Bound, make_annealed_objective, make_bound
from hiwae_jax._make_log_weights import make_log_weights
from hiwae_jax._numpyro_model import NumpyroModel, numpyro_model
from hiwae_jax._proposals.antithetic import antithetic
from hiwae_jax._proposals.defensive import defensive
from hiwae_jax._proposals.draw import Draw
from hiwae_jax._proposals.flow_chain import flow_chain
from hiwae_jax._proposals.hierarchical import hierarchical
from hiwae_jax._proposals.independent import independent
from hiwae_jax._proposals.joint_gaussian import joint_gaussian
from hiwae_jax._proposals.markov import markov
from hiwae_jax._proposals.members import Members
from hiwae_jax._proposals.mixture import mixture
from hiwae_jax._proposals.proposal import Proposal
from hiwae_jax._weightings import Weighting, learned_weighting, power_heuristic, uniform_weighting

__version__ = "0.1.0"

__all__ = [
    "GRADIENTS",
    "PATHWISE_GRADIENTS",
    "Bijection",
    "Bound",
    "DiscreteFamily",
    "Draw",
    "Family",
    "LogEvidence",
    "Members",
    "NumpyroModel",
    "Proposal",
    "Shared",
    "Weighting",
    "affine_map",
    "antithetic",
    "batched_value_and_grad",
    "bernoulli",
    "categorical",
    "check_bijection",
    "check_family",
    "chi_square",
    "coefficient_of_variation",
    "coupling_map",
    "defensive",
    "diagonal_gaussian",
    "effective_sample_size",
    "elbo",
    "family_from",
    "flow_chain",
    "full_rank_gaussian",
    "gradient_signal_to_noise",
    "hierarchical",
    "independent",
    "interval",
    "iwlb",
    "jackknife",
    "joint_gaussian",
    "learned_weighting",
    "log_weight_variance",
    "make_annealed_objective",
    "make_bound",
    "make_discrete_bound",
    "make_log_evidence",
    "make_log_weights",
    "markov",
    "mixture",
    "numpyro_model",
    "pareto_khat",
    "positive",
    "posterior_resample",
    "power_heuristic",
    "renyi_bound",
    "simplex",
    "standard_normal",
    "student_t",
    "systematic_resample",
    "transformed",
    "uniform_weighting",
    "unit_interval",
    "vimco",
    "wake_phase",
    "weight_correlation",
]
