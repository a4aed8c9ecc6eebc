"""Figures of RGB clips."""

import numpy as np

from lib.data.clip_store import build_clips, clip_path, read_stored
from lib.data.sample import write_sample
from lib.data.sources import build_index
from lib.data.video import frames, sample_frames
from lib.figures.data import before_and_after, contact_sheet, strips
from lib.study import load_study


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
