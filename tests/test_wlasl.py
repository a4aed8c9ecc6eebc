"""WLASL's annotation files."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.wlasl import PUBLISHED_COUNTS, SPLITS, WITHDRAWN, disagreements, read_annotations, read_outside
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


TWO_GLOSSES = {
    "book": [instance("00002"), instance("00001", "test", 11, 40, signer_id=3)],
    "all": [instance("00003", "val", signer_id=-1, bbox=None)],
}


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
        ({"split": "dev"}, r"WLASL2.json: key '\[0\].instances\[0\].split': .*'train', 'val' or 'test'"),
        ({"frame_start": "1"}, r"WLASL2.json: key '\[0\].instances\[0\].frame_start': .*integer"),
        ({"frame_start": 9, "frame_end": 3}, "WLASL2.json: clip 00002 runs from frame 9 to 3"),
        ({"fps": 0}, r"WLASL2.json: key '\[0\].instances\[0\].fps'"),
        ({"bbox": [1, 2, 3]}, r"WLASL2.json: key '\[0\].instances\[0\].bbox'"),
        ({"bbox": [1, 2, 3, 2**70]}, r"WLASL2.json: key '\[0\].instances\[0\].bbox\[3\]'"),
        ({"frame_start": 2**70}, r"WLASL2.json: key '\[0\].instances\[0\].frame_start'"),
        ({"signer_id": 2**70}, r"WLASL2.json: key '\[0\].instances\[0\].signer_id'"),
        ({"fps": 1e-300}, r"WLASL2.json: key '\[0\].instances\[0\].fps'"),
        ({"fps": float("inf")}, r"WLASL2.json: key '\[0\].instances\[0\].fps'"),
        ({"fps": float("nan")}, r"WLASL2.json: key '\[0\].instances\[0\].fps'"),
        ({"video_id": "00001"}, "WLASL2.json: clip 00001 appears more than once"),
    ],
)
def test_wrong_field_of_a_rich_file_is_named(tmp_path, change, message):
    glosses = {"book": [TWO_GLOSSES["book"][0] | change, TWO_GLOSSES["book"][1]], "all": TWO_GLOSSES["all"]}
    with pytest.raises(StudyError, match=message):
        read_annotations(write(tmp_path, rich=rich_file(glosses)), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subset": "dev"}, "nslt_2.json: key '00001.subset'"),
        ({"action": [2, 1, 9]}, "nslt_2.json: clip 00001 has class 2, the classes of this subset are 0 to 1"),
        ({"action": [0, 1]}, "nslt_2.json: key '2' is missing in 00001.action"),
        ({"action": [0, 1, 2**70]}, r"nslt_2.json: key '00001.action\[2\]'"),
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


@pytest.mark.parametrize("kind", ["rich", "nslt"])
def test_a_byte_order_mark_changes_nothing(tmp_path, kind):
    files = {"rich": rich_file(TWO_GLOSSES), "nslt": nslt_file(TWO_GLOSSES)}
    plain, marked = (write(tmp_path / name, **{kind: files[kind]}) for name in ("plain", "marked"))
    for path in (marked / "annotations").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    pd.testing.assert_frame_equal(read_annotations(marked, 2), read_annotations(plain, 2))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
@pytest.mark.parametrize("name", ["WLASL2.json", "nslt_2.json", "wlasl_class_list.txt"])
def test_another_encoding_is_named_with_what_to_do(tmp_path, encoding, name):
    files = {"rich": rich_file(TWO_GLOSSES)} if name.startswith("WLASL") else {"nslt": nslt_file(TWO_GLOSSES)}
    path = write(tmp_path, **files) / "annotations" / name
    path.write_bytes((path.read_text() + "é").encode(encoding))
    with pytest.raises(StudyError, match=rf"{name}: is not UTF-8 \(.* at byte .*\); save it as UTF-8"):
        read_annotations(tmp_path, 2)


def test_files_that_systems_leave_beside_the_annotations_are_not_read(tmp_path):
    root = write(tmp_path, nslt=nslt_file(TWO_GLOSSES))
    for path in list((root / "annotations").iterdir()):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert len(read_annotations(root, 2)) == 3


@pytest.mark.parametrize("rich", [True, False])
def test_two_glosses_of_one_name_are_refused(tmp_path, rich):
    clips = [{"gloss": gloss, "instances": []} for gloss in ("book", "all", "book")]
    clips[0]["instances"] = TWO_GLOSSES["book"]
    files = {"rich": clips} if rich else {"nslt": nslt_file(TWO_GLOSSES)}
    root = write(tmp_path, **files, glosses=("book", "all", "book"), subset=3)
    problem = r"classes 0 and 2 are both the gloss 'book'; rename one, or download the file again"
    with pytest.raises(StudyError, match=rf"(WLASL3.json|wlasl_class_list.txt): {problem}"):
        read_annotations(root, 3)


def test_two_glosses_of_one_name_beyond_the_subset_do_no_harm(tmp_path):
    clips = [{"gloss": gloss, "instances": TWO_GLOSSES.get(gloss, [])} for gloss in ("book", "all", "book2", "book2")]
    assert len(read_annotations(write(tmp_path, rich=clips), 2)) == 3


def test_glosses_without_any_clip_are_refused(tmp_path):
    with pytest.raises(StudyError, match=r"annotations: the first 2 glosses have no clip"):
        read_annotations(write(tmp_path, rich=rich_file({"book": [], "all": []})), 2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["train", "", "x", "\ud800", "é\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["gloss", "a"]), inner, max_size=3),
    max_leaves=4,
)
FIELDS = st.sampled_from(["video_id", "split", "frame_start", "frame_end", "fps", "bbox", "signer_id", "source"])


@settings(max_examples=200)
@given(
    change=st.dictionaries(FIELDS, VALUES, max_size=2), action=VALUES, gloss=VALUES, whole=VALUES, n=st.integers(0, 9)
)
def test_any_annotations_are_a_table_of_all_clips_that_can_be_stored_or_a_one_line_error(
    tmp_path_factory, change, action, gloss, whole, n
):
    glosses = {"book": [TWO_GLOSSES["book"][0] | change, TWO_GLOSSES["book"][1]], "all": TWO_GLOSSES["all"]}
    rich, nslt = rich_file(glosses), nslt_file(TWO_GLOSSES)
    if n < 3:  # the first two change other things, too
        rich[1]["gloss"], nslt["00001"]["action"] = gloss, action
    if n == 0:
        rich = nslt = whole
    root = tmp_path_factory.mktemp("wlasl")
    for files in ({"rich": rich}, {"nslt": nslt}):
        where = write(root / next(iter(files)), **files)
        table, message = None, "one line"
        try:
            table = read_annotations(where, 2)
        except StudyError as error:
            message = str(error)
        assert len(message.splitlines()) == 1
        if table is not None:
            assert len(table) == 3
            table.to_parquet(where / "index.parquet")


@settings(max_examples=100)
@given(content=st.binary(max_size=40) | st.text("0123\t\r\n \ufeffbé", max_size=20).map(str.encode))
def test_any_class_list_names_every_class_or_is_a_one_line_error(tmp_path_factory, content):
    root = write(tmp_path_factory.mktemp("wlasl"), nslt=nslt_file(TWO_GLOSSES))
    (root / "annotations" / "wlasl_class_list.txt").write_bytes(content)
    names, message = ["a", "b"], "one line"
    try:
        names = read_annotations(root, 2).drop_duplicates("label")["gloss"].tolist()
    except StudyError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    assert len(set(names)) == 2
    assert all(names)


@settings(max_examples=60)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_one_line_error(tmp_path_factory, content):
    for name in ("WLASL2.json", "nslt_2.json"):
        root = write(tmp_path_factory.mktemp("wlasl"))
        (root / "annotations" / name).write_bytes(content)
        with pytest.raises(StudyError) as error:
            read_annotations(root, 2)
        assert len(str(error.value).splitlines()) == 1


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


FOUR_GLOSSES = {
    **TWO_GLOSSES,
    "no": [instance("00007", "val", 5, 9, signer_id=2), instance("00005"), instance("00006", "test")],
    "none": [instance("00004", "val")],
}


def test_clips_outside_a_subset_are_those_of_the_other_glosses_in_the_same_columns(tmp_path):
    root = write(tmp_path, rich=rich_file(TWO_GLOSSES), nslt=nslt_file(TWO_GLOSSES))
    write(tmp_path, rich=rich_file(FOUR_GLOSSES), glosses=(), subset=4)
    outside, inside = read_outside(root, 2), read_annotations(root, 2)
    assert outside["video_id"].tolist() == ["00005", "00006", "00007", "00004"]
    assert outside["gloss"].tolist() == ["no", "no", "no", "none"]
    assert outside["label"].tolist() == [2, 2, 2, 3]
    assert outside["split"].tolist() == ["train", "test", "val", "val"]
    assert outside.loc[2, ["frame_start", "frame_end", "signer", "bbox"]].tolist() == [5, 9, 2, [1, 2, 30, 40]]
    assert outside.dtypes.to_dict() == inside.dtypes.to_dict()
    assert outside.index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["rich", "nslt"])
def test_clips_outside_come_from_the_largest_file(tmp_path, kind):
    make = {"rich": rich_file, "nslt": nslt_file}[kind]
    for subset in (2, 3, 4):
        glosses = dict(list(FOUR_GLOSSES.items())[:subset])
        write(tmp_path, **{kind: make(glosses)}, glosses=FOUR_GLOSSES, subset=subset)
    assert read_outside(tmp_path, 2)["label"].tolist() == [2, 2, 2, 3]
    assert read_outside(tmp_path, 3)["label"].tolist() == [3]


def test_v03_counts_by_the_glosses_that_it_holds(tmp_path):
    root = write(tmp_path, rich=rich_file(FOUR_GLOSSES), glosses=(), subset=4)
    (root / "annotations" / "WLASL4.json").rename(root / "annotations" / "WLASL_v0.3.json")
    assert read_outside(root, 3)["gloss"].tolist() == ["none"]
    assert set(read_outside(root, 2)["video_id"]) == {"00004", "00005", "00006", "00007"}


def test_the_nslt_file_decides_on_split_and_clips_outside_and_the_rich_one_supplies_the_rest(tmp_path):
    nslt = nslt_file(FOUR_GLOSSES)
    nslt["00005"]["subset"] = "val"
    del nslt["00006"]
    root = write(tmp_path, rich=rich_file(FOUR_GLOSSES), nslt=nslt, glosses=(), subset=4)
    (root / "annotations" / "WLASL4.json").rename(root / "annotations" / "WLASL_v0.3.json")
    outside = read_outside(root, 2).set_index("video_id")
    assert outside["split"].to_dict() == {"00005": "val", "00007": "val", "00004": "val"}
    assert outside.loc["00007", "signer"] == 2


@pytest.mark.parametrize("name", ["WLASL2.json", "WLASL_v0.3.json"])
def test_without_a_larger_file_the_table_of_clips_outside_is_empty_but_has_its_columns(tmp_path, name):
    root = write(tmp_path, rich=rich_file(TWO_GLOSSES), nslt=nslt_file(TWO_GLOSSES))
    (root / "annotations" / "WLASL2.json").rename(root / "annotations" / name)
    (root / "annotations" / "._nslt_4.json").write_bytes(b"\0")
    (root / "annotations" / "nslt_4.json.part").write_text("{")
    outside = read_outside(root, 2)
    assert outside.empty
    assert outside.dtypes.to_dict() == read_annotations(root, 2).dtypes.to_dict()


def test_a_clip_of_the_subset_is_never_outside_even_where_a_larger_file_gives_it_another_gloss(tmp_path):
    other = {**FOUR_GLOSSES, "book": [], "none": [*FOUR_GLOSSES["none"], *FOUR_GLOSSES["book"]]}
    root = write(tmp_path, nslt=nslt_file(TWO_GLOSSES))
    write(tmp_path, nslt=nslt_file(other), glosses=FOUR_GLOSSES, subset=4)
    assert set(read_outside(root, 2)["video_id"]) == {"00004", "00005", "00006", "00007"}


def test_withdrawn_clips_are_not_outside(tmp_path):
    withdrawn = {"20065": {"subset": "val", "action": [3, 1, 209]}}
    root = write(tmp_path, nslt=nslt_file(TWO_GLOSSES))
    write(tmp_path, nslt=nslt_file(FOUR_GLOSSES) | withdrawn, glosses=FOUR_GLOSSES, subset=4)
    assert "20065" not in set(read_outside(root, 2)["video_id"])


def test_a_broken_larger_file_is_named(tmp_path):
    root = write(tmp_path, nslt=nslt_file(TWO_GLOSSES))
    (root / "annotations" / "nslt_4.json").write_text("{")
    (root / "annotations" / "wlasl_class_list.txt").write_text("0\tbook\n1\tall\n2\tno\n3\tnone\n")
    assert len(read_annotations(root, 2)) == 3
    with pytest.raises(StudyError, match=r"nslt_4.json: Invalid JSON"):
        read_outside(root, 2)


@pytest.mark.parametrize("subset", [100, 300])
def test_clips_outside_real_subsets_are_the_rest_of_wlasl2000(wlasl_root, subset):
    outside = read_outside(wlasl_root, subset)
    files = [wlasl_root / "annotations" / f"nslt_{glosses}.json" for glosses in (subset, 2000)]
    inside, everything = (json.loads(path.read_text()) for path in files)
    rest = {video_id: clip for video_id, clip in everything.items() if clip["action"][0] >= subset}
    rest = {video_id: clip["subset"] for video_id, clip in rest.items() if video_id not in WITHDRAWN}
    assert dict(zip(outside["video_id"], outside["split"], strict=True)) == rest
    assert not set(rest) & set(inside)
    counts = outside["split"].value_counts()[list(SPLITS)]
    published = zip(PUBLISHED_COUNTS[2000], PUBLISHED_COUNTS[subset], strict=True)
    assert counts.tolist() == [whole - part for whole, part in published]


@pytest.mark.parametrize("subset", [100, 300, 1000])
def test_a_clip_has_the_same_split_in_each_real_subset(wlasl_root, subset):
    clips = [read_annotations(wlasl_root, glosses).set_index("video_id")["split"] for glosses in (subset, 2000)]
    assert clips[0].to_dict() == clips[1][clips[0].index].to_dict()


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
