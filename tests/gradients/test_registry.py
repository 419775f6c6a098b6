"""The list of gradient rules: what reads it, where each rule is unbiased, and how a new one is added."""

import pathlib
import re
import typing

import pytest

import hiwae_jax as hj
from hiwae_jax._gradients.registry import RULES, GradientName
from tests.gradients import battery
from tests.worked_examples import example

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

ALWAYS = dict.fromkeys(battery.CASES, "unbiased")
EXPECTED = {
    "reparameterized": ALWAYS,
    "doubly_reparameterized": ALWAYS,
    "refilled": ALWAYS,
    "path_squared": ALWAYS | {"two samples, warm-up": "biased", "two members, power heuristic": "biased"},
    "score_function": ALWAYS,
    "authors": ALWAYS
    | {"two samples, warm-up": "biased", "two members, power heuristic": "biased", "shared z_0": "biased"},
}


def test_the_battery_says_of_every_rule_where_it_is_unbiased():
    assert battery.verdicts(hj.GRADIENTS) == EXPECTED


def test_type_checkers_know_the_names():
    assert typing.get_args(GradientName) == hj.GRADIENTS == tuple(RULES)


def test_names_of_rules_stand_in_their_own_files_alone():
    """Elsewhere a rule is a value: code that compares names would miss a new rule."""
    literal = re.compile(rf"[=!]=\s*[\"']({'|'.join(hj.GRADIENTS)})[\"']")
    for path in (REPOSITORY / "src").rglob("*.py"):
        assert not literal.search(path.read_text()), path


def test_a_new_rule_is_one_file_and_one_line(monkeypatch):
    """The worked example of CONTRIBUTING, put through the battery, which finds that it is unbiased for K = 1 alone."""
    rule = example("Add a gradient rule")["PATH_DERIVATIVE"]
    monkeypatch.setitem(RULES, rule.name, rule)
    found = battery.verdicts([rule.name])[rule.name]
    assert found == dict.fromkeys(battery.CASES, "biased") | {"one sample": "unbiased"}
    with pytest.raises(ValueError, match=r"gradient: expected one of .*'path_derivative', got 'no'"):
        hj.make_bound(lambda params, x, z: 0.0, hj.independent(lambda p, x: (x, x), num_samples=1), gradient="no")
