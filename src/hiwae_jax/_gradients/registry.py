"""The list of all gradient rules. All code that needs their names reads it."""

from typing import Literal

from hiwae_jax._gradients.authors import AUTHORS
from hiwae_jax._gradients.doubly_reparameterized import DOUBLY_REPARAMETERIZED
from hiwae_jax._gradients.needs import Request, needs_paths
from hiwae_jax._gradients.path_squared import PATH_SQUARED
from hiwae_jax._gradients.plain import PLAIN
from hiwae_jax._gradients.refilled import REFILLED
from hiwae_jax._gradients.rule import Rule
from hiwae_jax._gradients.score_function import SCORE_FUNCTION

RULES = {rule.name: rule for rule in (PLAIN, DOUBLY_REPARAMETERIZED, REFILLED, PATH_SQUARED, AUTHORS, SCORE_FUNCTION)}

GRADIENTS = tuple(RULES)
"""The names that `gradient=` takes."""

PATHWISE_GRADIENTS = tuple(name for name, rule in RULES.items() if not rule.fixes_samples)
"""The names of the rules that differentiate through the samples."""

# The same names, for type checkers, which cannot read them from the list.
GradientName = Literal[
    "reparameterized", "doubly_reparameterized", "refilled", "path_squared", "authors", "score_function"
]


def chosen_rule(name: str | None, request: Request) -> Rule:
    """The rule of this name, or the default rule if the name is None.

    Raises:
      ValueError: for a name that is not in the list, and for a rule that is not valid for the request.
    """
    if name is None:
        return _recommended_rule(request)
    if name not in tuple(RULES):  # which may be asked about any object
        raise ValueError(f"gradient: expected one of {', '.join(map(repr, RULES))}, got {name!r}")
    rule = RULES[name]
    for need in rule.needs if rule.fixes_samples else (needs_paths, *rule.needs):
        reason = need.refusal(request)
        if reason is not None:
            raise ValueError(f"gradient: {name!r} {reason}")
    return rule


def _recommended_rule(request: Request) -> Rule:
    """The default rule: the plain one if samples are correlated, or may be because of a user's sampler.

    Families without paths have the score function. Where the doubly reparameterized rule is not valid, as for families
    without an inverse, the plain rule is the default.
    """
    members = request.proposal.members
    if not needs_paths.is_met(request):
        if request.proposal.independent_noise:
            return SCORE_FUNCTION
        raise ValueError(
            "gradient: the samples of this family have no derivative; choose gradient='score_function' if the noise of "
            "your sampler is independent from sample to sample, for otherwise no gradient is known"
        )
    if members is None or members.joint_log_prob is not None or not request.proposal.independent_noise:
        return PLAIN
    is_valid = all(need.is_met(request) for need in DOUBLY_REPARAMETERIZED.needs)
    return DOUBLY_REPARAMETERIZED if is_valid else PLAIN
