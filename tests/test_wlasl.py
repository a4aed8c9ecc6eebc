"""Annotation files, frame numbers and the index of WLASL."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.index import build_index, read_index, to_file_frames, write_index
from lib.data.wlasl import PUBLISHED_COUNTS, SPLITS, disagreements, read_annotations
from lib.settings import StudyError

SAME_IN_BOTH = ["video_id", "gloss", "label", "split", "frame_start", "frame_end", "fps"]


def instance(video_id, split="train", start=1, end=-1, **other):
    fields = {"video_id": video_id, "split": split, "frame_start": start, "frame_end": end, "fps": 25}
    return fields | {"bbox": [1, 2, 30, 40], "signer_id": 7, "source": "aslu", "url": ""} | other


def rich_file(glosses):
    return [{"gloss": gloss, "instances": clips} for gloss, clips in glosses.items()]


def nslt_file(glosses):
    return {
        clip["video_id"]: {"subset": clip["split"], "action": [label, clip["frame_start"], clip["frame_end"]]}
        for label, clips in enumerate(glosses.values())
        for clip in clips
    }


def write(root, *, rich=None, nslt=None, glosses=("book", "all"), subset=2):
    folder = Path(root) / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    if rich is not None:
        (folder / f"WLASL{subset}.json").write_text(json.dumps(rich))
    if nslt is not None:
        (folder / f"nslt_{subset}.json").write_text(json.dumps(nslt))
    if glosses:
        lines = [f"{label}\t{gloss}" for label, gloss in enumerate(glosses)]
        (folder / "wlasl_class_list.txt").write_text("\n".join(lines) + "\n")
    return Path(root)


def study(root, **other):
    fields = {"name": "tiny", "subset": 2, "sources": ["hands"], "split": "official", "layout": "hands-42"}
    paths = {"root": Path(root), "paths": SimpleNamespace(index=Path(root) / "out" / "index.parquet")}
    return SimpleNamespace(**(fields | {"drop_duplicates": False} | paths | other))


TWO_GLOSSES = {
    "book": [instance("00002"), instance("00001", "test", 11, 40, signer_id=3)],
    "all": [instance("00003", "val", signer_id=-1, bbox=None)],
}


# ---- annotation files ----------------------------------------------------------------------------------


def test_rich_file_alone_gives_signer_box_and_source(tmp_path):
    table = read_annotations(write(tmp_path, rich=rich_file(TWO_GLOSSES), glosses=()), 2)
    first = table.iloc[0]
    assert table["video_id"].tolist() == ["00001", "00002", "00003"]
    assert (first["gloss"], first["label"], first["split"], first["signer"]) == ("book", 0, "test", 3)
    assert (first["frame_start"], first["frame_end"], first["fps"]) == (11, 40, 25.0)
    assert first["bbox"] == [1, 2, 30, 40]
    assert first["source"] == "aslu"


def test_negative_signer_and_absent_box_are_unknown(tmp_path):
    last = read_annotations(write(tmp_path, rich=rich_file(TWO_GLOSSES)), 2).iloc[2]
    assert last["signer"] is pd.NA
    assert last["bbox"] is None


def test_nslt_alone_takes_glosses_from_the_class_list_and_knows_no_signer(tmp_path):
    table = read_annotations(write(tmp_path, nslt=nslt_file(TWO_GLOSSES)), 2)
    assert table["gloss"].tolist() == ["book", "book", "all"]
    assert table["signer"].isna().all()
    assert (table["source"] == "unknown").all()
    assert table["bbox"].isna().all()


clip_fields = st.tuples(
    st.integers(0, 3), st.sampled_from(SPLITS), st.integers(1, 9999), st.integers(0, 500), st.booleans()
)


@settings(max_examples=30)  # writes and reads files, whose time varies
@given(fields=st.lists(clip_fields, min_size=1, max_size=12), order=st.randoms())
def test_rich_and_nslt_made_from_the_same_records_give_the_same_table(tmp_path_factory, fields, order):
    names = ("book", "all", "no", "none")
    glosses = {name: [] for name in names}
    for number, (label, split, start, length, to_the_end) in enumerate(fields):
        end = -1 if to_the_end else start + length
        glosses[names[label]].append(instance(f"{number:05d}", split, start, end))
    pairs = list(nslt_file(glosses).items())
    order.shuffle(pairs)
    roots = [tmp_path_factory.mktemp(name) for name in ("rich", "nslt", "both")]
    write(roots[0], rich=rich_file(glosses), glosses=(), subset=4)
    write(roots[1], nslt=dict(pairs), glosses=names, subset=4)
    write(roots[2], rich=rich_file(glosses), nslt=dict(pairs), glosses=(), subset=4)
    rich, nslt, both = (read_annotations(root, 4) for root in roots)
    pd.testing.assert_frame_equal(rich[SAME_IN_BOTH], nslt[SAME_IN_BOTH])
    pd.testing.assert_frame_equal(rich, both)
    assert len(rich) == len(fields)
    assert disagreements(roots[2], 4).empty


def test_nslt_decides_split_and_clips_where_a_rich_file_disagrees_and_both_are_listed(tmp_path):
    nslt = nslt_file(TWO_GLOSSES)
    nslt["00002"]["subset"] = "val"
    del nslt["00003"]
    nslt["00009"] = {"subset": "test", "action": [1, 1, 50]}
    root = write(tmp_path, rich=rich_file(TWO_GLOSSES), nslt=nslt)
    table = read_annotations(root, 2).set_index("video_id")
    assert table["split"].to_dict() == {"00001": "test", "00002": "val", "00009": "test"}
    assert table.loc["00002", "signer"] == 7
    assert table.loc["00009", "gloss"] == "all"
    listed = disagreements(root, 2).set_index("video_id")
    assert listed["field"].to_dict() == {"00002": "split", "00003": "clip", "00009": "clip"}
    assert listed.loc["00002", "values"] == "train / val"
    assert listed.loc["00003", "values"] == "val / absent"


def test_files_that_give_a_clip_two_classes_are_refused(tmp_path):
    nslt = nslt_file(TWO_GLOSSES)
    nslt["00002"]["action"][0] = 1
    with pytest.raises(StudyError, match=r"WLASL2.json and nslt_2.json give clip 00002 class 0 and 1"):
        read_annotations(write(tmp_path, rich=rich_file(TWO_GLOSSES), nslt=nslt), 2)


def test_v03_is_cut_to_the_first_glosses_of_the_subset(tmp_path):
    root = write(tmp_path, rich=rich_file(TWO_GLOSSES))
    (root / "annotations" / "WLASL2.json").rename(root / "annotations" / "WLASL_v0.3.json")
    assert read_annotations(root, 1)["gloss"].unique().tolist() == ["book"]


def test_withdrawn_clips_of_the_nslt_files_are_left_out(tmp_path):
    nslt = nslt_file(TWO_GLOSSES) | {"20065": {"subset": "val", "action": [1, 1, 209]}}
    assert "20065" not in set(read_annotations(write(tmp_path, nslt=nslt), 2)["video_id"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, "WLASL2.json: at 0 instances 0 split: .*'train', 'val' or 'test'"),
        ({"frame_start": "1"}, "WLASL2.json: at 0 instances 0 frame_start: .*integer"),
        ({"frame_start": 9, "frame_end": 3}, "WLASL2.json: clip 00002 runs from frame 9 to 3"),
        ({"fps": 0}, "WLASL2.json: at 0 instances 0 fps"),
        ({"bbox": [1, 2, 3]}, "WLASL2.json: at 0 instances 0 bbox"),
        ({"video_id": "00001"}, "WLASL2.json: clip 00001 stands more than once"),
    ],
)
def test_wrong_field_of_a_rich_file_is_named(tmp_path, change, message):
    glosses = {"book": [TWO_GLOSSES["book"][0] | change, TWO_GLOSSES["book"][1]], "all": TWO_GLOSSES["all"]}
    with pytest.raises(StudyError, match=message):
        read_annotations(write(tmp_path, rich=rich_file(glosses)), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subset": "dev"}, "nslt_2.json: at 00001 subset"),
        ({"action": [2, 1, 9]}, "nslt_2.json: clip 00001 has class 2, the classes of this subset are 0 to 1"),
        ({"action": [0, 1]}, "nslt_2.json: at 00001 action"),
        ({"action": [0, 0, 9]}, "nslt_2.json: clip 00001 runs from frame 0 to 9"),
    ],
)
def test_wrong_field_of_an_nslt_file_is_named(tmp_path, change, message):
    nslt = nslt_file(TWO_GLOSSES)
    nslt["00001"] |= change
    with pytest.raises(StudyError, match=message):
        read_annotations(write(tmp_path, nslt=nslt), 2)


def test_broken_json_is_named(tmp_path):
    root = write(tmp_path, rich=[])
    (root / "annotations" / "WLASL2.json").write_text('[{"gloss": "book", "inst')
    with pytest.raises(StudyError, match=r"WLASL2.json: Invalid JSON.*download it again") as error:
        read_annotations(root, 2)
    assert "\n" not in str(error.value)


def test_absent_annotations_and_class_list_are_named(tmp_path):
    with pytest.raises(StudyError, match=r"neither WLASL_v0.3.json, WLASL2.json nor nslt_2.json"):
        read_annotations(tmp_path, 2)
    with pytest.raises(StudyError, match=r"wlasl_class_list.txt is missing"):
        read_annotations(write(tmp_path, nslt=nslt_file(TWO_GLOSSES), glosses=()), 2)


def test_damaged_class_list_line_is_named(tmp_path):
    root = write(tmp_path, nslt=nslt_file(TWO_GLOSSES))
    (root / "annotations" / "wlasl_class_list.txt").write_text("0\tbook\n2\tall\n")
    with pytest.raises(StudyError, match=r"wlasl_class_list.txt, line 2"):
        read_annotations(root, 2)


def test_file_with_too_few_glosses_is_refused(tmp_path):
    root = write(tmp_path, rich=rich_file(TWO_GLOSSES), subset=3)
    with pytest.raises(StudyError, match=r"WLASL3.json: holds 2 glosses, the study asks for 3"):
        read_annotations(root, 3)


@pytest.mark.parametrize("subset", PUBLISHED_COUNTS)
def test_official_counts_of_the_real_files(wlasl_root, subset):
    splits = read_annotations(wlasl_root, subset)["split"].value_counts()
    assert tuple(splits[list(SPLITS)]) == PUBLISHED_COUNTS[subset]


@pytest.mark.parametrize("subset", [100, 300])
def test_real_rich_and_nslt_files_agree_on_clip_gloss_and_split(wlasl_root, subset, tmp_path):
    tables = []
    for number, names in enumerate([(f"WLASL{subset}.json",), (f"nslt_{subset}.json", "wlasl_class_list.txt")]):
        folder = tmp_path / str(number) / "annotations"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).symlink_to((wlasl_root / "annotations" / name).resolve())
        tables.append(read_annotations(folder.parent, subset)[["video_id", "gloss", "label", "split"]])
    pd.testing.assert_frame_equal(*tables)


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
    write(root, rich=rich_file(TWO_GLOSSES))
    (root / "hands").mkdir()
    np.savez(root / "hands" / "hands.npz", **arrays)
    return root


def test_index_has_every_official_clip_with_its_status(tmp_path):
    root = with_hands(tmp_path, **{"00001": hands(40), "00002": np.zeros((3, 7)), "99999": hands(2)})
    index = build_index(study(root)).set_index("video_id")
    assert index.index.tolist() == ["00001", "00002", "00003"]
    assert index.loc["00001", "status"] == "present"
    assert index.loc["00002", "status"].startswith("unreadable: 00002 has shape (3, 7)")
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
    (root / "videos").mkdir()
    index = build_index(study(root, sources=["hands", "videos"])).set_index("video_id")
    assert index.loc["00001", "status"] == "missing"
    assert index.loc["00001", "n_frames"] == 4


def test_keypoints_are_read_to_the_end_and_a_broken_frame_is_named_without_its_folder(tmp_path):
    root = write(tmp_path, rich=rich_file(TWO_GLOSSES))
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


def test_absent_source_is_an_error_that_says_what_to_do(tmp_path):
    root = write(tmp_path, rich=rich_file(TWO_GLOSSES))
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
    tiny = study(with_hands(tmp_path, **{"00001": hands(4)}))
    index = build_index(tiny)
    write_index(index, tiny)
    again = read_index(tiny)
    pd.testing.assert_frame_equal(again.drop(columns="bbox"), index.drop(columns="bbox"))
    assert list(again["bbox"][0]) == [1, 2, 30, 40]
    assert again["bbox"][2] is None
    assert [path.name for path in tiny.paths.index.parent.iterdir()] == ["index.parquet"]


def test_absent_index_names_the_notebook_that_writes_it(tmp_path):
    with pytest.raises(StudyError, match=r"index.parquet is missing; run notebooks/01_dataset.ipynb"):
        read_index(study(tmp_path))


def test_every_real_video_is_readable(wlasl_root):
    index = build_index(study(wlasl_root, subset=100, sources=["videos"]))
    assert index["status"].value_counts().to_dict() == {"missing": 2020, "present": 18}
    present = index[index["status"] == "present"]
    assert ((present["frame_start"] == 0) & (present["frame_end"] == present["n_frames"])).all()
