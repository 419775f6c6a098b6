"""Importance-weighted variational bounds as pure JAX functions.

Bounds on arrays of log-weights, proposals that draw and weigh K samples, and `make_bound`, which joins a model and a
proposal into `bound(params, x, key)`. Flax modules are in `hiwae_jax.nn`, data sets in `hiwae_jax.data`; neither is
imported from here.
"""

from hiwae_jax._bounds import elbo, iwlb
from hiwae_jax._diagnostics import effective_sample_size
from hiwae_jax._evaluation import LogEvidence, make_log_evidence
from hiwae_jax._families import Family, diagonal_gaussian, standard_normal
from hiwae_jax._objectives import make_annealed_objective, make_bound, make_log_weights
from hiwae_jax._proposals import Draw, Proposal, hierarchical, independent
from hiwae_jax._weightings import Weighting, power_heuristic, uniform_weighting

__version__ = "0.1.0"

__all__ = [
    "Draw",
    "Family",
    "LogEvidence",
    "Proposal",
    "Weighting",
    "diagonal_gaussian",
    "effective_sample_size",
    "elbo",
    "hierarchical",
    "independent",
    "iwlb",
    "make_annealed_objective",
    "make_bound",
    "make_log_evidence",
    "make_log_weights",
    "power_heuristic",
    "standard_normal",
    "uniform_weighting",
]
