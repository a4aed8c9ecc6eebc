"""What the figures of runs held against each other show, read back from the drawn values."""

import numpy as np
import pandas as pd
import pytest

from lib.figures import pairs


def labels(ticks) -> list[str]:
    return [tick.get_text() for tick in ticks]


def test_weights_are_drawn_against_top1_and_loss_with_the_chosen_one():
    curve = pd.DataFrame({"weight": [0.0, 0.5, 1.0], "top1": [0.6, 0.8, 0.7], "loss": [1.5, 0.9, 1.2]})
    figure = pairs.weights(curve, 0.5, ("a", "b"))
    for ax, column in zip(figure.axes, ("top1", "loss"), strict=True):
        line, chosen = ax.lines
        assert line.get_xydata().tolist() == curve[["weight", column]].to_numpy().tolist()
        assert np.unique(chosen.get_xdata()).tolist() == [0.5]
        assert ax.get_xlabel() == "weight of a\n(0: b alone)"


def test_gains_shows_glosses_that_change_from_the_most_gained_to_the_most_lost():
    table = pd.DataFrame({"gloss": ["a", "b", "c", "d"], "gained": [0, 2, 0, 1], "lost": [3, 0, 0, 1]})
    (ax,) = pairs.gains(table, most=10).axes
    assert labels(ax.get_yticklabels()) == ["b", "d", "a"]
    assert [bar.get_width() for bar in ax.patches] == [2, 1, 0, 0, -1, -3]


def test_of_many_glosses_those_that_gain_and_lose_most_are_shown():
    table = pd.DataFrame({"gloss": [*"abcdef"], "gained": [0, 0, 1, 2, 3, 4], "lost": [3, 2, 0, 0, 0, 0]})
    (ax,) = pairs.gains(table, most=4).axes
    assert labels(ax.get_yticklabels()) == ["f", "e", "b", "a"]


def test_published_and_ours_has_both_intervals_the_diagonal_and_no_unpublished_model():
    table = pd.DataFrame(
        {
            "model": ["movinet-a0", "s3d"], "top1": [0.6, 0.7], "low": [0.5, 0.6], "high": [0.75, 0.8],
            "published_top1": [0.5, np.nan], "published_low": [0.45, np.nan], "published_high": [0.6, np.nan],
        }
    )  # fmt: skip
    (ax,) = pairs.published_and_ours(table).axes
    (drawn,) = ax.containers
    assert drawn.get_label() == "movinet-a0"
    across, along = (bar.get_segments()[0] for bar in drawn.lines[2])
    assert across.ravel() == pytest.approx([0.45, 0.6, 0.6, 0.6])
    assert along.ravel() == pytest.approx([0.5, 0.5, 0.5, 0.75])
    (diagonal,) = [line for line in ax.lines if line.get_label() == "equal"]
    assert tuple(diagonal.get_xdata()) == tuple(diagonal.get_ydata()) == ax.get_xlim() == ax.get_ylim()
