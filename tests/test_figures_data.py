"""Figures of the data set, of stored clips and of poses."""

from types import SimpleNamespace

import numpy as np
import pytest

from lib.data.clip_store import build_clips, clip_path, read_stored
from lib.data.layouts import LAYOUTS
from lib.data.sources import build_index
from lib.data.video import frames, sample_frames
from lib.figures.data import (
    before_and_after,
    contact_sheet,
    film_strips,
    presence_over_time,
    right_and_wrong,
    skeleton_strip,
    strips,
)
from lib.predictions import Predictions
from lib.study import load_study
from sample import write_sample

OPENPOSE, HANDS = LAYOUTS["openpose-54"], LAYOUTS["hands-42"]


def test_before_and_after_show_the_same_moments_of_the_video_and_of_the_store(tmp_path):
    write_sample(tmp_path / "wlasl", clips_per_gloss=8)
    index = build_index(load_study("sample", tmp_path / "wlasl"))
    chosen = index[index["status"] == "present"].groupby("label").head(1).head(2)
    build_clips(chosen, tmp_path / "clips", size=64, workers=1)
    figure = before_and_after(chosen, tmp_path / "clips", count=3)
    axes = np.reshape(figure.axes, (4, 3))
    clip = chosen.iloc[1]
    numbers = sample_frames(clip["frame_start"], clip["frame_end"], 3)
    pictures = list(frames(clip["path"]))
    for axis, number in zip(axes[2], numbers, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), pictures[number])
        assert str(number) in axis.get_title() + axis.get_title(loc="left")
        box = axis.patches[0]
        assert [*box.get_xy(), box.get_width(), box.get_height()] == [
            *clip["bbox"][:2], clip["bbox"][2] - clip["bbox"][0], clip["bbox"][3] - clip["bbox"][1],
        ]  # fmt: skip
    stored = read_stored(clip_path(tmp_path / "clips", clip["video_id"]), lambda n: sample_frames(0, n, 3))
    for axis, image in zip(axes[3], stored, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), image)


def test_strips_show_every_frame_of_every_clip_under_its_name():
    clips = np.random.default_rng(0).random((2, 3, 8, 8, 3))
    figure = strips(clips, ["one", "two"])
    assert [axis.get_title() or axis.get_title(loc="left") for axis in figure.axes] == ["one", "two"]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), np.hstack(list(clips[1])))


def test_contact_sheet_shows_the_middle_of_every_clip_of_a_gloss(tmp_path):
    write_sample(tmp_path / "wlasl", clips_per_gloss=8)
    index = build_index(load_study("sample", tmp_path / "wlasl"))
    chosen = index[(index["status"] == "present") & (index["label"] < 2)].groupby("label").head(3)
    build_clips(chosen, tmp_path / "clips", size=64, workers=1)
    figure = contact_sheet(chosen, tmp_path / "clips", count=2)
    assert [axis.get_title(loc="left") for axis in figure.axes] == sorted(chosen["gloss"].unique())
    for axis in figure.axes:
        ids = chosen.loc[chosen["gloss"] == axis.get_title(loc="left"), "video_id"].head(2)
        middles = [read_stored(clip_path(tmp_path / "clips", clip), lambda n: [n // 2])[0] for clip in ids]
        np.testing.assert_array_equal(axis.images[0].get_array(), np.hstack(middles))


def test_film_strips_show_the_signed_segment_of_one_present_clip_of_each_gloss(tmp_path):
    write_sample(tmp_path / "wlasl", clips_per_gloss=8)
    index = build_index(load_study("sample", tmp_path / "wlasl"))
    figure = film_strips(index, count=3)
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == index["gloss"].unique().tolist()
    clip = index[(index["label"] == 0) & (index["status"] == "present")].iloc[0]
    pictures = list(frames(clip["path"]))[clip["frame_start"] : clip["frame_end"]]
    shown = figure.axes[0].images[0].get_array()
    middle = round((len(pictures) - 1) / 2)
    np.testing.assert_array_equal(shown, np.hstack([pictures[0], pictures[middle], pictures[-1]]))


def test_right_and_wrong_name_the_gloss_and_what_it_was_predicted_as():
    clips = dict(zip("abc", np.random.default_rng(0).random((3, 3, 8, 8, 3)), strict=True))
    run = SimpleNamespace(look=lambda video_ids, frames: np.stack([clips[name][:frames] for name in video_ids]))
    logits = np.eye(2, dtype=np.float32)[[0, 1, 1]]
    predictions = Predictions(np.array(list("abc")), np.array([0, 0, 1]), logits, ["book", "drink"])
    figure = right_and_wrong(predictions, run, count=2, frames=3)
    titles = [axis.get_title() or axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["book", "drink", "book, predicted as drink"]
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), np.hstack(clips["b"]))


def clip_with_a_body():
    clip = np.ones((10, 54, 3), np.float32)
    clip[..., :2] = np.random.default_rng(0).uniform(0, 100, (10, 54, 2))
    clip[:2] = 0
    clip[5, OPENPOSE.parts["left"]] = 0
    return clip


def test_the_strip_runs_from_the_first_frame_with_joints_to_the_last():
    figure = skeleton_strip(clip_with_a_body(), OPENPOSE, count=8)
    assert [axis.get_title("left") for axis in figure.axes] == [f"frame {n}" for n in range(2, 10)]


def test_the_strip_draws_only_bones_whose_two_ends_are_present():
    figure = skeleton_strip(clip_with_a_body(), OPENPOSE, count=8)
    bones = [len(axis.collections[0].get_segments()) for axis in figure.axes]
    assert bones == [53, 53, 53, 53 - 21, 53, 53, 53, 53]  # a lost hand loses its bones and that to the arm


def test_the_strip_draws_lips_as_two_rings():
    layout = LAYOUTS["body-hands"]
    clip = np.zeros((1, len(layout.joints), 3), np.float32)
    clip[0, layout.parts["lips"]] = np.random.default_rng(0).uniform(1, 2, (20, 3))
    (axis,) = skeleton_strip(clip, layout, count=1).axes
    assert len(axis.collections[0].get_segments()) == 12 + 8


def test_the_strip_has_y_growing_downwards():
    bottom, top = skeleton_strip(clip_with_a_body(), OPENPOSE).axes[0].get_ylim()
    assert bottom > top


def test_a_clip_without_joints_cannot_be_drawn():
    with pytest.raises(ValueError, match="no joints"):
        skeleton_strip(np.zeros((3, 42, 3)), HANDS)


def test_presence_is_the_share_of_clips_at_each_moment():
    early, always = np.zeros((10, 42, 3)), np.ones((4, 42, 3))
    early[:5, HANDS.parts["right"], 2] = 1
    lines = {
        line.get_label(): line.get_ydata() for line in presence_over_time([early, always], HANDS, "who").axes[0].lines
    }
    np.testing.assert_array_equal(lines["left"], np.full(40, 0.5))
    np.testing.assert_array_equal(lines["right"], np.repeat([1.0, 0.5], 20))
