"""What the figures of looking inside show, read back from what is drawn."""

from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from lib.data.layouts import LAYOUTS
from lib.figures.data import skeleton_strip
from lib.figures.inside import gradient_over_frames, rollout_over_frames, timeline

HANDS = LAYOUTS["hands-42"]


def middles(axes):
    """Places of axes on the page, their middles from left to right."""
    return [(axis.get_window_extent().x0 + axis.get_window_extent().x1) / 2 for axis in axes]


# ---- one clip ------------------------------------------------------------------------------------------


def hands_of(frames, empty=2):
    """A clip of hands with no joint in its first and last `empty` frames."""
    clip = np.ones((frames, 42, 3), np.float32)
    clip[..., :2] = np.random.default_rng(0).random((frames, 42, 2))
    clip[:empty] = clip[-empty:] = 0
    return clip


def test_rollout_is_drawn_above_the_skeletons_of_evenly_chosen_moments():
    clip, reached = hands_of(13), np.linspace(0.02, 0.14, 13)
    figure = rollout_over_frames(reached, clip, HANDS, count=5, title="a clip")
    *skeletons, curve = figure.axes
    assert figure.get_suptitle() == "a clip"
    assert [bar.get_height() for bar in curve.patches] == reached.tolist()
    assert [axis.get_title("left") for axis in skeletons] == [f"frame {n}" for n in (2, 4, 6, 8, 10)]
    alone = skeleton_strip(clip, HANDS, count=5).axes
    for axis, other in zip(skeletons, alone, strict=True):
        np.testing.assert_array_equal(axis.collections[0].get_segments(), other.collections[0].get_segments())
        assert axis.get_xlim() == other.get_xlim()
        assert axis.get_ylim() == other.get_ylim()
    figure.draw_without_rendering()
    shown = [curve.transData.transform((frame, 0))[0] for frame in (2, 4, 6, 8, 10)]
    np.testing.assert_allclose(shown, middles(skeletons), atol=2)  # pixels
    assert curve.get_window_extent().y0 >= skeletons[0].get_window_extent().y1


def test_bars_of_the_moments_that_are_shown_stand_out():
    curve = rollout_over_frames(np.ones(13), hands_of(13), HANDS, count=5).axes[-1]
    colours = [bar.get_facecolor() for bar in curve.patches]
    dark = [number for number, colour in enumerate(colours) if colour == colours[2]]
    assert dark == [2, 4, 6, 8, 10]


@pytest.mark.parametrize(("frames", "shown"), [(13, [2, 6, 10]), (25, [4, 12, 20])])
def test_pictures_of_a_video_are_of_the_same_moments_as_the_skeletons(frames, shown):
    """The video may have been thinned out before its poses were read."""
    video = np.random.default_rng(1).integers(0, 256, (frames, 8, 12, 3), np.uint8)
    figure = rollout_over_frames(np.ones(13), hands_of(13), HANDS, video, count=3)
    pictures = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    np.testing.assert_array_equal(pictures, video[shown])


def test_a_clip_of_one_frame_and_one_without_joints():
    figure = rollout_over_frames(np.ones(1), np.ones((1, 42, 3)), HANDS, np.zeros((1, 4, 4, 3), np.uint8), count=1)
    assert figure.axes[0].get_title("left") == "frame 0"
    with pytest.raises(ValueError, match="no joints"):
        rollout_over_frames(np.ones(3), np.zeros((3, 42, 3)), HANDS)


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_gradients_lie_over_the_grey_frames_and_are_summed_over_each(kind):
    clip = np.random.default_rng(0).random((9, 6, 5, 3), np.float32)
    clip = (255 * clip).astype(np.uint8) if kind is np.uint8 else clip
    gradient = np.random.default_rng(1).random((9, 6, 5), np.float32)
    *pictures, curve = gradient_over_frames(clip, gradient, count=3).axes
    np.testing.assert_allclose([bar.get_height() for bar in curve.patches], gradient.sum((1, 2)), rtol=1e-6)
    for above, below, number in zip(pictures[:3], pictures[3:], (0, 4, 8), strict=True):
        assert above.get_title("left") == f"frame {number}"
        np.testing.assert_array_equal(above.images[0].get_array(), clip[number])
        grey, heat = below.images
        np.testing.assert_allclose(grey.get_array(), clip[number].mean(-1))
        assert grey.get_clim() == (0, 255 if kind is np.uint8 else 1)
        np.testing.assert_array_equal(heat.get_array(), gradient[number])


def test_heat_has_one_scale_for_all_frames_and_hides_nothing_where_there_is_none():
    gradient = np.zeros((2, 4, 4), np.float32)
    gradient[1, :2] = 3
    *pictures, _ = gradient_over_frames(np.ones((2, 4, 4, 3), np.float32), gradient, count=2).axes
    heats = [axis.images[1] for axis in pictures[2:]]
    assert [heat.get_clim() for heat in heats] == [(0, 3), (0, 3)]
    np.testing.assert_array_equal([heat.get_alpha() for heat in heats], gradient / 3)


def test_a_map_of_zeros_can_be_drawn():
    gradient_over_frames(np.ones((2, 4, 4, 3), np.float32), np.zeros((2, 4, 4), np.float32)).draw_without_rendering()


# ---- signs over time -----------------------------------------------------------------------------------

FOUND = pd.DataFrame(
    {"start": [0.5, 3, 6], "end": [2, 4.5, 8], "gloss": ["book", "", "drink"], "confidence": [0.9, 0.4, 0.75]}
)


def bars(axis):
    """Start and end of each bar."""
    return [[bar.get_x(), bar.get_x() + bar.get_width()] for bar in axis.patches]


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_signs_are_bars_over_their_seconds_with_gloss_and_confidence():
    (axis,) = timeline(FOUND, title="a video").axes
    assert bars(axis) == FOUND[["start", "end"]].to_numpy().tolist()
    assert texts(axis) == ["book", "90%", "unknown", "40%", "drink", "75%"]
    colours = [bar.get_facecolor()[:3] for bar in axis.patches]
    assert colours[1] == to_rgb("0.7")
    assert len(set(colours)) == 3
    assert axis.get_xlim() == (0, 8)
    assert axis.get_xlabel() == "seconds"


def test_true_signs_are_a_second_lane_in_the_same_colours():
    truth = pd.DataFrame({"start": [0.4, 5.5], "end": [2.2, 9], "gloss": ["book", "computer"]})
    found, true = timeline(FOUND, truth).axes
    assert [axis.get_yticklabels()[0].get_text() for axis in (found, true)] == ["found", "true"]
    assert bars(true) == truth[["start", "end"]].to_numpy().tolist()
    assert texts(true) == ["book", "computer"]
    assert true.patches[0].get_facecolor() == found.patches[0].get_facecolor()
    assert true.patches[1].get_facecolor() not in [bar.get_facecolor() for bar in found.patches]
    assert found.get_xlim() == true.get_xlim() == (0, 9)


def test_confidence_over_time_is_a_curve_below_with_its_threshold():
    seconds, score = np.arange(0, 10, 0.5), np.linspace(0, 1, 20)
    lane, curve = timeline(FOUND, None, seconds, score, 0.6).axes
    line, threshold = curve.lines
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([seconds, score]))
    assert threshold.get_ydata()[0] == 0.6
    assert texts(curve) == ["threshold"]
    assert bars(curve) == bars(lane)  # the signs shine through
    assert lane.get_xlim() == curve.get_xlim() == (0, 9.5)
    assert len(timeline(FOUND, None, seconds, score).axes[1].lines) == 1


def test_a_curve_needs_both_its_seconds_and_its_scores():
    with pytest.raises(ValueError, match="both seconds and score"):
        timeline(FOUND, score=np.ones(3))


def test_a_video_without_signs_says_so():
    (axis,) = timeline(FOUND.iloc[:0]).axes
    assert texts(axis) == ["no sign"]
    lane, _ = timeline(FOUND.iloc[:0], None, np.arange(5), np.zeros(5), 0.5).axes
    assert lane.get_xlim() == (0, 4)


def corners(text):
    """Corners of a text on the page, turned with it, and slightly smaller than its box."""
    box, angle = text.get_window_extent(), np.radians(text.get_rotation())
    turned = text.get_rotation()
    text.set_rotation(0)
    flat = text.get_window_extent()
    text.set_rotation(turned)
    width, height = flat.width - 2, flat.height - 2
    along, up = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    centre = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
    return [centre + i * along * width / 2 + j * up * height / 2 for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def touch(a, b):
    """Whether two convex shapes overlap: no line along any of their sides is between them."""
    for shape in (a, b):
        for start, end in zip(shape, [*shape[1:], shape[0]], strict=True):
            normal = np.array([end[1] - start[1], start[0] - end[0]])
            left, right = ([normal @ point for point in points] for points in (a, b))
            if max(left) < min(right) or max(right) < min(left):
                return False
    return True


@pytest.mark.parametrize(("count", "total"), [(3, 9), (20, 40), (40, 60), (12, 100)])
def test_glosses_do_not_touch_each_other_nor_leave_the_page(count, total):
    start = np.arange(count) * total / count + 0.1
    glosses = [["thanksgiving", "no", "computer", ""][number % 4] for number in range(count)]
    signs = pd.DataFrame({"start": start, "end": start + 0.7 * total / count, "gloss": glosses, "confidence": 1.0})
    figure = timeline(signs, signs, start, np.ones(count), 0.5, "a title")
    figure.draw_without_rendering()
    for axis in figure.axes[:2]:
        shapes = [corners(text) for text in axis.texts]
        assert not any(touch(a, b) for a, b in combinations(shapes, 2))
        points = np.concatenate(shapes)
        assert points.min() >= 0
        assert (points.max(0) <= figure.bbox.size).all()
    lanes = [axis.get_tightbbox() for axis in figure.axes]
    assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(lanes))
