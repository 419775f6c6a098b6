"""The battery of oracles for a gradient rule: it says by itself where a rule is unbiased.

The expected gradient of each rule is integrated over the noise by quadrature, and compared with that of the plain
pathwise rule, which is unbiased for a smooth model. K = 1 or 2 in one dimension, so that the quadrature is exact.
"""

import jax
import jax.numpy as jnp
import numpy as np

import hiwae_jax as hj
from hiwae_jax._gradients.registry import RULES
from tests import models

TOLERANCE = 1e-6  # of an unbiased rule; quadrature is exact to this
WRONG_BY = 1e-3  # every biased rule is further off than this


def _independent(num_samples):
    return hj.independent(models.scalar_base, num_samples=num_samples, sampler=models.leading)


def _shared():
    return hj.hierarchical(
        models.scalar_base, models.scalar_conditionals, models.scalar_reverse, sampler=models.leading
    )


def _narrow(params, x):
    return params["base"][:1] * x, jnp.exp(params["base"][1:] - 0.7)


def _broad(params, x):
    return params["reverse"][:1] + 0.0 * x, jnp.exp(params["reverse"][2:] - 0.7)


def _two_members():
    return hj.defensive(_narrow, _broad, num_samples=2, sampler=models.leading)


# For each case the proposal, alpha, beta, and the dimensions of the noise without refills and with them.
CASES = {
    "one sample": (lambda: _independent(1), 0.0, 1.0, 1, 1),
    "two samples": (lambda: _independent(2), 0.0, 1.0, 2, 2),
    "two samples, warm-up": (lambda: _independent(2), 0.0, 0.3, 2, 2),
    "two members, power heuristic": (_two_members, 1.0, 1.0, 2, 4),
    "shared z_0": (_shared, 0.0, 1.0, 3, 3),
}
NODES = {1: 48, 2: 48, 3: 48, 4: 24}  # on each axis of the noise


def verdicts(gradients):
    """`{gradient: {case: "unbiased", "biased" or "refused"}}`.

    Raises:
      AssertionError: if a rule changes the value of the bound, or its error is neither small nor large.
    """
    results = {gradient: {} for gradient in gradients}
    for case, (make_proposal, alpha, beta, without_refills, with_refills) in CASES.items():
        weighting = hj.power_heuristic(alpha)
        accepted = [gradient for gradient in gradients if _is_accepted(gradient, make_proposal(), weighting)]
        drawn_twice = [gradient for gradient in accepted if RULES[gradient].refills and with_refills > without_refills]
        drawn_once = [gradient for gradient in accepted if gradient not in drawn_twice]
        found = {}
        for group, dimensions in ((drawn_once, without_refills), (drawn_twice, with_refills)):
            found |= _errors(make_proposal(), weighting, group, dimensions=dimensions, beta=beta) if group else {}
        for gradient in gradients:
            if gradient not in accepted:
                results[gradient][case] = "refused"
                continue
            assert found[gradient] < TOLERANCE or found[gradient] > WRONG_BY, (gradient, case, found[gradient])
            results[gradient][case] = "unbiased" if found[gradient] < TOLERANCE else "biased"
    return results


def _errors(proposal, weighting, gradients, *, dimensions, beta):
    """The largest error of each rule's expected gradient."""
    with jax.enable_x64(True):
        means = models.mean_gradients(
            proposal,
            weighting,
            list(dict.fromkeys(["reparameterized", *gradients])),
            models.scalar_params(),
            dimensions=dimensions,
            nodes=NODES[dimensions],
            betas=(beta,),
        )
    plain_value, plain = means["reparameterized", beta]
    for gradient in gradients:
        np.testing.assert_allclose(means[gradient, beta][0], plain_value, rtol=1e-12)
    return {gradient: np.max(np.abs(means[gradient, beta][1] - plain)) for gradient in gradients}


def _is_accepted(gradient, proposal, weighting):
    try:
        hj.make_bound(models.scalar_log_joint, proposal, weighting=weighting, gradient=gradient)
    except ValueError:
        return False
    return True
