"""What all figures have in common: names at lines that do not overlap, ticks that can be read, and colours."""

import itertools

import numpy as np
import pytest

from experiments.shared import figures, palette
from experiments.shared.figures import plt
from hiwae_jax import GRADIENTS


def test_places_that_overlap_move_apart_and_no_further():
    moved = figures._moved_apart(np.array([0.5, 0.0, 0.52, 0.51, 3.0]), 0.1)
    np.testing.assert_allclose(moved, [0.41, 0.0, 0.61, 0.51, 3.0], atol=1e-12)
    apart = np.array([0.3, 0.1, 0.9])
    np.testing.assert_allclose(figures._moved_apart(apart, 0.2), apart, rtol=1e-12)


def test_names_of_lines_stand_at_their_ends_without_overlap():
    figure, axes = figures.panels(1, height=2.5)
    axis = axes[0, 0]
    lines = []
    for number, last in enumerate((10, 10, 10, 3)):
        lines += axis.plot([1, last], [1.0, 1.0 + 0.01 * number], color=f"C{number}", label=f"name {number}")
    axis.set_ylim(0.0, 2.0)
    figures.label_lines(axis, lines)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axis.texts]
    assert [text.get_text() for text in axis.texts] == ["name 0", "name 1", "name 2", "name 3"]
    assert [text.get_color() for text in axis.texts] == [line.get_color() for line in lines]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert boxes[3].x0 < axis.transData.transform((10, 1))[0] < boxes[0].x0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    plt.close(figure)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((0.5, 2e4), ["1", "10", "100", "1,000", "10,000"]),
        ((0.2, 4.0), ["0.3", "1", "3"]),
        ((0.3, 1.2), ["0.3", "0.5", "0.7", "1"]),
        ((0.21, 0.29), ["0.21", "0.22", "0.23", "0.24", "0.25", "0.26", "0.27", "0.28", "0.29"]),
    ],
)
def test_a_logarithmic_axis_has_at_least_three_plain_numbers(limits, expected):
    figure, axes = figures.panels(1, height=2.0)
    axis = axes[0, 0]
    axis.set_ylim(limits)
    figures.log_ticks(axis)
    figure.draw_without_rendering()
    shown = [label.get_text() for label in axis.get_yticklabels()]
    assert 3 <= len(shown) <= 7
    assert set(shown) <= set(expected)
    plt.close(figure)


def test_ticks_of_k_leave_room():
    figure, axes = figures.panels(1, height=2.0)
    axis = axes[0, 0]
    axis.plot([1, 10_000], [0, 1])
    for values, expected in (
        ((1, 2, 5, 10, 20, 50), ["1", "2", "5", "10", "20", "50"]),
        ((1, 2, 5, 10, 20, 50, 100, 500, 1_000, 5_000, 10_000), ["1", "10", "100", "1,000", "10,000"]),
        ((3,), ["3"]),
    ):
        figures.num_samples_axis(axis, values)
        figure.draw_without_rendering()
        assert [label.get_text() for label in axis.get_xticklabels()] == expected
    plt.close(figure)


def test_every_gradient_that_is_measured_and_every_model_has_a_colour_of_its_own():
    assert set(palette.GRADIENTS) - {"one backward sample"} == set(GRADIENTS) - {"score_function"}
    assert len(set(palette.GRADIENTS.values())) == len(palette.GRADIENTS)
    models = [palette.of_model(name) for name in ("vae", "iwae", "iwae-h", "hiwae-0", "hiwae-1", "hiwae-3")]
    assert len(set(models)) == 6
    assert palette.of_model("hiwae-2") == palette.of_model("hiwae") == palette.HIWAE_1
