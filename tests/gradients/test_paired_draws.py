"""Gradient estimators at larger K and D, and with free bits: z-tests of paired draws with fixed seeds."""

import pathlib
from typing import NamedTuple

import pytest

from tests.gradients.paired_draws import AUTHORS, DEFAULT, LARGEST_Z, PLAIN, REFILLED, SQUARED, comparisons


class Expected(NamedTuple):
    """What is expected of an estimator at one beta, against another.

    Attributes:
      ours: the estimator.
      beta: the warm-up factor.
      biased: whether its mean is another one.
      ratio: its variance over that of the other, measured with 100,000 draws of another seed; None is not compared.
        With free bits and a large alpha it is above one, as the documentation says.
      other: what it is compared with.
    """

    ours: tuple[str, None]
    beta: float = 1.0
    biased: bool = False
    ratio: float | None = None
    other: tuple[str, None] = PLAIN


CASES = [
    ({"alpha": 0.0}, [Expected(DEFAULT, ratio=0.742), Expected(SQUARED, beta=0.3, biased=True)]),
    (
        {"alpha": 1.0},
        [Expected(DEFAULT, ratio=0.818), Expected(DEFAULT, beta=0.3), Expected(AUTHORS, biased=True)],
    ),
    # The mean does not depend on what fills a slot that is empty; the variance does.
    (
        {"alpha": 3.0},
        [
            Expected(DEFAULT, ratio=1.013),
            Expected(DEFAULT, ratio=1.145, other=REFILLED),
            Expected(DEFAULT, beta=0.3, other=REFILLED),
            Expected(SQUARED, biased=True),
        ],
    ),
    ({"alpha": 1.0, "shared": False}, [Expected(DEFAULT), Expected(DEFAULT, ratio=1.048, other=REFILLED)]),
    ({"alpha": 0.0, "shared": False, "equal": True}, [Expected(DEFAULT)]),
    ({"alpha": 1.0, "equal": True}, [Expected(DEFAULT)]),
    ({"alpha": 0.0, "free_bits": 1.5}, [Expected(DEFAULT), Expected(SQUARED, biased=True)]),
    ({"alpha": 1.0, "free_bits": 1.5}, [Expected(DEFAULT, ratio=0.921)]),
    ({"alpha": 1.0, "free_bits": 1.5, "shared": False}, [Expected(DEFAULT)]),
    ({"alpha": 1.0, "free_bits": 0.4}, [Expected(DEFAULT, beta=0.3)]),
    ({"alpha": 3.0, "free_bits": 1.5}, [Expected(DEFAULT, ratio=1.758)]),
]


@pytest.mark.parametrize(("setting", "expected"), CASES, ids=[str(setting) for setting, _ in CASES])
def test_mean_and_variance_against_the_plain_estimator(setting, expected):
    """Unbiased estimators are, biased ones are found out, and variances are those that were measured."""
    pairs = list(dict.fromkeys((one.ours, one.other) for one in expected))
    found = comparisons(pairs, betas=tuple({one.beta for one in expected}), **setting)
    for one in expected:
        z, ratio = found[(one.ours, one.other), one.beta]
        assert z > 2 * LARGEST_Z if one.biased else z < LARGEST_Z, one
        if one.ratio is not None:
            assert ratio == pytest.approx(one.ratio, rel=0.02), one


def test_the_page_on_choosing_has_the_variances_with_free_bits():
    ratios = {
        setting["alpha"]: one.ratio for setting, every in CASES for one in every if "free_bits" in setting and one.ratio
    }
    text = " ".join((pathlib.Path(__file__).parents[2] / "docs" / "choosing.md").read_text().split())
    of_plain = f"its variance is {ratios[1.0]:.2f} times that of the plain gradient under alpha = 1"
    assert f"{of_plain}, and {ratios[3.0]:.2f} times under alpha = 3" in text
