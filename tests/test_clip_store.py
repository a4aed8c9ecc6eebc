"""The clip store: right frames, right place, whole files, and clips that cannot be stored."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import encode_video, index_of_videos, numbered_images, numbers_of, walker
from lib.data import clip_store as module
from lib.data.clip_store import build_clips, clip_path, read_stored, store_clip, stored_frames
from lib.paths import Paths
from lib.settings import StudyError
from lib.study import ClipStore


def every(count):
    return range(count)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Stored clips of 5 to 12 frames; the brightness of a frame says its clip and number."""
    tmp_path = tmp_path_factory.mktemp("store")
    videos = {f"v{i}": encode_video(tmp_path / f"v{i}.mp4", numbered_images(5 + i, first=3 * i)) for i in range(8)}
    build_clips(index_of_videos(**videos), tmp_path / "clips", size=64, workers=1)
    return [clip_path(tmp_path / "clips", name) for name in videos]


def test_stored_clip_holds_the_signed_segment_in_order(tmp_path):
    video = encode_video(tmp_path / "a.mp4", numbered_images(30))
    index = index_of_videos(a={"path": video, "frame_start": 7, "frame_end": 13}, b={"path": video, "frame_start": 25})
    table = build_clips(index, tmp_path / "clips", size=64, workers=1)
    assert table[["video_id", "status", "reason", "frames"]].to_numpy().tolist() == [
        ["a", "present", "", 6],
        ["b", "present", "", 5],
    ]
    assert numbers_of(read_stored(clip_path(tmp_path / "clips", "a"), every)) == [7, 8, 9, 10, 11, 12]
    assert numbers_of(read_stored(clip_path(tmp_path / "clips", "b"), every)) == [25, 26, 27, 28, 29]
    assert table["bytes"].tolist() == [clip_path(tmp_path / "clips", name).stat().st_size for name in "ab"]


def test_stored_clip_is_cropped_to_the_box_with_its_margin(tmp_path):
    image = np.full((96, 128, 3), 30, np.uint8)
    image[20:60, 70:110] = (220, 40, 40)
    index = index_of_videos(a={"path": encode_video(tmp_path / "a.mp4", [image] * 3), "bbox": [70, 20, 110, 60]})
    build_clips(index, tmp_path / "clips", size=120, margin=0.25, workers=1)
    stored = read_stored(clip_path(tmp_path / "clips", "a"), every)[0].astype(int)
    assert stored.shape == (120, 120, 3)
    red = stored[..., 0] > 125  # box 40 + 2 margins of 10 on 120 pixels: the square lies at 20..100
    assert red[22:98, 22:98].all()
    assert not red[:18].any()
    assert not red[:, :18].any()
    assert not red[102:].any()
    assert not red[:, 102:].any()


def test_stored_clip_is_a_video_that_ffmpeg_opens(store):
    with av.open(str(store[2])) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(images) == 7
    assert np.abs(images[0].astype(int) - read_stored(store[2], every)[0]).max() < 8


def test_clip_is_stored_again_when_something_odd_was_found_in_its_file_and_only_then(tmp_path):
    index = index_of_videos(a=encode_video(tmp_path / "a.mp4", numbered_images(5)))
    path = clip_path(tmp_path / "clips", "a")
    build_clips(index, tmp_path / "clips", size=64, workers=1)  # by a version without notes
    made = path.stat().st_mtime_ns
    for notes, again in [("", False), ("mirrored", True), ("mirrored", False), ("", True)]:
        build_clips(index.assign(notes=notes), tmp_path / "clips", size=64, workers=1)
        assert (path.stat().st_mtime_ns != made) == again
        made = path.stat().st_mtime_ns


def test_unreadable_clips_become_rows_with_a_reason_and_leave_no_file(tmp_path):
    (tmp_path / "page.mp4").write_text("<html>404</html>" * 50)
    black = encode_video(tmp_path / "black.mp4", [np.zeros((48, 64, 3), np.uint8)] * 4)
    good = encode_video(tmp_path / "good.mp4", numbered_images(4))
    index = index_of_videos(
        page=tmp_path / "page.mp4",
        absent=tmp_path / "absent.mp4",
        black=black,
        late={"path": good, "frame_start": 9, "frame_end": 12},
        aside={"path": good, "bbox": [500, 0, 600, 90]},
        good=good,
    )
    table = build_clips(index, tmp_path / "clips", workers=2).set_index("video_id")
    assert table["status"].tolist() == ["unreadable"] * 5 + ["present"]
    for name, reason in {
        "page": "cannot be opened as a video",
        "absent": "No such file",
        "black": "frames 0 to 4 are black throughout",
        "late": "the segment starts at frame 9, the file has 4",
        "aside": r"cannot be cropped \(box .* lies outside the 128 × 96 image",
    }.items():
        assert pd.Series(table["reason"][name]).str.contains(reason).all(), table["reason"][name]
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["good.mjpeg"]


def test_black_frames_of_a_clip_are_left_out(tmp_path):
    black = np.zeros((96, 128, 3), np.uint8)
    video = encode_video(tmp_path / "fades.mp4", [black, *numbered_images(4), black])
    table = build_clips(index_of_videos(fades=video), tmp_path / "clips", workers=1)
    assert table[["status", "frames"]].to_numpy().tolist() == [["present", 4]]
    assert numbers_of(read_stored(clip_path(tmp_path / "clips", "fades"), every)) == [0, 1, 2, 3]


def bodies(path):
    """A stored clip without its comment, and the comment."""
    data = path.read_bytes()
    length = int.from_bytes(data[4:6], "big")
    return data[:2] + data[4 + length :], json.loads(data[6 : 4 + length])


@pytest.mark.parametrize("find_person", [False, True])
@pytest.mark.parametrize("bbox", [None, [30, 10, 90, 70]])
def test_a_clip_stored_by_itself_is_that_of_the_store_and_its_frames_have_their_numbers(tmp_path, bbox, find_person):
    images = [np.zeros((96, 128, 3), np.uint8) if number in (0, 1, 7, 29) else image for number, image in
              enumerate(walker(30))]  # fmt: skip
    video = encode_video(tmp_path / "a.mp4", images)
    row = {"path": video, "frame_start": 1, "frame_end": 30, "bbox": bbox, "notes": "mirrored"}
    build_clips(index_of_videos(a=row), tmp_path / "clips", size=64, margin=0.3, find_person=find_person, workers=1)
    how, alone = ClipStore(size=64, margin=0.3, find_person=find_person), tmp_path / "new" / "alone.mjpeg"
    start, end = np.array([1, 30])  # of a row of the index
    numbers = store_clip(video, alone, start, end, bbox, how)
    assert numbers.tolist() == [*range(2, 7), *range(8, 29)]
    (body, comment), (expected, of_store) = bodies(alone), bodies(clip_path(tmp_path / "clips", "a"))
    assert body == expected
    assert of_store.pop("notes") == "mirrored"
    assert comment == of_store
    assert len(read_stored(alone, every)) == len(numbers)


def test_a_clip_that_is_black_or_lies_outside_its_video_is_not_stored(tmp_path):
    video = encode_video(tmp_path / "a.mp4", [np.zeros((96, 128, 3), np.uint8)] * 4)
    for start, end, problem in [(0, 4, "black throughout"), (7, 9, "starts at frame 7, the file has 4")]:
        with pytest.raises(StudyError, match=rf"a\.mp4: .*{problem}"):
            store_clip(video, tmp_path / "b.mjpeg", start, end, None, ClipStore())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_only_present_clips_of_the_index_are_stored(tmp_path):
    video = encode_video(tmp_path / "a.mp4", numbered_images(3))
    index = index_of_videos(
        a=video, b={"path": video, "status": "missing"}, c={"path": video, "status": "dropped: copy"}
    )
    assert build_clips(index, tmp_path / "clips", size=32, workers=1)["video_id"].tolist() == ["a"]


def test_building_again_writes_only_what_is_absent_damaged_or_made_otherwise(tmp_path):
    names = ["stays", "absent", "damaged", "retrimmed", "replaced"]
    index = index_of_videos(**{name: encode_video(tmp_path / f"{name}.mp4", numbered_images(6)) for name in names})
    folder = tmp_path / "clips"
    first = build_clips(index, folder, size=32, workers=1)
    files = {name: clip_path(folder, name) for name in names}
    for path in files.values():
        os.utime(path, (1, 1))
    files["absent"].unlink()
    files["damaged"].write_bytes(files["damaged"].read_bytes()[:-100])
    index.loc[index["video_id"] == "retrimmed", "frame_end"] = 4
    encode_video(tmp_path / "replaced.mp4", numbered_images(9))
    again = build_clips(index, folder, size=32, workers=1)
    assert again["frames"].tolist() == [6, 6, 6, 4, 9]
    assert again.loc[:2].equals(first.loc[:2])
    assert [name for name in names if files[name].stat().st_mtime == 1] == ["stays"]
    build_clips(index, folder, size=48, workers=1)
    assert read_stored(files["stays"], every)[0].shape == (48, 48, 3)


def test_an_interrupted_write_leaves_the_old_clip_and_no_rest(tmp_path, monkeypatch):
    index = index_of_videos(a=encode_video(tmp_path / "a.mp4", numbered_images(6)))
    build_clips(index, tmp_path / "clips", size=32, workers=1)
    before = clip_path(tmp_path / "clips", "a").read_bytes()
    encode, calls = cv2.imencode, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(cv2, "imencode", killed)
    job = module._job(index.to_dict("records")[0], False, 48, 0.1)
    with pytest.raises(KeyboardInterrupt):
        module._attempt(job, clip_path(tmp_path / "clips", "a"))
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["a.mjpeg"]
    assert clip_path(tmp_path / "clips", "a").read_bytes() == before


def test_a_video_that_kills_its_process_costs_that_clip_alone(tmp_path, monkeypatch):
    store = module._store

    def die(job, target):
        if "bad" in job.video:
            os._exit(1)
        store(job, target)

    monkeypatch.setattr(module, "_store", die)
    # New processes would read the module anew, and not know of this.
    monkeypatch.setattr(module, "processes", lambda count, _: ProcessPoolExecutor(count, get_context("fork")))
    names = ["a", "b", "bad", "c", "d"]
    index = index_of_videos(**{name: encode_video(tmp_path / f"{name}.mp4", numbered_images(3)) for name in names})
    table = build_clips(index, tmp_path / "clips", size=32, workers=2)
    assert table["status"].tolist() == ["present", "present", "unreadable", "present", "present"]
    assert "decoding it crashed the process" in table["reason"][2]


def test_originals_are_untouched(tmp_path):
    video = encode_video(tmp_path / "a.mp4", numbered_images(6))
    before = video.read_bytes(), video.stat().st_mtime_ns
    build_clips(index_of_videos(a=video), tmp_path / "clips", size=32, workers=1)
    assert (video.read_bytes(), video.stat().st_mtime_ns) == before


@pytest.mark.parametrize(("least", "side"), [(64, 64), (40, 64), (32, 32), (16, 16), (8, 8), (5, 8), (100, 64)])
def test_images_come_no_smaller_than_asked_and_keep_their_brightness(store, least, side):
    images = read_stored(store[0], every, least)
    assert {image.shape for image in images} == {(side, side, 3)}
    assert numbers_of(images) == [0, 1, 2, 3, 4]


def test_pictures_are_those_that_opencv_decodes_but_for_rounding(tmp_path):
    blurred = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8), None, 4)
    colourful = cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX)
    build_clips(index_of_videos(a=encode_video(tmp_path / "a.mp4", [colourful] * 2)), tmp_path, size=96, workers=1)
    path = clip_path(tmp_path, "a")
    expected = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    away = np.abs(read_stored(path, every)[0].astype(int) - expected)
    assert away.mean() < 0.5
    assert np.quantile(away, 0.99) <= 3


def test_an_image_that_was_changed_is_damaged_and_named(store, tmp_path):
    damaged = bytearray(store[0].read_bytes())
    at = damaged.index(b"\xff\xda") + 20
    damaged[at : at + 12] = bytes(range(100, 112))
    path = tmp_path / "damaged.mjpeg"
    path.write_bytes(damaged)
    with pytest.raises(StudyError, match=r"damaged\.mjpeg: contains a damaged image"):
        read_stored(path, every)


def test_absent_or_foreign_stored_clips_are_errors_that_name_the_file(store, tmp_path):
    foreign, empty = tmp_path / "foreign.mjpeg", tmp_path / "empty.mjpeg"
    foreign.write_bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    empty.write_bytes(b"")
    for path in (tmp_path / "absent.mjpeg", foreign, empty):
        with pytest.raises(StudyError, match=f"{path.name}: .*02_clips"):
            read_stored(path, every)


@settings(max_examples=60)
@given(content=st.binary(max_size=60), where=st.floats(0, 1))
def test_any_damage_of_a_stored_clip_gives_images_or_a_study_error(store, tmp_path_factory, content, where):
    path = tmp_path_factory.getbasetemp() / "damaged.mjpeg"
    damaged = bytearray(store[0].read_bytes())
    at = int(where * len(damaged))
    damaged[at : at + len(content)] = content
    path.write_bytes(damaged)
    try:
        images = read_stored(path, every)
    except StudyError:
        return
    assert all(image.dtype == np.uint8 and image.ndim == 3 for image in images)


def test_crop_to_the_person_is_made_where_asked_and_no_box_is_given(tmp_path):
    video = encode_video(tmp_path / "a.mp4", walker(30, at=(95, 40)))
    box = {"path": video, "bbox": [0, 0, 40, 40]}
    build_clips(index_of_videos(a=video, b=box), tmp_path / "found", size=64, find_person=True, workers=1)
    build_clips(index_of_videos(a=video), tmp_path / "whole", size=64, workers=1)
    found, boxed, whole = (
        (np.stack(read_stored(clip_path(tmp_path / folder, name), every)) > 200).mean()
        for folder, name in (("found", "a"), ("found", "b"), ("whole", "a"))
    )
    assert found > 1.5 * whole
    assert boxed == 0


def test_the_number_of_frames_of_each_clip_is_read_from_the_table(tmp_path):
    study = SimpleNamespace(name="own", paths=Paths("own", tmp_path))
    with pytest.raises(StudyError, match="02_clips"):
        stored_frames(study)
    video = encode_video(tmp_path / "a.mp4", numbered_images(6))
    index = index_of_videos(b={"path": video, "frame_end": 4}, a=video)
    build_clips(index, study.paths.clips, size=32, workers=1).to_parquet(study.paths.clips_table, index=False)
    assert stored_frames(study) == {"b": 4, "a": 6}
