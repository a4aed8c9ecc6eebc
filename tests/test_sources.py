"""Building the index: frame numbers in the file, and what the sources hold of each clip."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import encode_video, numbered_images
from lib.data.index import read_index
from lib.data.sources import Content, _row, build_index, list_files, to_file_frames
from lib.paths import Paths
from lib.settings import StudyError


def annotated(root):
    """A root with the annotations of three clips of two glosses."""
    keys = ("video_id", "split", "frame_start", "frame_end", "bbox")
    clips = [("00001", "test", 11, 40, [1, 2, 30, 40]), ("00002", "train", 1, -1, None), ("00003", "val", 1, -1, None)]
    first, second, third = ({**dict(zip(keys, clip, strict=True)), "fps": 25} for clip in clips)
    glosses = [{"gloss": "book", "instances": [second, first]}, {"gloss": "all", "instances": [third]}]
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "WLASL2.json").write_text(json.dumps(glosses))
    return root


def study(root, **other):
    fields = {"root": root, "subset": 2, "sources": ["hands"], "split": "official", "layout": "hands-42"}
    return SimpleNamespace(**(fields | {"drop_duplicates": False} | other))


def test_the_list_of_files_changes_with_each_file_that_is_added_removed_or_replaced(tmp_path):
    files = ("videos/00001.mp4", "keypoints/00001/1_keypoints.json", "keypoints/00001/2_keypoints.json")
    annotated(tmp_path)
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    videos = study(tmp_path, sources=["videos", "keypoints"])
    seen = [list_files(videos)]
    assert [line.split("\t")[0] for line in seen[0].splitlines()] == ["annotations/WLASL2.json", *sorted(files)]
    (tmp_path / "keypoints" / "00001" / "._1_keypoints.json").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "notes.txt").touch()
    assert list_files(videos) == seen[0]
    for change in (
        lambda path: path.write_text("longer than before"),
        lambda path: os.utime(path, (1, 1)),
        lambda path: path.unlink(),
        lambda path: path.with_name("3_keypoints.json").touch(),
    ):
        change(tmp_path / files[1])
        seen.append(list_files(videos))
    assert len({*seen}) == 5


def test_the_list_of_own_clips_has_those_that_the_listing_names(tmp_path):
    rows = [f"{split}-{gloss}.mp4,{gloss},{split}" for gloss in ("yes", "no") for split in ("train", "val", "test")]
    (tmp_path / "clips.csv").write_text("\n".join(["path,gloss,split", *rows]))
    for name in ("train-yes.mp4", "unlisted.mp4"):
        (tmp_path / name).touch()
    names = [line.split("\t")[0] for line in list_files(study(tmp_path, sources=["clips"])).splitlines()]
    assert names == ["clips.csv", "train-yes.mp4"]


# ---- frame numbers -------------------------------------------------------------------------------------

rates = st.sampled_from([12.0, 23.976, 25.0, 29.97, 30.0, 60.0])
starts = st.integers(1, 12000)
lengths = st.integers(1, 400)


@given(start=starts, length=lengths, whole=st.booleans(), fps=rates, file_fps=rates, n_frames=st.integers(1, 900))
def test_segment_lies_in_the_file_and_is_never_empty(start, length, whole, fps, file_fps, n_frames):
    end = -1 if whole else start + length - 1
    first, last = to_file_frames(start, end, fps=fps, file_fps=file_fps, n_frames=n_frames)
    assert 0 <= first < last <= n_frames


@given(start=starts, length=lengths, after=st.integers(0, 100), fps=rates)
def test_equal_rates_only_shift_to_zero_based_half_open(start, length, after, fps):
    end = start + length - 1
    frames = to_file_frames(start, end, fps=fps, file_fps=fps, n_frames=end + after)
    assert frames == (start - 1, end)


@given(start=st.integers(1, 300), fps=rates, file_fps=rates, n_frames=st.integers(1000, 2000))
def test_minus_one_runs_to_the_end(start, fps, file_fps, n_frames):
    first, last = to_file_frames(start, -1, fps=fps, file_fps=file_fps, n_frames=3 * n_frames)
    assert last == 3 * n_frames
    assert first == to_file_frames(start, start + 1, fps=fps, file_fps=file_fps, n_frames=3 * n_frames)[0]


@given(start=st.integers(1, 300), length=lengths, later=st.integers(0, 50), fps=rates, file_fps=rates)
def test_later_frame_numbers_never_give_earlier_frames(start, length, later, fps, file_fps):
    rates_and_size = {"fps": fps, "file_fps": file_fps, "n_frames": 10_000}
    end = start + length - 1
    first, last = to_file_frames(start, end, **rates_and_size)
    assert first <= to_file_frames(start + later, end + later, **rates_and_size)[0]
    assert last <= to_file_frames(start, end + later, **rates_and_size)[1]


def test_numbers_at_25_fps_are_scaled_to_a_file_of_30():
    assert to_file_frames(26, 50, fps=25, file_fps=30, n_frames=90) == (30, 60)


def test_unknown_file_rate_leaves_numbers_and_unknown_length_leaves_minus_one():
    assert to_file_frames(11, 20, fps=25, file_fps=None, n_frames=40) == (10, 20)
    assert to_file_frames(11, -1, fps=25, file_fps=None, n_frames=None) == (10, -1)


def test_overshooting_end_is_cut_at_the_end_of_the_file():
    assert to_file_frames(3, 68, fps=25, file_fps=30, n_frames=79) == (2, 79)


@pytest.mark.parametrize(("start", "end", "n_frames"), [(2933, 2969, 37), (50, 116, 67), (900, -1, 40)])
def test_file_cut_out_of_a_compilation_is_taken_whole(start, end, n_frames):
    assert to_file_frames(start, end, fps=25, file_fps=25, n_frames=n_frames) == (0, n_frames)


@pytest.mark.parametrize(("start", "end", "n_frames"), [(0, 5, 9), (5, 4, 9), (1, 5, 0)])
def test_impossible_frame_numbers_are_refused(start, end, n_frames):
    with pytest.raises(ValueError, match="need 1 <= start <= end"):
        to_file_frames(start, end, fps=25, file_fps=25, n_frames=n_frames)


# ---- the index -----------------------------------------------------------------------------------------


def hands(frames, value=0.5):
    return np.full((frames, 2, 21, 3), value, np.float16)


def with_hands(root, **arrays):
    annotated(root)
    (root / "hands").mkdir()
    np.savez(root / "hands" / "hands.npz", **arrays)
    return root


def test_index_has_every_official_clip_with_its_status(tmp_path):
    root = with_hands(tmp_path, **{"00001": hands(40), "00002": np.zeros((3, 7)), "99999": hands(2)})
    index = build_index(study(root)).set_index("video_id")
    assert index.index.tolist() == ["00001", "00002", "00003"]
    assert index.loc["00001", "status"] == "present"
    assert index.loc["00002", "status"].startswith("unreadable: clip 00002: hand landmarks are float64 of shape (3, 7)")
    assert index.loc["00003", "status"] == "missing"
    assert index["n_frames"].tolist() == [40, pd.NA, pd.NA]
    assert (index.loc["00001", "frame_start"], index.loc["00001", "frame_end"]) == (10, 40)
    assert index.loc["00003", "frame_end"] == -1
    assert index.loc["00003", "path"] == ""


def test_same_array_has_same_content_and_another_has_another(tmp_path):
    root = with_hands(tmp_path, **{"00001": hands(4), "00002": hands(4), "00003": hands(4, 0.25)})
    content = build_index(study(root)).set_index("video_id")["content"]
    assert content["00001"] == content["00002"] != content["00003"]


def test_clip_is_present_only_when_every_source_has_it(tmp_path):
    root = with_hands(tmp_path, **{"00001": hands(4)})
    encode_video(root / "videos" / "00002.mp4", numbered_images(3))
    index = build_index(study(root, sources=["hands", "videos"])).set_index("video_id")
    assert index.loc["00001", "status"] == "missing"
    assert index.loc["00001", "n_frames"] == 4


def test_keypoints_are_read_to_the_end_and_a_broken_frame_is_named_without_its_folder(tmp_path):
    root = annotated(tmp_path)
    person = {"pose_keypoints_2d": [0.5] * 75, "hand_left_keypoints_2d": [], "hand_right_keypoints_2d": []}
    for video_id, second in (("00001", json.dumps({"people": [person]})), ("00002", '{"people": [')):
        folder = root / "keypoints" / video_id
        folder.mkdir(parents=True)
        (folder / "image_00001_keypoints.json").write_text(json.dumps({"people": [person]}))
        (folder / "image_00002_keypoints.json").write_text(second)
    index = build_index(study(root, sources=["keypoints"], layout="openpose-54")).set_index("video_id")
    assert index.loc["00001", ["status", "n_frames"]].tolist() == ["present", 2]
    assert index.loc["00002", "status"].startswith("unreadable: image_00002_keypoints.json")
    assert index.loc["00003", "status"] == "missing"


def test_notes_of_all_sources_and_of_the_listing_stand_in_one_column_each_once():
    clip = {"frame_start": 1, "frame_end": -1, "fps": 25.0, "notes": "blurred"}
    contents = [Content("a", 9, notes="mirrored"), None, Content("b", 9, notes="blurred")]
    assert _row(clip, contents)["notes"] == "blurred; mirrored"
    assert _row(clip | {"notes": ""}, [None])["notes"] == ""


def test_what_is_odd_in_a_video_reaches_the_index_and_stops_nothing(tmp_path):
    root = annotated(tmp_path)
    (root / "videos").mkdir()
    for name in ("00001.ts", "00002.mp4", "00002.ts"):
        encode_video(root / "videos" / name, numbered_images(30), matrix=(-1, 0, 0, 1))
    index = build_index(study(root, sources=["videos"])).set_index("video_id")
    assert index["status"].tolist() == ["present", "present", "missing"]
    odd = "mirrored by its display matrix; not read: videos/00002.ts"
    assert index["notes"].tolist() == ["", odd, ""]  # a .ts file has no display matrix
    assert index.loc["00002", "path"].endswith(".mp4")  # of two files, the one whose suffix comes first


def test_nothing_found_says_what_was_looked_for_and_what_lies_there(tmp_path):
    root = with_hands(tmp_path, one=hands(4), two=hands(4))
    line = "hands: 0 of 3 official clips are there; looked for hands/00001 in [*].npz, found 2 others, such"
    with pytest.raises(StudyError, match=line) as error:
        build_index(study(root))
    assert str(error.value).startswith(f"{root}: ")
    for source in ("videos", "keypoints"):
        (root / source / "elsewhere").mkdir(parents=True)
        with pytest.raises(StudyError, match=rf"{source}: 0 of 3 official clips are there; looked for {source}/00001"):
            build_index(study(root, sources=[source], layout="openpose-54"))


def test_videos_are_found_without_leading_zeros_and_in_folders_of_glosses(tmp_path):
    root = annotated(tmp_path)
    encode_video(root / "videos" / "1.mp4", numbered_images(3))
    encode_video(root / "videos" / "book" / "00002.mp4", numbered_images(4))
    for name in ("3.mp4", "03.mp4", "book/00002.mkv"):
        encode_video(root / "videos" / name, numbered_images(5))
    index = build_index(study(root, sources=["videos"])).set_index("video_id")
    assert index["status"].tolist() == [
        "present", "present", "unreadable: 03 and 3 may each be clip 00003; give one of them this name",
    ]  # fmt: skip
    assert index["n_frames"].tolist()[:2] == [3, 4]
    assert index["notes"].tolist() == ["", "not read: videos/book/00002.mkv", ""]
    assert str(root) not in "".join(index["status"] + index["notes"])


def test_numbers_that_are_not_finite_are_missing_joints_and_noted(tmp_path):
    odd = hands(4)
    odd[1, 0, 5, 0], odd[1, 0, 6, 1], odd[3, 1, 0, 0] = np.nan, np.nan, np.inf
    odd[0, 0, :, 2] = np.nan  # depth, which no model reads
    root = with_hands(tmp_path, **{"00001": hands(40), "00002": odd})
    index = build_index(study(root)).set_index("video_id")
    assert index["status"].tolist() == ["present", "present", "missing"]
    assert index["notes"].tolist() == ["", "2 hands without a finite place, taken as missing", ""]
    people = [{"pose_keypoints_2d": [float("nan")] * 3 + [0.5] * 72}]
    for frame, content in enumerate([people, people, []], start=1):
        path = root / "keypoints" / "00001" / f"image_{frame:05d}_keypoints.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"people": content}))
    notes = build_index(study(root, sources=["keypoints"], layout="openpose-54"))["notes"]
    assert notes[0] == "joints without a finite place in 2 frames, taken as missing"


def test_sources_of_different_lengths_are_noted(tmp_path):
    root = with_hands(tmp_path, **{"00001": hands(4), "00002": hands(3)})
    for name in ("00001", "00002"):
        encode_video(root / "videos" / f"{name}.mp4", numbered_images(3))
    notes = build_index(study(root, sources=["videos", "hands"])).set_index("video_id")["notes"]
    assert notes.tolist() == ["3 and 4 frames in its sources, scaled", "", ""]


def test_absent_source_is_an_error_that_says_what_to_do(tmp_path):
    root = annotated(tmp_path)
    with pytest.raises(StudyError, match=r"hands is missing; put the hands there, or remove 'hands' from the study's"):
        build_index(study(root))
    (root / "hands").mkdir()
    with pytest.raises(StudyError, match=r"hands holds no .npz with hand landmarks"):
        build_index(study(root))
    with pytest.raises(StudyError, match=r"videos is missing; put the videos there"):
        build_index(study(root, sources=["videos"]))


def test_truncated_archive_is_named(tmp_path):
    root = with_hands(tmp_path, **{"00001": hands(40)})
    archive = root / "hands" / "hands.npz"
    archive.write_bytes(archive.read_bytes()[:400])
    with pytest.raises(StudyError, match=r"hands.npz: is not a readable .npz archive"):
        build_index(study(root))


def test_written_index_is_read_back_unchanged(tmp_path):
    root = with_hands(tmp_path, **{"00001": hands(4)})
    tiny = study(root, name="tiny", paths=Paths("tiny", root))
    index = build_index(tiny)
    tiny.paths.data.mkdir(parents=True)
    index.to_parquet(tiny.paths.index, index=False)
    again = read_index(tiny)
    pd.testing.assert_frame_equal(again.drop(columns="bbox"), index.drop(columns="bbox"))
    assert list(again["bbox"][0]) == [1, 2, 30, 40]
    assert again["bbox"][2] is None


def test_every_real_video_is_readable(wlasl_root):
    index = build_index(study(wlasl_root, subset=100, sources=["videos"]))
    assert index["status"].value_counts().to_dict() == {"missing": 2020, "present": 18}
    present = index[index["status"] == "present"]
    assert ((present["frame_start"] == 0) & (present["frame_end"] == present["n_frames"])).all()
