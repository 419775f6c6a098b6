"""The section "Choosing" of every proposal's docstring says what the registry of gradient rules does."""

import inspect

import pytest

import hiwae_jax as hj
from hiwae_jax._gradients.registry import chosen_rule
from hiwae_jax._gradients.rule import Request
from tests.public_calls import CALLS

NAMES = {"plain": "reparameterized", "DReG": "doubly_reparameterized", "refilled": "refilled"}
PROPOSALS = [
    name
    for name in hj.__all__
    if inspect.isfunction(getattr(hj, name)) and inspect.signature(getattr(hj, name)).return_annotation is hj.Proposal
]


def accepts(request, gradient):
    try:
        chosen_rule(gradient, request)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", PROPOSALS)
def test_the_gradients_and_the_default_are_those_of_the_docstring(name):
    function, positional, keyword = CALLS[name]
    proposal = function(*positional.values(), **keyword)
    text = inspect.getdoc(function).partition("\nChoosing:\n")[2]
    lines = dict(line.strip().split(": ", 1) for line in text.partition("\n\n")[0].split("\n") if ": " in line)
    uniform = name in ("markov", "mixture")  # they compare no densities, or have weights of their own
    request = Request(proposal, hj.uniform_weighting() if uniform else hj.power_heuristic(1.0), 0.0)
    assert chosen_rule(None, request).name == NAMES[lines["default"].rstrip(".")]
    # The call of a mixture picks in strata, so what holds with replacement alone is left out.
    promised = lines["gradients"].partition("; with replacement")[0]
    for short, gradient in NAMES.items():
        assert accepts(request, gradient) == (short in promised), gradient


def test_there_are_eight():
    assert len(PROPOSALS) == 8
