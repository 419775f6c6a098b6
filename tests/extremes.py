"""Extreme weights, and what they must leave finite."""

import jax
import numpy as np

# What is added to the log-joint where the first coordinate is negative or zero, and where it is positive.
SHIFTS = {
    "large": (1e4, 1e4),
    "small": (-1e4, -1e4),
    "some dominate": (1e4, 0.0),
    "some impossible": (-np.inf, 0.0),
    "all impossible": (-np.inf, -np.inf),
}


def finite(tree):
    """Whether every number of a pytree is."""
    return all(bool(np.all(np.isfinite(np.asarray(leaf, np.float64)))) for leaf in jax.tree.leaves(tree))
