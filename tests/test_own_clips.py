"""Own clips: folders and clips.csv, and the index of such a study."""

import csv
import os
import random
import string
import unicodedata
from types import SimpleNamespace

import av
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import audited
from lib.data.audit import coverage
from lib.data.find import is_hidden
from lib.data.index import read_index
from lib.data.own_clips import ignored, name_missing, read_folder
from lib.data.sources import build_index, list_clips
from lib.data.wlasl import COLUMNS, SPLITS
from lib.figures import data as figures
from lib.paths import Paths
from lib.settings import StudyError


def touch(root, *paths):
    """A root with empty files in the place of clips."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def listing(root, *lines, header="path,gloss,signer,split"):
    (root / "clips.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return root


def write_video(path, frames=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(frames):
            image = np.full((32, 32, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def study(root, **other):
    fields = {"name": "own", "subset": 2, "sources": ["clips"], "split": "official", "drop_duplicates": False}
    return SimpleNamespace(root=root, paths=Paths("own", root / "home"), layout=None, **(fields | other))


def problem(root):
    with pytest.raises(StudyError) as error:
        read_folder(root)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(str(root)).removeprefix("/")


EVERY_SPLIT = [f"{split}/{gloss}/1.mp4" for split in SPLITS for gloss in ("yes", "no")]
LINES = ["a.mp4,yes,ann,train", "b.mp4,no,ann,train", "c.mp4,yes,bob,val", "d.mp4,no,cat,test"]


# ---- the three forms -----------------------------------------------------------------------------------


def test_folders_of_splits_and_glosses_give_labels_by_name_and_the_splits(tmp_path):
    touch(tmp_path, *EVERY_SPLIT, "train/yes/2.MKV", "train/yes/note.txt", "train/.hidden/1.mp4", "val/no/._1.mp4")
    table = read_folder(tmp_path)
    assert table["video_id"].tolist() == [
        "test-no-1", "train-no-1", "val-no-1", "test-yes-1", "train-yes-1", "train-yes-2", "val-yes-1",
    ]  # fmt: skip
    assert table["gloss"].tolist() == ["no"] * 3 + ["yes"] * 4
    assert table["label"].tolist() == [0] * 3 + [1] * 4
    assert table["split"].tolist() == ["test", "train", "val", "test", "train", "train", "val"]
    assert table["path"][5] == "train/yes/2.MKV"
    assert set(table["split_from"]) == {"given"}
    assert table.columns[: len(COLUMNS)].tolist() == list(COLUMNS)
    whole_file = table[["source", "frame_start", "frame_end", "fps"]].drop_duplicates()
    assert whole_file.to_numpy().tolist() == [["unknown", 1, -1, 25.0]]
    assert table[["signer", "bbox"]].isna().all(axis=None)


def test_folders_of_glosses_get_splits_by_file(tmp_path):
    table = read_folder(touch(tmp_path, *(f"{gloss}/{n}.webm" for gloss in ("yes", "no", "train") for n in range(10))))
    assert table["gloss"].unique().tolist() == ["no", "train", "yes"]
    assert pd.crosstab(table["gloss"], table["split"])[list(SPLITS)].to_numpy().tolist() == [[6, 2, 2]] * 3
    assert set(table["split_from"]) == {"file-disjoint"}


def test_split_whose_folder_is_absent_is_made_of_train(tmp_path):
    train = [f"train/{gloss}/{number}.mp4" for gloss in ("yes", "no") for number in range(5)]
    table = read_folder(touch(tmp_path, "test/yes/1.mp4", *train))
    of_train = table[table["path"].isin(train)]
    rest = table[~table["path"].isin(train)]
    assert rest[["split", "split_from"]].to_numpy().tolist() == [["test", "given"]]
    assert of_train.groupby(["gloss", "split"]).size().to_dict() == {
        ("no", "train"): 4, ("no", "val"): 1, ("yes", "train"): 4, ("yes", "val"): 1,
    }  # fmt: skip
    assert set(of_train["split_from"]) == {"file-disjoint"}


def test_listing_gives_signers_keeps_further_columns_and_text_as_it_is(tmp_path):
    lines = [*LINES[:3], '"sub dir/d, 1.mp4", NA ,cat,test,6m', "", ",,,,", "e.mp4,NA,007,train,1m"]
    rows = [line if line.count(",") > 3 or not line else f"{line}," for line in lines]
    listing(tmp_path, *rows, header="\ufeffpath,gloss,signer,split, distance")
    table = read_folder(tmp_path).set_index("video_id")
    assert table["gloss"].to_dict() == {"sub_dir-d_1": "NA", "e": "NA", "b": "no", "a": "yes", "c": "yes"}
    assert table["label"].tolist() == [0, 0, 1, 2, 2]
    assert table["signer"].to_dict()["e"] == "007"
    assert table["distance"].to_dict() == {"sub_dir-d_1": "6m", "e": "1m", "b": "", "a": "", "c": ""}
    assert table.loc["sub_dir-d_1", "path"] == "sub dir/d, 1.mp4"


def test_listing_alone_decides_which_files_are_clips_and_source_is_kept(tmp_path):
    touch(tmp_path, *EVERY_SPLIT)
    lines = [f"{gloss}{number}.mp4,{gloss},lab" for gloss in ("yes", "no") for number in range(3)]
    table = read_folder(listing(tmp_path, *lines, header="path,gloss,source"))
    assert len(table) == 6
    assert set(table["source"]) == {"lab"}
    assert table["signer"].isna().all()
    assert set(table["split_from"]) == {"file-disjoint"}


def test_paths_that_give_one_name_get_a_hash_each_and_names_are_fit_for_files(tmp_path):
    paths = ["a/b.mp4", "a-b.mp4", "a/B.mkv", "ü/../ü.mp4", f"{'x' * 300}.mp4", "...mp4", "☺.mp4"]
    table = read_folder(listing(tmp_path, *(f"{path},yes,," for path in paths)))
    ids = table.set_index("path")["video_id"]
    assert [ids[path][:-8] for path in paths[:3]] == ["a-b-", "a-b-", "a-B-"]
    assert ids["ü.mp4"] == "ü"
    assert ids.str.casefold().is_unique
    assert ids.str.len().between(1, 60).all()
    assert not ids.str.contains(r"[/\\\s☺]|^\.").any()


def test_name_of_a_clip_does_not_depend_on_the_others(tmp_path):
    few = read_folder(touch(tmp_path, *EVERY_SPLIT)).set_index("path")["video_id"]
    touch(tmp_path, "train/yes/2.mp4", "val/maybe/1.mp4", "train/maybe/1.mp4")
    more = read_folder(tmp_path).set_index("path")["video_id"]
    assert few.to_dict() == more[few.index].to_dict()


# ---- what is wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], ": there is no clip; see data/README.md"),
        (["notes/a.txt"], ": there is no clip"),
        (["train/a.mp4", "val/b.mp4"], ": train/a.mp4 is not <split>/<gloss>/<clip>; move the file"),
        ([*EVERY_SPLIT, "a.mp4"], ": a.mp4 is not <split>/<gloss>/<clip>"),
        ([*EVERY_SPLIT, "train/yes/more/a.mp4"], ": train/yes/more/a.mp4 is not <split>/<gloss>/<clip>"),
        (["yes/a.mp4", "yes/b.mp4", "c.mp4"], ": c.mp4 is not <gloss>/<clip>"),
        ([*EVERY_SPLIT, "dev/yes/1.mp4"], ": folder 'dev' is not a split; rename it to train, val or test"),
        ([*EVERY_SPLIT[:4], "test/readme.txt"], "test: holds no clip; add some, or remove it"),
        ([*EVERY_SPLIT, "val/maybe/1.mp4"], ": gloss 'maybe' has clips in val but none in train (1 such)"),
        (["test/yes/1.mp4", "test/no/1.mp4", "val/yes/1.mp4"], ": split 'train' has no clip"),
        (["yes/1.mp4", "yes/2.mp4", "no/1.mp4"], ": split 'val' has no clip; add some (to make splits"),
    ],
)  # fmt: skip
def test_wrong_folder_is_one_line_that_says_what_to_do(tmp_path, paths, message):
    assert problem(touch(tmp_path, *paths)).startswith(message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "clips.csv: there is no clip"),
        ([*LINES, "e.mp4,,ann,train"], "clips.csv, line 6, column 'gloss': is empty; fill it in"),
        ([*LINES, "e.mp4,yes,ann,dev"], "clips.csv, line 6, column 'split': 'dev' is not train, val or test"),
        ([*LINES, ",yes,ann,train"], "clips.csv, line 6, column 'path': '' is not inside the folder"),
        ([*LINES, "x/../../e.mp4,yes,,"], "clips.csv, line 6, column 'path': 'x/../../e.mp4' is not inside"),
        ([*LINES, "/e.mp4,yes,ann,train"], "clips.csv, line 6, column 'path': '/e.mp4' is not inside"),
        ([*LINES, ".,yes,ann,train"], "clips.csv, line 6, column 'path': '.' is not inside"),
        ([*LINES, "x/..//a.mp4,no,,"], "clips.csv, line 6, column 'path': 'a.mp4' is in line 2, too; remove one"),
        ([*LINES, "e.mp4,yes,ann"], "clips.csv, line 6: has 3 fields, the header 4"),
        ([*LINES, "e.mp4,yes,no,ann,train"], "clips.csv, line 6: has 5 fields, the header 4"),
        ([*LINES, '"e.mp4,yes,ann,train'], "clips.csv, line 6: unexpected end of data"),
        ([*LINES, "e.mp4,maybe,ann,test"], ": gloss 'maybe' has clips in test but none in train"),
        (["a.mp4,yes,ann,test", "b.mp4,no,bob,test"], ": split 'train' has no clip"),
    ],
)
def test_wrong_line_is_one_line_that_names_it_and_the_column(tmp_path, lines, message):
    assert problem(listing(tmp_path, *lines)).startswith(message)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "column 'path' is missing, the first line has nothing"),
        ("path,sign", "column 'gloss' is missing, the first line has path, sign"),
        ("path;gloss", "column 'path' is missing, the first line has path;gloss; add it, after a comma"),
        ("path,gloss,gloss", "column 'gloss' appears twice; rename or remove it"),
        (",path,gloss", "column 1 has no name; rename or remove it"),
        ("path,gloss,label", "the name of column 'label' is reserved for the index; rename or remove it"),
    ],
)
def test_wrong_header_names_the_column(tmp_path, header, message):
    assert problem(listing(tmp_path, header=header)).startswith(f"clips.csv: {message}")


def test_listing_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "clips.csv").write_bytes("path,gloss\na.mp4,grün\n".encode("latin-1"))
    assert problem(tmp_path).startswith("clips.csv: is not UTF-8 (invalid")


text = st.text(string.ascii_letters + ' ,"/.;\n\t\r\0ü\ufeff', max_size=8)


@settings(max_examples=60)
@given(lines=st.lists(st.lists(text, max_size=5), max_size=6), head=st.sampled_from(["path,gloss", "gloss,path,split"]))
def test_any_listing_is_a_table_or_a_one_line_error(tmp_path_factory, lines, head):
    root = tmp_path_factory.mktemp("own")
    listing(root, *(",".join(fields) for fields in lines), header=head)
    try:
        outcome = read_folder(root)["video_id"]
    except StudyError as error:
        outcome = str(error).removeprefix(str(root)).splitlines()
    assert outcome.is_unique if isinstance(outcome, pd.Series) else len(outcome) == 1


name = st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="/"), min_size=1, max_size=6)


@settings(max_examples=25)
@given(
    drawn=st.lists(st.tuples(name, name, name, name), min_size=1, max_size=12, unique_by=lambda row: row[0]),
    shuffle=st.integers(0, 99),
)
def test_listing_of_any_names_in_any_order_gives_the_same_clips(tmp_path_factory, drawn, shuffle):
    # Three clips a gloss, so that every split can have one.
    rows = [[f"{path}/{part}.mp4", *fields] for path, *fields in drawn for part in "abc"]
    tables = []
    for number in (None, shuffle):
        if number is not None:
            random.Random(number).shuffle(rows)
        root = tmp_path_factory.mktemp("own")
        with (root / "clips.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["path", "gloss", "signer", "more"], *rows])
        tables.append(read_folder(root))
    pd.testing.assert_frame_equal(*tables)
    assert len(tables[0]) == len(rows)
    assert tables[0]["video_id"].str.casefold().is_unique
    assert tables[0]["gloss"].map(sorted(set(tables[0]["gloss"])).index).tolist() == tables[0]["label"].tolist()
    assert set(tables[0]["split"]) == set(SPLITS)


# ---- names as systems write them, and what lies beside the clips ----------------------------------------


def test_paths_in_another_unicode_form_and_with_backslashes_are_found_under_the_same_name(tmp_path):
    lines = [*LINES, "videos\\mañana.mp4,año,,train", "videos/Zu\u0308rich.mp4,an\u0303o,ñ,train"]
    tables = []
    for number, (form, rows) in enumerate([("NFC", lines), ("NFD", lines), ("NFC", map(decomposed, lines))]):
        names = ("a.mp4", "videos/mañana.mp4", "videos/Zürich.mp4")
        root = touch(tmp_path / str(number), *(unicodedata.normalize(form, name) for name in names))
        tables.append(read_folder(listing(root, *rows)))
        assert name_missing(root, 9) == [
            f"clips.csv, line {n}: {name}.mp4" for n, name in ((3, "b"), (4, "c"), (5, "d"))
        ]
        assert sum((root / path).is_file() for path in tables[-1]["path"]) == 3
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table.drop(columns="path"), tables[0].drop(columns="path"))
    assert {"videos-mañana", "videos-Zürich"} < set(tables[0]["video_id"])
    assert tables[0]["gloss"].value_counts()["año"] == 2


def decomposed(text):
    return unicodedata.normalize("NFD", text)


def test_folders_in_any_unicode_form_give_the_same_clips_and_splits(tmp_path):
    paths = [f"{gloss}/clip{n}é.mp4" for gloss in ("mañana", "yes") for n in range(9)]
    composed, other = (
        read_folder(touch(tmp_path / "c", *paths)),
        read_folder(touch(tmp_path / "d", *map(decomposed, paths))),
    )
    pd.testing.assert_frame_equal(composed.drop(columns="path"), other.drop(columns="path"))
    assert other["path"].map(lambda path: (tmp_path / "d" / path).is_file()).all()


def test_two_files_whose_names_differ_in_their_unicode_form_alone_are_two_clips(tmp_path):
    touch(tmp_path, *EVERY_SPLIT, "train/yes/ñ.mp4", decomposed("train/yes/ñ.mp4"))
    table = read_folder(tmp_path)
    assert len(table) == 8
    assert table["video_id"].is_unique


def test_mistyped_lines_are_named_in_the_audit_with_the_file_that_may_be_meant(tmp_path):
    write_video(tmp_path / "videos" / "hello9.mp4")
    for name in ("a.mp4", "c.mp4", "d.mp4"):
        write_video(tmp_path / name)
    lines = [*LINES, "videos/helo9.mp4,yes,,train", "nothing/like/it.mp4,yes,,train"]
    table = audited(build_index(study(listing(tmp_path, *lines))), study(tmp_path))
    assert table.loc["clips_missing"].tolist() == [3, (
        "clips.csv, line 3: b.mp4; clips.csv, line 6: videos/helo9.mp4 (did you mean 'videos/hello9.mp4'?); "
        "clips.csv, line 7: nothing/like/it.mp4"
    )]  # fmt: skip
    listing(tmp_path, *lines, "videos/hello9.mp4,yes,,train")  # then that is not what line 6 means
    assert name_missing(tmp_path, 9)[1] == "clips.csv, line 6: videos/helo9.mp4"
    assert name_missing(tmp_path, 0)[1:] == [
        f"clips.csv, line {n}" for n in ("6: videos/helo9.mp4", "7: nothing/like/it.mp4")
    ]


def test_files_that_are_no_clips_are_counted_in_the_audit_with_an_example(tmp_path):
    for path in EVERY_SPLIT:
        write_video(tmp_path / path)
    touch(tmp_path, "README.txt", "train/yes/a.txt", "train/yes/b.TXT", "train/no/notes", "train/no/.DS_Store")
    touch(tmp_path, "val/no/Thumbs.db", "val/no/._1.mp4", "val/frames/1.bmp")
    (tmp_path / "val/no" / os.fsdecode(b"\xff.doc")).touch()
    table = audited(build_index(study(tmp_path)), study(tmp_path))
    assert table.loc["files_ignored"].tolist() == [5, (
        "1 (no suffix), such as train/no/notes; 1 .bmp, such as val/frames/1.bmp; 1 .doc, such as val/no/\ufffd.doc; "
        "2 .txt, such as train/yes/a.txt"
    )]  # fmt: skip
    listing(tmp_path, "train/yes/1.mp4,yes,,train", "train/no/1.mp4,no,,val", "nowhere/1.mp4,no,,train")
    touch(tmp_path, "train/yes/2.mp4")
    assert ignored(tmp_path) == ["train/no/notes", "train/yes/2.mp4", "train/yes/a.txt", "train/yes/b.TXT"]


def test_a_folder_with_other_files_alone_says_so(tmp_path):
    assert problem(touch(tmp_path, "yes/a.bmp")).startswith(": there is no clip, only files such as 'yes/a.bmp'; see")


entry = st.lists(st.sampled_from(["train", "val", "test", "yes", "no", ".x", "ñ"]), max_size=4).map("/".join)
leaf = st.sampled_from(["a.mp4", "b.MOV", "._a.mp4", "Thumbs.db", "a.txt", "n\u0303.mp4", "noext", ".mp4"])


@settings(max_examples=150)
@given(files=st.lists(st.tuples(entry, leaf), min_size=1, max_size=14), whole=st.booleans())
def test_in_any_tree_each_visible_file_is_a_clip_or_ignored_or_the_problem_is_one_line(tmp_path_factory, files, whole):
    root = tmp_path_factory.mktemp("tree")
    paths = {f"{folder}/{name}".lstrip("/") for folder, name in files} | set(EVERY_SPLIT if whole else ())
    touch(root, *paths)
    try:
        clips, message = set(read_folder(root)["path"]), "one line"
    except StudyError as error:
        clips, message = None, str(error)
    assert len(message.splitlines()) == 1
    if clips is None:
        return
    visible = {path for path in paths if not any(is_hidden(part) for part in path.split("/"))}
    at_the_top = {path for path in visible if "/" not in path}
    assert clips | set(ignored(root)) | at_the_top == visible
    assert {path for path in visible if path.lower().endswith((".mp4", ".mov"))} == clips
    assert name_missing(root, 9) == []


file_name = st.text(st.sampled_from("aäñÅ가é- "), min_size=1, max_size=4).map(lambda name: f"x{name}x.mp4")
row = st.tuples(
    file_name, st.sampled_from(["NFC", "NFD"]), st.sampled_from(["NFC", "NFD"]), st.sampled_from("/\\"), st.booleans()
)


@settings(max_examples=60)
@given(rows=st.lists(row, min_size=6, max_size=9, unique_by=lambda row: unicodedata.normalize("NFC", row[0])))
def test_each_listed_clip_is_found_or_named_by_its_line(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("own")
    for name, on_disk, _, _, there in rows:
        touch(root, *([f"ü/{unicodedata.normalize(on_disk, name)}"] if there else []))
    splits = [*["train"] * 4, "val", "test", *[""] * 3]
    lines = [
        f"ü{slash}{unicodedata.normalize(form, name)},{gloss},,{split}"
        for (name, _, form, slash, _), gloss, split in zip(rows, ["no", "yes"] * 5, splits, strict=False)
    ]
    table = read_folder(listing(root, *lines))
    assert len(table) == len(rows)
    found = table["path"].map(lambda path: (root / path).is_file())
    assert found.sum() == sum(there for *_, there in rows)
    named = [line.split(": ")[0] for line in name_missing(root, 9)]
    assert named == [f"clips.csv, line {n + 2}" for n, (*_, there) in enumerate(rows) if not there]


# ---- the index -----------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """A root with two clips, the same clip again, a file that is no video, and one that is listed but absent."""
    write_video(tmp_path / "a.mp4", 6)
    write_video(tmp_path / "b.avi", 9)
    (tmp_path / "c.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    (tmp_path / "d.mp4").write_text("no video")
    return listing(tmp_path, *LINES[:1], "b.avi,no,ann,train", *LINES[2:], "gone.mp4,yes,cat,test")


def test_index_has_every_clip_with_its_status_and_the_columns_of_wlasl(own):
    index = build_index(study(own)).set_index("video_id")
    assert index["status"].to_dict() == {
        "a": "present", "b": "present", "c": "present", "gone": "missing",
        "d": index.loc["d", "status"],
    }  # fmt: skip
    assert index.loc["d", "status"].startswith("unreadable: cannot be opened as a video")
    assert str(own) not in "".join(index["status"])
    present = index.loc[["a", "b"], ["frame_start", "frame_end", "n_frames", "fps"]]
    assert present.to_numpy().tolist() == [[0, 6, 6, 10.0], [0, 9, 9, 10.0]]
    assert index["path"].to_dict() == {n: str(own / f"{n}.mp4") for n in "acd"} | {"b": str(own / "b.avi"), "gone": ""}
    assert index.loc["a", "content"] == index.loc["c", "content"] != index.loc["b", "content"]
    assert index["signer"].to_dict() == {"a": "ann", "b": "ann", "c": "bob", "d": "cat", "gone": "cat"}


def test_index_of_own_clips_is_written_and_read_back_unchanged(own):
    tiny = study(own)
    index = build_index(tiny)
    tiny.paths.data.mkdir(parents=True)
    index.to_parquet(tiny.paths.index, index=False)
    pd.testing.assert_frame_equal(read_index(tiny), index)


def test_audit_and_figures_work_on_own_clips_with_and_without_signers(own):
    index = build_index(study(own))
    table = audited(index, study(own))
    assert table.loc["duplicate_groups_across_splits", "detail"] == "a yes (train) = c yes (val)"
    assert table.loc["test_signers", "detail"] == "cat"
    assert table.loc["splits_made", "count"] == 0
    assert figures.signers(index).axes[0].get_title(loc="left").startswith("1 signers in test, 0 of them also in train")
    unknown = index.assign(signer=index["signer"].mask(index["signer"].notna()))
    assert figures.signers(unknown).axes[0].get_title(loc="left").startswith("The annotations name no signer")
    assert coverage(index)["official"].iloc[0] == 5


def test_signer_disjoint_study_shares_the_clips_out_anew(tmp_path):
    lines = [f"{who}{gloss}.mp4,{gloss},{who},{SPLITS[int(who) % 3]}" for who in "012345" for gloss in ("no", "yes")]
    touch(listing(tmp_path, *lines), "0no.mp4")
    index = build_index(study(tmp_path, split="signer-disjoint"))
    assert index.groupby("signer")["split"].nunique().eq(1).all()
    assert set(index["split_from"]) == {"signer-disjoint"}
    listing(tmp_path, *(f"{n}.mp4,{gloss},," for gloss in ("no", "yes") for n in (f"{gloss}{i}" for i in range(4))))
    touch(tmp_path, "no0.mp4")
    with pytest.raises(StudyError, match="own clips: the column signer"):
        build_index(study(tmp_path, split="signer-disjoint"))


def test_other_number_of_glosses_than_the_study_says_is_an_error(own):
    with pytest.raises(StudyError, match=r"holds 2 glosses \(no, yes\), the study asks for 3; correct"):
        list_clips(study(own, subset=3))


def test_listing_of_files_that_are_all_elsewhere_is_an_error(tmp_path):
    with pytest.raises(StudyError, match=r"clips.csv: none of the 4 clips exists, for example line 2: a.mp4; write"):
        list_clips(study(listing(tmp_path, *LINES)))


def test_index_of_the_real_gestures(repository):
    root = repository.parent / "shared" / "gestures"
    if not root.is_dir():
        pytest.skip("the gestures are not here")
    table = read_folder(root)
    assert table["split"].value_counts().to_dict() == {"train": 270, "val": 45, "test": 45}
    assert table["gloss"].nunique() == 15
    assert table.groupby("signer")["split"].nunique().eq(1).all()
    assert table["distance"].value_counts().to_dict() == {"1m": 120, "4m": 120, "6m": 120}
