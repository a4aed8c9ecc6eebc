"""Which signs a longer video shows, and when: windows whose best choice is known by hand, scores, and the files."""

import io
from dataclasses import replace

import av
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from lib.data.layouts import LAYOUTS
from lib.predict.model import Model
from lib.predict.recordings import Recording, pose_recording
from lib.predict.timeline import (
    BAR,
    BRIEF,
    COLUMNS,
    FPS,
    LENGTHS,
    STEP,
    Windows,
    clock,
    elan_csv,
    f1,
    find_signs,
    read_windows,
    said,
    threshold_signs,
    webvtt,
)

GLOSSES = ["book", "drink", "computer"]
HANDS = LAYOUTS["hands-42"]
BETWEEN = np.isin(np.arange(10), range(1, 8))


def windows(*rows, steps=10, known=True, moving=True, **other):
    """Windows of 1 second a step from (start, end, gloss, probability); the other glosses share the rest."""
    shares = np.zeros((len(rows), 3))
    for row, (*_, gloss, share) in zip(shares, rows, strict=True):
        row[:] = (1 - share) / 2
        row[GLOSSES.index(gloss)] = share
    start, end = (np.array([row[place] for row in rows], int) for place in (0, 1))
    known, moving = np.broadcast_to(known, len(rows)), np.broadcast_to(moving, steps)
    return Windows(start, end, shares, known, moving, **{"step": 1.0, **other})


def signs(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def listed(table):
    assert list(table) == COLUMNS
    return [tuple(row) for row in table.drop(columns="confidence").itertuples(index=False)]


# ---- the signs that are worth most ---------------------------------------------------------------------


def test_two_short_signs_are_taken_where_they_are_worth_more_than_one_long_one():
    # 4 x .5 + 3 x .6 = 3.8 beats 7 x .5 = 3.5
    both = [(1, 5, "book", BAR + 0.5), (5, 8, "drink", BAR + 0.6)]
    found = find_signs(windows((1, 8, "computer", BAR + 0.5), *both, moving=BETWEEN), GLOSSES)
    assert listed(found) == [(1, 5, "book"), (5, 8, "drink")]
    assert found["confidence"].tolist() == pytest.approx([BAR + 0.5, BAR + 0.6])


def test_one_long_sign_is_taken_where_it_is_worth_more_than_two_short_ones():
    # 7 x .55 = 3.85 beats 3.8
    both = [(1, 5, "book", BAR + 0.5), (5, 8, "drink", BAR + 0.6)]
    found = find_signs(windows(*both, (1, 8, "computer", BAR + 0.55), moving=BETWEEN), GLOSSES)
    assert listed(found) == [(1, 8, "computer")]


def test_of_overlapping_windows_the_best_set_is_taken_and_not_the_best_window_first():
    # The middle one is worth most by itself, 4 x .5 = 2, but less than its two neighbours, 2 x (4 x .4) = 3.2.
    rows = [(0, 4, "book", BAR + 0.4), (2, 6, "computer", BAR + 0.5), (4, 8, "drink", BAR + 0.4)]
    assert listed(find_signs(windows(*rows, steps=8), GLOSSES)) == [(0, 4, "book"), (4, 8, "drink")]


def test_windows_below_the_bar_are_no_signs_and_those_above_it_are():
    made = windows((0, 4, "book", 0.5), steps=4)
    for share, expected in [(BAR - 0.01, [(0, 4, "")]), (BAR + 0.01, [(0, 4, "book")])]:
        assert listed(find_signs(replace(made, shares=np.array([[share, 0.1, 0.1]])), GLOSSES)) == expected


def test_what_moves_without_a_sign_that_is_known_is_unknown_and_where_nothing_moves_is_nothing():
    rows = [(1, 4, "book", 0.9), (5, 8, "drink", 0.9)]
    moving = np.array([0, 1, 1, 1, 0, 1, 1, 1, 0, 0], bool)
    found = find_signs(windows(*rows, known=[True, False], moving=moving), GLOSSES)
    assert listed(found) == [(1, 4, "book"), (5, 8, "")]
    assert np.isnan(found["confidence"][1])
    assert listed(find_signs(windows(*rows, known=False, moving=np.zeros(10, bool)), GLOSSES)) == []


def test_what_moves_briefly_beside_a_sign_is_not_unknown():
    step = BRIEF / 2
    moving = np.array([1, 1, 1, 1, 0, 1, 1, 0], bool)  # one step before the sign, and two after it
    found = find_signs(windows((1, 4, "book", 0.9), steps=8, moving=moving, step=step), GLOSSES)
    assert listed(found) == [(pytest.approx(step), pytest.approx(4 * step), "book"), (1.5, pytest.approx(2.1), "")]


def test_a_sign_begins_and_ends_where_something_moves_though_its_window_may_not():
    # The longer window is worth no more than the shorter one of the same movement.
    rows = [(2, 6, "book", 0.8), (0, 9, "drink", 0.79)]
    found = find_signs(windows(*rows, moving=np.isin(np.arange(10), [3, 5])), GLOSSES)
    assert listed(found) == [(3, 6, "book")]


def test_no_windows_are_no_signs():
    for find in (find_signs, lambda windows, glosses: threshold_signs(windows, glosses, 0.5)):
        found = find(windows(steps=5, moving=False), GLOSSES)
        assert listed(found) == []
        assert found.dtypes[["start", "end", "confidence"]].tolist() == [float] * 3
        assert listed(find(windows(steps=5), GLOSSES)) == [(0, 5, "")]


ROWS = st.lists(
    st.tuples(st.integers(0, 19), st.integers(1, 8), st.sampled_from(GLOSSES), st.floats(0.34, 1)), max_size=25
)


@given(rows=ROWS, moving=st.lists(st.booleans(), min_size=20, max_size=20), known=st.integers(0, 2**25))
def test_signs_are_in_order_without_overlap_inside_the_recording_and_worth_most(rows, moving, known):
    rows = [(start, min(20, start + length), gloss, share) for start, length, gloss, share in rows]
    known = np.array([known >> number & 1 for number in range(len(rows))], bool)
    made = windows(*rows, steps=20, known=known, moving=np.array(moving, bool), seconds=19.5)
    found = find_signs(made, GLOSSES)
    stretches = [[step for step in range(start, end) if moving[step]] for start, end, *_ in rows]
    known = known & np.array([len(stretch) > 0 for stretch in stretches], bool)
    rows = [(s[0], s[-1] + 1, *row[2:]) if s else row for s, row in zip(stretches, rows, strict=True)]
    assert (found["start"] < found["end"]).all()
    assert (found["end"].iloc[:-1].to_numpy() <= found["start"].iloc[1:].to_numpy()).all()
    assert found["start"].min() >= 0 if len(found) else True
    assert found["end"].max() <= 19.5 if len(found) else True
    named = found[found["gloss"] != ""].assign(length=lambda signs: np.ceil(signs["end"]) - signs["start"])
    choice = pd.DataFrame(rows, columns=COLUMNS)[known].assign(length=lambda rows: rows["end"] - rows["start"])
    options = {(row.start, min(row.end, 19.5), row.gloss, round(row.confidence, 9)) for row in choice.itertuples()}
    assert {(sign.start, sign.end, sign.gloss, round(sign.confidence, 9)) for sign in named.itertuples()} <= options
    best = ((choice["confidence"] - BAR) * choice["length"]).max() if len(choice) else 0
    assert ((named["confidence"] - BAR) * named["length"]).sum() >= best - 1e-9
    free = np.array(moving, bool)
    for s in named.itertuples():
        free[int(s.start) : int(np.ceil(s.end))] = False
    covered = np.zeros(20, bool)
    for s in found[found["gloss"] == ""].itertuples():
        covered[int(s.start) : int(np.ceil(s.end))] = True
    np.testing.assert_array_equal(covered, free)


# ---- the windows of a recording ------------------------------------------------------------------------


def reader(says, glosses=GLOSSES):
    """A model of hands that answers each clip with `says` of it, and a list of the clips that it was given."""
    given = []

    def run(clips):
        given.extend(clips)
        return np.stack([says(clip) for clip in clips]).astype(np.float32)

    return Model("a/b", glosses, HANDS, 1000, 0, None, -np.inf, run), given


def moments(count, fps=25.0, seen=slice(None)):
    """A recording in whose frames the first joint's x is the number of the frame, of one hand."""
    poses = np.zeros((count, 42, 3), np.float32)
    poses[seen, :21, 2] = 1
    poses[seen, :21, 0] = np.arange(count)[seen, None]
    return poses, fps


def test_windows_have_the_lengths_and_steps_that_they_should_and_hold_their_frames():
    model, given = reader(lambda clip: [1, 0, 0])
    poses, fps = moments(100)
    made = read_windows(model, pose_recording(poses, fps, "", model))
    frames = round(STEP * 25)
    steps = -(-100 // frames)
    assert (made.step, made.seconds, len(made.moving)) == (frames / 25, 4.0, steps)
    lengths = sorted({round(length * 25 / frames) for length in LENGTHS})
    assert sorted(set((made.end - made.start).tolist())) == lengths
    assert len(given) == len(made.start) == sum(steps - length + 1 for length in lengths)
    for clip, start, end in zip(given, made.start, made.end, strict=True):
        assert clip[:, 0, 0].tolist() == list(range(start * frames, min(100, end * frames)))


def test_stretches_in_which_nothing_moves_are_not_read():
    model, given = reader(lambda clip: [1, 0, 0])
    poses, fps = moments(200, seen=slice(100, 150))
    recording = pose_recording(poses, fps, "", model)
    made = read_windows(model, recording)
    frames = round(STEP * 25)
    for start, end in zip(made.start, made.end, strict=True):
        assert recording.moving[start * frames : end * frames].mean() >= 0.5
    assert 0 < len(given) < 150
    assert made.moving.sum() == pytest.approx(50 / frames, abs=1)
    found = find_signs(made, GLOSSES)
    assert found["start"].min() == pytest.approx(4, abs=STEP)
    assert found["end"].max() == pytest.approx(6, abs=STEP)


def test_probabilities_are_smoothed_over_the_windows_a_step_before_and_after():
    rng = np.random.default_rng(0)
    model, raw = reader(lambda clip: rng.normal(size=3) * 3)[0], []
    model = replace(model, run=lambda clips, run=model.run: raw.append(run(clips)) or raw[-1])
    poses, fps = moments(60)
    made = read_windows(model, pose_recording(poses, fps, "", model))
    shares = softmax(np.concatenate(raw), axis=1)
    length = made.end - made.start
    for number in range(len(shares)):
        same = np.flatnonzero((length == length[number]) & (np.abs(made.start - made.start[number]) <= 1))
        middle = len(same) == 3
        expected = shares[same].sum(0) + (0 if middle else shares[number] * (3 - len(same)))
        np.testing.assert_allclose(made.shares[number], expected / 3, rtol=1e-5)
    np.testing.assert_allclose(made.shares.sum(1), 1, rtol=1e-5)


def test_signs_in_a_row_are_found_where_they_are():
    """A model that names a clip the more surely, the more of it and the less else it shows of one sign."""
    true, glosses = [(10, 40, 0), (60, 85, 1), (85, 130, 2)], [*"abcdefghij"]

    def says(clip):
        numbers, logits = clip[:, 0, 0], np.full(10, -9.0)
        for start, end, label in true:
            both = ((numbers >= start) & (numbers < end)).sum()
            logits[label] = 4 - 10 * (1 - both / (end - start + len(numbers) - both))
        return logits - np.logaddexp(0, logits.max())  # the rest is shared by all

    model, _ = reader(lambda clip: np.log(np.exp(says(clip)) + 0.1), glosses)
    poses, fps = moments(150, seen=np.r_[5:45, 55:135])
    found = find_signs(read_windows(model, pose_recording(poses, fps, "", model)), glosses)
    truth = signs(*[(start / 25, end / 25, glosses[label], 1.0) for start, end, label in true])
    assert found["gloss"].tolist() == ["a", "b", "c"]
    assert f1([found], [truth]) == 1
    assert (found[["start", "end"]] - truth[["start", "end"]]).abs().max(axis=None) <= 0.25


def test_scores_below_that_of_a_known_sign_make_a_stretch_unknown():
    model, _ = reader(lambda clip: [5, 0, 0] if clip[:, 0, 0].mean() < 50 else [2, -3, -3])
    model = replace(model, known_from=4.0)
    poses, fps = moments(100)
    found = find_signs(read_windows(model, pose_recording(poses, fps, "", model)), GLOSSES)
    assert found["gloss"].tolist()[0] == "book"
    assert found["gloss"].tolist()[-1] == ""
    assert found["end"].iloc[-1] == 4


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 10])
def test_a_recording_shorter_than_a_window_is_one_window_that_ends_with_it(frames):
    model, given = reader(lambda clip: [5, 0, 0])
    poses, fps = moments(frames)
    found = find_signs(read_windows(model, pose_recording(poses, fps, "", model)), GLOSSES)
    assert listed(found) == [(0, frames / 25, "book")]
    assert len(given) == 1


def test_a_recording_without_a_rate_is_taken_for_one_of_25_frames_a_second():
    model, _ = reader(lambda clip: [5, 0, 0])
    poses, _ = moments(100)
    recordings = [pose_recording(poses, fps, "", model) for fps in (None, FPS)]
    unknown, known = (find_signs(read_windows(model, recording), GLOSSES) for recording in recordings)
    pd.testing.assert_frame_equal(unknown, known)


@pytest.mark.parametrize("fps", [5, 12.5, 29.97, 60, 240])
def test_other_rates_give_the_same_seconds(fps):
    model, _ = reader(lambda clip: [5, 0, 0])
    count = round(4 * fps)
    poses, _ = moments(count)
    found = find_signs(read_windows(model, pose_recording(poses, fps, "", model)), GLOSSES)
    assert found["end"].iloc[-1] == pytest.approx(count / fps, abs=1e-3)
    assert (found["end"] - found["start"]).max() <= max(LENGTHS) + 1 / fps + STEP
    assert set(found["gloss"]) == {"book"}


def test_a_recording_in_which_nothing_moves_has_no_signs():
    model, given = reader(lambda clip: [5, 0, 0])
    still = Recording(50, 25.0, lambda start, end: np.zeros((end - start, 42, 3), np.float32), np.zeros(50, bool))
    assert listed(find_signs(read_windows(model, still), GLOSSES)) == []
    assert given == []


# ---- the plain threshold, and the score of both --------------------------------------------------------


def test_a_plain_threshold_takes_runs_of_one_gloss_by_the_mean_of_the_windows_over_a_step():
    rows = [(0, 2, "book", 0.9), (1, 3, "book", 0.7), (2, 4, "drink", 0.8), (3, 5, "drink", 0.8)]
    rows += [(0, 5, "computer", 1.0)]  # of another length than USUAL
    found = threshold_signs(windows(*rows, steps=6, step=0.75, moving=np.arange(6) < 5), GLOSSES, 0.6)
    # book by step: .9, (.9 + .7) / 2 = .8, (.7 + .1) / 2 = .4; drink: .05, .1, (.15 + .8) / 2 = .475, .8, .8
    assert listed(found) == [(0, 1.5, "book"), (1.5, 2.25, ""), (2.25, 3.75, "drink")]
    assert found["confidence"].tolist()[::2] == pytest.approx([0.9, 0.8])
    assert listed(threshold_signs(windows(*rows, steps=6, step=0.75, moving=False), GLOSSES, 0.45)) == [
        (0, 1.5, "book"), (1.5, 3.75, "drink"),
    ]  # fmt: skip


def test_f1_counts_a_sign_once_and_only_with_its_gloss_and_enough_overlap():
    truth = signs((0, 2, "book", 1), (3, 5, "drink", 1), (6, 8, "book", 1))
    assert f1([truth], [truth]) == 1
    assert f1([signs((0, 2, "drink", 1))], [truth]) == 0
    assert f1([signs((1, 2, "book", 1))], [truth]) == 2 * 1 / (1 + 3)  # a half of it
    assert f1([signs((1.1, 2, "book", 1))], [truth]) == 0
    assert f1([signs((0, 2, "book", 1), (0.2, 2, "book", 1))], [truth]) == 2 * 1 / (2 + 3)
    assert f1([signs((0, 2, "book", 1), (3, 5, "", np.nan))], [truth]) == 2 * 1 / (1 + 3)
    assert f1([truth, truth[:1]], [truth, truth]) == 2 * 4 / (4 + 6)
    assert f1([signs((1, 2, "book", 1))], [truth], overlap=0.6) == 0
    assert f1([signs()], [signs()]) == 1
    assert f1([signs()], [truth]) == f1([truth], [signs()]) == 0


# ---- files -----------------------------------------------------------------------------------------------

ODD = signs((0.5, 1.25, "rock & roll", 0.876), (1.25, 3, "", np.nan), (3661.5, 3662.0004, "a<b>c", 0.5))


def test_subtitles_are_read_by_ffmpeg_with_their_times_and_words(tmp_path):
    path = tmp_path / "a.vtt"
    path.write_text(webvtt(ODD))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
        tick = packets[0].time_base
        cues = [(float(p.pts * tick), float((p.pts + p.duration) * tick), bytes(p).decode()) for p in packets]
    assert cues == [
        (0.5, 1.25, "rock &amp; roll (88%)"), (1.25, 3, "unknown"), (3661.5, 3662, "a&lt;b&gt;c (50%)"),
    ]  # fmt: skip
    with av.open(str(path)) as container:
        shown = [subtitle.dialogue.decode() for subtitle in container.decode(subtitles=0)]
    assert shown == ["rock & roll (88%)", "unknown", "a<b>c (50%)"]


def test_subtitles_of_nothing_are_a_file_of_their_kind():
    assert webvtt(signs()) == "WEBVTT\n"


def test_the_table_for_elan_has_a_tier_times_and_words(tmp_path):
    table = pd.read_csv(io.StringIO(elan_csv(ODD)))
    assert list(table) == ["tier", "begin", "end", "annotation", "confidence"]
    assert set(table["tier"]) == {"signs"}
    assert pd.to_timedelta(table["begin"]).dt.total_seconds().tolist() == [0.5, 1.25, 3661.5]
    assert pd.to_timedelta(table["end"]).dt.total_seconds().tolist() == [1.25, 3, 3662]
    assert table["annotation"].tolist() == ["rock & roll", "unknown", "a<b>c"]
    assert table["confidence"].tolist()[::2] == [0.876, 0.5]
    assert np.isnan(table["confidence"][1])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00.000"), (1.9996, "00:00:02.000"), (59.9999, "00:01:00.000"), (3599.9996, "01:00:00.000"),
     (61.25, "00:01:01.250"), (360_000, "100:00:00.000")],
)  # fmt: skip
def test_a_clock_carries_what_is_rounded_up(seconds, text):
    assert clock(seconds) == text


def test_a_sign_in_words():
    assert [said(sign) for sign in ODD.itertuples()] == ["rock & roll (88%)", "unknown", "a<b>c (50%)"]
