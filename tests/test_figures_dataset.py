"""Figures of the data set."""

import numpy as np

from lib.data.sample import write_sample
from lib.data.sources import build_index
from lib.data.video import frames
from lib.figures.data import film_strips
from lib.study import load_study


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
