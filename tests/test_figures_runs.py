"""What the figures of runs show, read back from the drawn values."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from lib.evaluation import accuracy_per_gloss, calibration, confusion, most_confused
from lib.figures import runs, save
from lib.oracles import hyperband_plan
from lib.predictions import Predictions


def labels(ticks) -> list[str]:
    return [tick.get_text() for tick in ticks]


def test_training_curves_show_loss_and_accuracy_of_both_splits():
    history = pd.DataFrame({"epoch": [1, 2], "loss": [3.0, 2.0], "val_loss": [3.5, 2.5]})
    assert len(runs.training_curves(history).axes) == 1
    figure = runs.training_curves(history.assign(accuracy=[0.1, 0.5], val_accuracy=[0.2, 0.4]))
    drawn = [line.get_ydata().tolist() for ax in figure.axes for line in ax.lines]
    assert drawn == [[3.0, 2.0], [3.5, 2.5], [0.1, 0.5], [0.2, 0.4]]


def test_validation_curve_joins_the_epochs_that_were_validated():
    history = pd.DataFrame({"epoch": [1, 2, 3, 4], "loss": [4, 3, 2, 1], "val_loss": [np.nan, 3, np.nan, 2]})
    _, validation = runs.training_curves(history).axes[0].lines
    assert validation.get_xydata().tolist() == [[2, 3], [4, 2]]


def test_accuracy_figure_has_interval_published_figure_and_chance():
    table = pd.DataFrame(
        {
            "run": ["i3d", "spobet (mean of 2)"],
            "runs": [1, 2],
            "top1": [0.5, 0.6],
            "top1_ci95": [[0.4, 0.6], [0.5, 0.7]],
            "published_top1": [0.4845, None],
        }
    )
    (ax,) = runs.accuracy_intervals(table, chance=0.01).axes
    assert labels(ax.get_yticklabels()) == ["i3d", "spobet (mean of 2)"]
    segments = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert segments == [[0.4, 0.6], [0.5, 0.7]]
    lines = {line.get_label(): np.asarray(line.get_xdata()).tolist() for line in ax.lines}
    assert lines["run, 95 % interval"] == [0.5]
    assert lines["mean of seeds, 95 % interval"] == [0.6]
    assert lines["published"] == [0.4845]
    assert lines["chance"] == [0.01, 0.01]


def test_accuracy_figure_without_published_figures_has_no_such_marker():
    table = pd.DataFrame(
        {"run": ["a"], "runs": [1], "top1": [0.5], "top1_ci95": [[0.4, 0.6]], "published_top1": [None]}
    )
    (ax,) = runs.accuracy_intervals(table, chance=0.1).axes
    assert "published" not in [line.get_label() for line in ax.lines]


def square(counts) -> pd.DataFrame:
    glosses = [f"gloss {number}" for number in range(len(counts))]
    return pd.DataFrame(counts, index=glosses, columns=glosses)


def test_confusion_of_few_glosses_is_shown_whole():
    counts = square(np.array([[3, 1], [0, 2]]))
    (ax,) = runs.confusion_heatmap(counts).axes
    assert np.asarray(ax.collections[0].get_array()).reshape(2, 2).tolist() == [[3, 1], [0, 2]]
    assert labels(ax.get_yticklabels()) == ["gloss 0", "gloss 1"]
    assert "all 2 glosses" in ax.get_title(loc="left")


def test_confusion_of_many_glosses_shows_the_most_confused_ones():
    counts = np.diag(np.full(100, 9))
    counts[80, 7], counts[7, 80], counts[50, 20] = 1, 1, 3
    (ax,) = runs.confusion_heatmap(square(counts), most=4).axes
    assert labels(ax.get_yticklabels()) == ["gloss 7", "gloss 20", "gloss 50", "gloss 80"]
    assert "4 most confused of 100" in ax.get_title(loc="left")


def test_confusion_without_an_error_shows_the_first_glosses():
    (ax,) = runs.confusion_heatmap(square(np.diag(np.full(9, 2))), most=3).axes
    assert labels(ax.get_yticklabels()) == ["gloss 0", "gloss 1", "gloss 2"]


def of_glosses(accuracies) -> pd.DataFrame:
    glosses = [f"gloss {number}" for number in range(len(accuracies))]
    return pd.DataFrame({"gloss": glosses, "clips": range(1, 1 + len(glosses)), "accuracy": accuracies})


def test_accuracy_of_few_glosses_is_shown_of_each_and_counted():
    counted, named = runs.accuracy_of_glosses(of_glosses([0.0, 0.55, 1.0])).axes
    assert [bar.get_height() for bar in counted.patches] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert named.lines[0].get_xdata().tolist() == [0, 0.55, 1]
    assert labels(named.get_yticklabels()) == ["gloss 0 (1)", "gloss 1 (2)", "gloss 2 (3)"]


def test_of_many_glosses_the_hardest_and_the_easiest_are_named():
    table = of_glosses([0.0, 0.1, 0.5, 0.9, 1.0, 1.0, 1.0])
    _, named = runs.accuracy_of_glosses(table, most=4).axes
    # Of the three that are always right, those with the most clips.
    assert labels(named.get_yticklabels()) == ["gloss 0 (1)", "gloss 1 (2)", "gloss 5 (6)", "gloss 6 (7)"]
    assert named.lines[0].get_xdata().tolist() == [0, 0.1, 1, 1]


def test_figures_of_two_thousand_glosses_stay_small_and_their_labels_apart(tmp_path):
    rng, classes = np.random.default_rng(0), 2000
    label = rng.integers(0, classes, 1014)
    label[:3] = 3
    logits = rng.normal(size=(1014, classes)) + 4 * np.eye(classes)[label]
    logits[:3, 1999] = 20
    clips, glosses = np.array([f"{n:05d}" for n in range(1014)]), np.array([f"gloss {n}" for n in range(classes)])
    test = Predictions(clips, label, logits, glosses)
    figures = {
        "confusion": runs.confusion_heatmap(confusion(test)),
        "glosses": runs.accuracy_of_glosses(accuracy_per_gloss(test)),
        "calibration": runs.calibration_curve(calibration(test), 0.1),
    }
    for name, figure in figures.items():
        path = tmp_path / f"{name}.png"
        save(figure, path)
        assert path.stat().st_size < 60_000
        assert np.max(figure.get_size_inches()) < 13
        for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
            boxes = [tick.get_window_extent() for tick in axis.get_ticklabels() if tick.get_text()]
            assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    (ax,) = figures["confusion"].axes
    assert most_confused(test, 1).values.tolist()[0][:3] == ["gloss 3", "gloss 1999", 3]
    assert {"gloss 3", "gloss 1999"} <= set(labels(ax.get_yticklabels()))
    assert len(ax.get_yticklabels()) == 30


def test_calibration_curve_shows_accuracy_over_confidence():
    table = pd.DataFrame({"confidence": [0.3, 0.9], "accuracy": [0.2, 0.7], "n": [1, 3]})
    (ax,) = runs.calibration_curve(table, error=0.175).axes
    assert ax.collections[0].get_offsets().tolist() == [[0.3, 0.2], [0.9, 0.7]]
    assert "17.5 %" in ax.get_title(loc="left")


def test_attention_is_drawn_head_by_head_above_the_frames_with_hands():
    scores = np.arange(2 * 3 * 5 * 5, dtype=float).reshape(2, 3, 5, 5)
    hands = np.array([False, True, True, False])
    top, strip, *_ = runs.attention_over_time(scores, hands).axes
    assert top.images[0].get_array().tolist() == scores[:, :, 0, 1:].reshape(6, 4).tolist()
    assert labels(top.get_yticklabels()) == ["layer 1", "layer 2"]
    assert strip.images[0].get_array().tolist() == [[0, 1, 1, 0]]
    with pytest.raises(ValueError, match="4 tokens of 1 frames do not cover 5 frames"):
        runs.attention_over_time(scores, np.ones(5, bool))


def test_answers_as_frames_arrive_name_the_true_gloss_and_the_two_highest_others():
    probabilities = np.array([[0.1, 0.6, 0.2, 0.1], [0.8, 0.05, 0.05, 0.1]])
    figure = runs.as_frames_arrive(np.array([0.5, 1.0]), {"a clip": probabilities}, ["a"], list("abcd"))
    everyone, clip = figure.axes
    assert [line.get_ydata().tolist() for line in everyone.lines] == [[0.5, 1.0]]
    drawn = {line.get_label(): line for line in clip.lines}
    assert set("abc") < set(drawn)
    assert "d" not in drawn
    assert drawn["a"].get_ydata().tolist() == [0.1, 0.8]
    assert drawn["a"].get_linewidth() > drawn["b"].get_linewidth()
    assert drawn["a"].get_xdata().tolist() == [1, 2]


def test_kernels_over_time_count_variations_and_show_energies():
    energy = pd.DataFrame({"start": [0.25, 0.75], "trained": [0.5, 0.5]}, ["constant", "1 in 3"])
    variation = {"start": np.array([0.9, 0.95]), "trained": np.array([0.1, 0.95])}
    left, right = runs.kernels_over_time(variation, energy).axes
    counts = [[bar.get_height() for bar in bars] for bars in left.containers]
    assert [sum(each) for each in counts] == [2, 2]
    assert [sum(each[:5]) for each in counts] == [0, 1]  # below 0.2
    assert [[bar.get_height() for bar in bars] for bars in right.containers] == [[0.25, 0.75], [0.5, 0.5]]
    assert labels(right.get_xticklabels()) == ["constant", "1 in 3"]


def test_heatmaps_share_a_scale_with_zero_in_the_middle():
    figure = runs.heatmaps({"one": np.array([[0.0, 2.0]]), "other": np.array([[-3.0, 1.0]])}, "kernels", "x", "t")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["one", "other"]
    assert [ax.images[0].get_clim() for ax in figure.axes] == [(-3, 3), (-3, 3)]
    assert figure.axes[1].images[0].get_array().tolist() == [[-3.0, 1.0]]


def test_rollout_is_a_curve_between_the_heads_and_the_hands():
    scores, hands = np.full((1, 2, 4, 4), 0.25), np.array([True, True, False])
    top, middle, strip, *_ = runs.attention_over_time(scores, hands, rollout=np.array([0.5, 0.3, 0.2])).axes
    assert middle.lines[0].get_ydata().tolist() == [0.5, 0.3, 0.2]
    assert len(top.images) == len(strip.images) == 1


def test_restored_features_are_drawn_where_frames_were_hidden_and_missing_joints_leave_gaps():
    true, restored = np.array([[1.0, 5], [2, 0], [3, 7]]), np.array([[9.0, 9], [2.5, 6], [9, 9]])
    figure = runs.restored_features(true, restored, np.array([0, 1, 0]), {1: "right_wrist, y"})
    (ax,) = figure.axes
    drawn = {line.get_label(): np.column_stack(line.get_data()).tolist() for line in ax.lines}
    assert drawn["restored"] == [[1, 6]]
    np.testing.assert_array_equal(drawn["true"], [[0, 5], [1, np.nan], [2, 7]])
    assert [(patch.get_x(), patch.get_width()) for patch in ax.patches] == [(0.5, 1)]
    assert ax.get_title(loc="left") == "right_wrist, y"


def test_logits_of_both_directions_are_drawn_against_each_other():
    (ax,) = runs.both_ways(np.array([[0.0, 1], [2, 3]]), np.array([[0.0, 1], [2, -3]])).axes
    assert np.column_stack(ax.lines[1].get_data()).tolist() == [[0, 0], [1, 1], [2, 2], [3, -3]]
    assert np.asarray(ax.lines[0].get_xdata()).tolist() == [-3, 3]


def test_hyperband_is_drawn_bracket_by_bracket_with_the_cost_of_each():
    figure = runs.hyperband_rounds(hyperband_plan(9))
    drawn = [[(bar.get_x(), bar.get_width(), bar.get_height()) for bar in ax.patches] for ax in figure.axes]
    assert drawn == [[(0, 1, 9), (1, 2, 3), (3, 6, 1)], [(0, 3, 5), (3, 6, 2)], [(0, 9, 3)]]
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["21 epochs", "27 epochs", "27 epochs"]


@pytest.mark.parametrize("slowest", [1.1, 3.0, 900.0])
def test_ticks_of_latencies_are_in_sight_and_do_not_touch(slowest):
    files = pd.DataFrame({"run": list("abcdef"), "format": "tflite", "precision": "int8", "bytes": 2e6})
    files["latency_ms_1_thread"] = np.geomspace(1, slowest, len(files))
    figure = runs.sizes_and_speeds(files)
    figure.draw_without_rendering()
    ax = figure.axes[0]
    shown = [tick.label1.get_window_extent() for tick in ax.yaxis.get_major_ticks() if tick.label1.get_visible()]
    boxes = sorted((box for box in shown if ax.bbox.y0 <= (box.y0 + box.y1) / 2 <= ax.bbox.y1), key=lambda box: box.y0)
    assert len(boxes) >= 1
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))
    assert not ax.yaxis.get_minorticklabels()


def test_differences_show_who_is_ahead_and_colour_what_is_no_chance():
    paired = pd.DataFrame({"a": ["x", "x", "y"], "b": ["y", "z", "z"]})
    paired = paired.assign(difference=[0.3, 0.1, -0.2], p_holm=[0.01, 0.6, 0.04])
    (ax,) = runs.differences(paired, ["x", "z", "y"]).axes
    coloured, grey = (np.ma.filled(mesh.get_array(), np.nan).reshape(3, 3) for mesh in ax.collections)
    np.testing.assert_allclose(coloured, [[np.nan, np.nan, 30], [np.nan, np.nan, 20], [-30, -20, np.nan]])
    np.testing.assert_allclose(grey, [[np.nan, 10, np.nan], [-10, np.nan, np.nan], [np.nan, np.nan, np.nan]])
