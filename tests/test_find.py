"""Finding the files of clips by names that systems and tools have changed."""

import os
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.find import DEEPEST, is_hidden, locate, nearest, other_files, shortfall, speller, walk
from lib.settings import StudyError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def in_form(form, name):
    return unicodedata.normalize(form, name)


# ---- files that systems leave, and walking -------------------------------------------------------------


@pytest.mark.parametrize("name", [".DS_Store", "._a.mp4", ".a.mp4", "Thumbs.db", "thumbs.db", "$RECYCLE.BIN"])
def test_files_that_systems_leave_are_hidden_everywhere(tmp_path, name):
    assert is_hidden(name)
    touch(tmp_path, f"videos/{name}", f"videos/book/{name}", "videos/00001.mp4", f"hands/{name}", "hands/._h.npz")
    np.savez(tmp_path / "hands" / "h.npz", **{"00001": np.zeros(3)})
    touch(tmp_path, f"keypoints/{name}/a.json", "keypoints/00001/a.json", f"keypoints/book/{name}/a.json")
    for source in ("videos", "keypoints", "hands"):
        found, others = locate(tmp_path, source, ["00001"])
        assert [len(places) for places in found.values()] == [1]
        assert [place.name for place in others] == (["book"] if source == "keypoints" else [])
    assert other_files(tmp_path / "videos") == []
    (tmp_path / "own" / name).mkdir(parents=True)
    touch(tmp_path / "own" / name, "deleted.mp4")
    assert list(walk(tmp_path / "own")) == []


def test_walking_follows_links_ends_and_names_files_whose_link_is_broken(tmp_path):
    touch(tmp_path / "elsewhere", "b.mp4")
    touch(tmp_path / "root", "yes/a.mp4", "yes/.hidden/c.mp4")
    (tmp_path / "root" / "no").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "yes" / "gone.mp4").symlink_to(tmp_path / "nowhere")
    files = [path.as_posix() for path in walk(tmp_path / "root")]
    assert files == ["no/b.mp4", "yes/a.mp4", "yes/gone.mp4"]
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "root")
    found = list(walk(tmp_path / "root"))
    assert set(files) < {path.as_posix() for path in found}
    assert max(len(path.parts) for path in found) <= DEEPEST + 1  # and not as deep as the links allow


def test_a_folder_that_cannot_be_read_stops_nothing_and_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "lost+found/a.mp4", "yes/a.mp4")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    assert [path.as_posix() for path in walk(tmp_path)] == ["yes/a.mp4", "lost+found/(cannot be read)"]
    assert other_files(tmp_path) == ["lost+found/(cannot be read)"]


# ---- names as the disk spells them ---------------------------------------------------------------------

part = st.text(st.sampled_from("aäñÅ가é.- "), min_size=1, max_size=5).map(lambda name: f"x{name}x")
form = st.sampled_from(["NFC", "NFD"])


@settings(max_examples=60)
@given(parts=st.lists(st.tuples(part, form, form), min_size=1, max_size=3), slash=st.sampled_from("/\\"))
def test_a_path_in_any_unicode_form_and_with_any_slash_finds_the_file(tmp_path_factory, parts, slash):
    root = tmp_path_factory.mktemp("own")
    on_disk = "/".join(in_form(form, name) for name, form, _ in parts)
    touch(root, on_disk)
    assert speller(root)(slash.join(in_form(form, name) for name, _, form in parts)) == on_disk


def test_of_two_files_whose_names_differ_in_their_form_alone_each_is_found(tmp_path):
    names = [in_form("NFC", "ñañ.mp4"), in_form("NFD", "ñañ.mp4")]
    spell = speller(touch(tmp_path, *names, "a\\b.mp4", "a/b.mp4"))
    assert [spell(name) for name in names] == names
    assert spell(in_form("NFC", "ña") + in_form("NFD", "ñ.mp4")) == names[0]  # in NFC it is the first
    assert spell("a\\b.mp4") == "a\\b.mp4"  # a file of exactly this name comes first
    assert spell("./a/../a//b.mp4") == "a/b.mp4"


def test_another_letter_case_is_no_match_but_a_hint(tmp_path):
    touch(tmp_path, "Videos/hello1.MP4")
    assert speller(tmp_path)("videos/hello1.mp4") == "videos/hello1.mp4"
    assert nearest("videos/hello1.mp4", ["Videos/hello1.MP4"]) == " (did you mean 'Videos/hello1.MP4'?)"


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("videos/helo9.mp4", "videos/hello9.mp4"),
        ("vidoes/hello9.mp4", "videos/hello9.mp4"),
        ("hello9.mp4", "videos/hello9.mp4"),
        ("videos/hello9.mov", "videos/hello9.mp4"),
    ],
)
def test_a_mistyped_path_is_given_the_file_that_may_be_meant(path, file):
    assert nearest(path, ["videos/bye1.mp4", file, "notes.txt"]) == f" (did you mean '{file}'?)"


def test_a_path_like_no_other_gets_no_hint():
    assert nearest("videos/a.mp4", ["videos/hello.mp4", "videos/bye.mp4"]) == ""


# ---- clips by video_id ---------------------------------------------------------------------------------


def located(root, source="videos", wanted=("00513", "00514")):
    found, others = locate(root, source, wanted)
    names = {clip: [place.path.relative_to(root / source).as_posix() for place in at] for clip, at in found.items()}
    return names, sorted(place.path.relative_to(root / source).as_posix() for place in others)


def test_videos_are_found_without_leading_zeros_and_in_folders_of_glosses(tmp_path):
    touch(tmp_path / "videos", "513.mp4", "book/00514.MKV", "book/777.mp4", "note.txt")
    assert located(tmp_path) == ({"00513": ["513.mp4"], "00514": ["book/00514.MKV"]}, ["book/777.mp4"])


def test_the_name_itself_comes_first_then_the_nearer_file_then_the_suffix(tmp_path):
    touch(tmp_path / "videos", "513.mp4", "a/00513.mp4", "00514.mkv", "a/00514.mp4", "00514.mp4")
    found, others = located(tmp_path)
    assert found == {"00513": ["a/00513.mp4"], "00514": ["00514.mp4", "00514.mkv", "a/00514.mp4"]}
    assert others == ["513.mp4"]


def test_all_names_with_fewer_zeros_are_given_as_one_of_them_may_be_the_clips(tmp_path):
    touch(tmp_path / "videos", "513.mp4", "0513.mp4", "514.mp4", "a/514.mp4")
    assert located(tmp_path) == ({"00513": ["0513.mp4", "513.mp4"], "00514": ["514.mp4", "a/514.mp4"]}, [])


def test_clips_that_differ_in_zeros_alone_are_not_found_by_number(tmp_path):
    touch(tmp_path / "videos", "513.mp4", "0514.mp4")
    assert located(tmp_path, wanted=["00513", "000513", "514", "0514"])[0] == {"0514": ["0514.mp4"]}


def test_names_that_are_no_numbers_keep_their_zeros(tmp_path):
    assert located(touch(tmp_path / "videos", "clip.mp4").parent, wanted=["0clip", "00clip"])[0] == {}


def test_keypoints_and_hands_are_found_without_leading_zeros_too(tmp_path):
    touch(tmp_path / "keypoints", "513/image_00001_keypoints.json", "book/00514/image_00001_keypoints.json")
    assert located(tmp_path, "keypoints")[0] == {"00513": ["513"], "00514": ["book/00514"]}
    (tmp_path / "hands").mkdir()
    for name in "ab":
        np.savez(tmp_path / "hands" / f"{name}.npz", **{"513": np.full(3, ord(name)), "x": np.zeros(3)})
    found, others = locate(tmp_path, "hands", ["00513", "00514"])
    assert [place.archive[place.name][0] for place in found["00513"]] == [ord("a"), ord("b")]
    assert [place.name for place in others] == ["x"]


ids = st.text("013x", min_size=1, max_size=4)


@settings(max_examples=60)
@given(wanted=st.lists(ids, unique=True, max_size=5), there=st.lists(ids, unique=True, max_size=8))
def test_every_file_is_a_clips_or_among_the_others(tmp_path_factory, wanted, there):
    root = tmp_path_factory.mktemp("root")
    (root / "videos").mkdir()
    touch(root / "videos", *(f"{name}.mp4" for name in there))
    found, others = locate(root, "videos", wanted)
    used = [place.name for places in found.values() for place in places]
    assert sorted([*used, *(place.name for place in others)]) == sorted(there)  # and none is two clips'
    assert set(wanted) & set(there) <= found.keys()


# ---- what is said when little is found -----------------------------------------------------------------


def test_what_was_looked_for_and_what_lies_there_is_said_when_under_half_is_found(tmp_path):
    touch(tmp_path / "videos", "00001.mp4", "sign_2.mp4", "a/sign_3.mp4")
    wanted = ["00001", "00002", "00003"]
    line = shortfall("videos", wanted, *locate(tmp_path, "videos", wanted), tmp_path)
    assert line == (
        "videos: 1 of 3 official clips are there; looked for videos/00002.mp4, "
        "found 2 others, such as 'videos/a/sign_3.mp4'; "
        "add the rest; if some of the others are these clips, name them as in the annotations"
    )
    assert "found nothing else" in shortfall("hands", wanted, ["00001"], [], tmp_path)
    assert shortfall("videos", wanted, ["00001", "00002"], [], tmp_path) == ""
    assert shortfall("videos", wanted[:2], ["00001"], [], tmp_path) == ""  # half


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "hands").mkdir()
    (tmp_path / "hands" / "h.npz").write_bytes(content)
    with pytest.raises(StudyError, match=r"h.npz: is not a readable .npz archive .*; download it again") as error:
        locate(tmp_path, "hands", [])
    assert "\n" not in str(error.value)


def test_one_bare_array_is_no_archive(tmp_path):
    (tmp_path / "hands").mkdir()
    with (tmp_path / "hands" / "h.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(StudyError, match=r"h.npz: is not a readable .npz archive"):
        locate(tmp_path, "hands", [])
