"""Which signs a longer video shows, and when: steps whose likeliest sequence is known, scores, and the files."""

import io
from dataclasses import replace
from itertools import pairwise, product

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
    BRIEF,
    COLUMNS,
    FPS,
    LENGTHS,
    NO_SIGN,
    NOBODY,
    STEP,
    Steps,
    clock,
    elan_csv,
    f1,
    find_signs,
    read_steps,
    said,
    threshold_signs,
    webvtt,
)

GLOSSES = ["book", "drink", "computer"]
HANDS = LAYOUTS["hands-42"]


def steps_of(text, share=0.9, *, moving=None, scores=5.0, step=1.0, seconds=np.inf):
    """Steps from a letter each: b, d or c, of whose gloss the probability is `share`; a dot: all glosses alike."""
    shares = np.full((len(text), 3), (1 - share) / 2)
    for row, letter in zip(shares, text, strict=True):
        row[["bdc".index(letter)] if letter != "." else slice(None)] = share if letter != "." else 1 / 3
    moving = np.array([letter == "x" for letter in moving]) if moving else np.ones(len(text), bool)
    return Steps(shares, np.broadcast_to(scores, len(text)).astype(float), moving, step, seconds)


def signs(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def listed(table):
    assert list(table) == COLUMNS
    return [tuple(row) for row in table.drop(columns="confidence").itertuples(index=False)]


# ---- the likeliest sequence ----------------------------------------------------------------------------


def test_signs_are_runs_of_their_gloss_in_order():
    found = find_signs(steps_of("bbbbbbddddddcccccc"), GLOSSES)
    assert listed(found) == [(0, 6, "book"), (6, 12, "drink"), (12, 18, "computer")]
    assert found["confidence"].tolist() == pytest.approx([0.9] * 3)


def test_a_moments_doubt_does_not_cut_a_sign_in_two_and_a_plain_threshold_does():
    doubtful = steps_of("bbbbbbdbbbbbb")
    assert listed(find_signs(doubtful, GLOSSES)) == [(0, 13, "book")]
    assert listed(threshold_signs(doubtful, GLOSSES, 0.5)) == [(0, 6, "book"), (6, 7, "drink"), (7, 13, "book")]


def test_a_change_has_a_price_in_nats():
    # Staying with book through n steps of drink costs n ln(.9 / .05), changing there and back twice the price.
    steps, price = steps_of("bbbbbbdddbbbbbb"), 3 * np.log(0.9 / 0.05) / 2
    assert len(find_signs(steps, GLOSSES, change=price - 0.01)) == 3
    assert len(find_signs(steps, GLOSSES, change=price + 0.01)) == 1


def test_what_no_gloss_is_likely_for_is_no_sign():
    faint = steps_of("b" * 8, 0.4)
    assert listed(find_signs(faint, GLOSSES, no_sign=0.39)) == [(0, 8, "book")]
    assert listed(find_signs(faint, GLOSSES, no_sign=0.41)) == [(0, 8, "")]


@given(
    shares=st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=5),
    moving=st.lists(st.booleans(), min_size=5, max_size=5),
    change=st.floats(0.1, 6),
)
def test_no_sequence_is_likelier(shares, moving, change):
    shares = np.array(shares) / np.sum(shares, axis=1, keepdims=True)
    moving = np.array(moving[: len(shares)])
    logs = np.log(np.column_stack([shares, np.where(moving, NO_SIGN, NOBODY)]) + 1e-6)

    def worth(states):
        return logs[range(len(states)), states].sum() - change * sum(a != b for a, b in pairwise(states))

    best = max(product(range(4), repeat=len(shares)), key=worth)
    found = find_signs(Steps(shares, np.zeros(len(shares)), moving, 1.0, np.inf), GLOSSES, change=change)
    states = np.full(len(shares), 3)
    for sign in found[found["gloss"] != ""].itertuples():
        states[int(sign.start) : int(sign.end)] = GLOSSES.index(sign.gloss)
    hidden = (np.array(best) != 3) & ~moving  # a sign is cut to where something moves
    states = np.where(hidden & (states == 3), best, states)
    assert worth(tuple(states)) == pytest.approx(worth(best), abs=1e-9)


def test_signs_whose_scores_are_low_are_unknown_and_where_nothing_moves_is_nothing():
    steps = steps_of("bbbbbb....dddddd", moving="xxxxxx....xxxxxx", scores=np.repeat([5.0, 1.0], [8, 8]))
    found = find_signs(steps, GLOSSES, known_from=4.0)
    assert listed(found) == [(0, 6, "book"), (10, 16, "")]
    assert np.isnan(found["confidence"][1])
    assert listed(find_signs(replace(steps, moving=np.zeros(16, bool)), GLOSSES)) == []


def test_a_sign_begins_and_ends_where_something_moves():
    assert listed(find_signs(steps_of("bbbbbbbb", moving=".xx.xx..", share=1.0), GLOSSES)) == [(1, 6, "book")]


def test_what_moves_briefly_beside_a_sign_is_not_unknown():
    step = BRIEF / 2
    found = threshold_signs(steps_of(".bbbbbb...", moving="xxxxxxx.xx", step=step), GLOSSES, 0.5)
    assert found["gloss"].tolist() == ["book", ""]
    assert found["end"].iloc[1] - found["start"].iloc[1] == pytest.approx(BRIEF)


@given(
    text=st.text("bdc.", min_size=1, max_size=30), share=st.floats(0.34, 1), moving=st.integers(0, 2**30),
    known_from=st.floats(0, 6), change=st.floats(0, 10),
)  # fmt: skip
def test_signs_are_in_order_without_overlap_inside_the_recording_and_the_rest_is_told(
    text, share, moving, known_from, change
):
    moves = "".join("x" if moving >> number & 1 else "." for number in range(len(text)))
    steps = steps_of(text, share, moving=moves, seconds=len(text) - 0.5)
    for found in (find_signs(steps, GLOSSES, known_from, change=change), threshold_signs(steps, GLOSSES, share)):
        assert (found["start"] < found["end"]).all()
        assert (found["end"].iloc[:-1].to_numpy() <= found["start"].iloc[1:].to_numpy()).all()
        assert found["start"].min() >= 0 if len(found) else True
        assert found["end"].max() <= steps.seconds if len(found) else True
        told = np.zeros(len(text), bool)
        for sign in found.itertuples():
            told[int(sign.start) : int(np.ceil(sign.end))] = True
        assert told[steps.moving].all()  # with steps of a second, whatever moves lasts longer than BRIEF


# ---- the steps of a recording --------------------------------------------------------------------------


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


def test_stretches_have_the_lengths_and_steps_that_they_should_and_hold_their_frames():
    model, given = reader(lambda clip: [1, 0, 0])
    poses, fps = moments(100)
    made = read_steps(model, pose_recording(poses, fps, "", model))
    frames = round(STEP * 25)
    steps = -(-100 // frames)
    assert (made.step, made.seconds, len(made.moving)) == (frames / 25, 4.0, steps)
    lengths = sorted({round(length * 25 / frames) for length in LENGTHS})
    expected = [(start, start + length) for length in lengths for start in range(steps - length + 1)]
    assert len(given) == len(expected)
    for clip, (start, end) in zip(given, expected, strict=True):
        assert clip[:, 0, 0].tolist() == list(range(start * frames, min(100, end * frames)))


def test_a_step_has_the_mean_of_all_stretches_over_it():
    model, given = reader(lambda clip: [np.sin(clip[0, 0, 0]), np.cos(clip[-1, 0, 0]), 0])
    poses, fps = moments(60)
    made = read_steps(model, pose_recording(poses, fps, "", model))
    frames = round(STEP * 25)
    for number in range(len(made.moving)):
        over = [clip for clip in given if clip[0, 0, 0] <= number * frames < clip[-1, 0, 0] + 1]
        logits = np.array([[np.sin(clip[0, 0, 0]), np.cos(clip[-1, 0, 0]), 0] for clip in over])
        np.testing.assert_allclose(made.shares[number], softmax(logits, axis=1).mean(0), rtol=1e-5)
        assert made.scores[number] == pytest.approx(logits.max(1).mean(), rel=1e-5)


def test_stretches_in_which_nothing_moves_are_not_read():
    model, given = reader(lambda clip: [1, 0, 0])
    poses, fps = moments(200, seen=slice(100, 150))
    made = read_steps(model, pose_recording(poses, fps, "", model))
    frames = round(STEP * 25)
    assert all(2 * len(clip) >= min(LENGTHS) * 25 - 2 * frames for clip in given)  # trimmed to where hands are seen
    assert 0 < len(given) < 120
    assert made.moving.sum() == pytest.approx(50 / frames, abs=1)
    assert not made.shares[:20].any()
    found = find_signs(made, GLOSSES)
    assert found["start"].min() == pytest.approx(4, abs=STEP)
    assert found["end"].max() == pytest.approx(6, abs=STEP)


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
    found = find_signs(read_steps(model, pose_recording(poses, fps, "", model)), glosses)
    truth = signs(*[(start / 25, end / 25, glosses[label], 1.0) for start, end, label in true])
    assert found["gloss"].tolist() == ["a", "b", "c"]
    assert f1([found], [truth]) == 1
    assert (found[["start", "end"]] - truth[["start", "end"]]).abs().max(axis=None) <= 0.25


def test_scores_below_that_of_a_known_sign_make_a_stretch_unknown():
    model, _ = reader(lambda clip: [9, 0, 0] if clip[:, 0, 0].mean() < 60 else [-9, 2, -9])
    poses, fps = moments(200, seen=np.r_[0:50, 75:200])
    found = find_signs(read_steps(model, pose_recording(poses, fps, "", model)), GLOSSES, 4.0)
    assert found["gloss"].tolist() == ["book", ""]
    assert found["end"].iloc[-1] == 8


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 10])
def test_a_recording_shorter_than_a_window_is_one_window_that_ends_with_it(frames):
    model, given = reader(lambda clip: [5, 0, 0])
    poses, fps = moments(frames)
    found = find_signs(read_steps(model, pose_recording(poses, fps, "", model)), GLOSSES)
    assert listed(found) == [(0, frames / 25, "book")]
    assert len(given) == 1


def test_a_recording_without_a_rate_is_taken_for_one_of_25_frames_a_second():
    model, _ = reader(lambda clip: [5, 0, 0])
    poses, _ = moments(100)
    recordings = [pose_recording(poses, fps, "", model) for fps in (None, FPS)]
    unknown, known = (find_signs(read_steps(model, recording), GLOSSES) for recording in recordings)
    pd.testing.assert_frame_equal(unknown, known)


@pytest.mark.parametrize("fps", [5, 12.5, 29.97, 60, 240])
def test_other_rates_give_the_same_seconds(fps):
    model, _ = reader(lambda clip: [5, 0, 0])
    count = round(4 * fps)
    poses, _ = moments(count)
    found = find_signs(read_steps(model, pose_recording(poses, fps, "", model)), GLOSSES)
    assert found["end"].iloc[-1] == pytest.approx(count / fps, abs=1e-3)
    assert set(found["gloss"]) == {"book"}


def test_a_recording_in_which_nothing_moves_has_no_signs():
    model, given = reader(lambda clip: [5, 0, 0])
    still = Recording(50, 25.0, lambda start, end: np.zeros((end - start, 42, 3), np.float32), np.zeros(50, bool))
    assert listed(find_signs(read_steps(model, still), GLOSSES)) == []
    assert given == []


# ---- the plain threshold, and the score of both --------------------------------------------------------


def test_a_plain_threshold_takes_runs_of_one_gloss_above_its_bar():
    steps = steps_of("bbb.dd", moving="xxxxx.")
    steps.shares[1] = 0.65, 0.3, 0.05
    found = threshold_signs(steps, GLOSSES, 0.6)
    assert listed(found) == [(0, 3, "book"), (3, 4, ""), (4, 5, "drink")]
    assert found["confidence"].tolist()[::2] == pytest.approx([(0.9 + 0.65 + 0.9) / 3, 0.9])
    assert listed(threshold_signs(steps, GLOSSES, 0.7))[0] == (0, 1, "book")


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
