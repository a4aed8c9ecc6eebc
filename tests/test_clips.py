"""The clip store and its batches: right frames, right place, whole files, and the same batches for the same seed."""

import os
from pathlib import Path

import av
import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import clip_store as module
from lib.data.augment import ClipAugment
from lib.data.clip_store import build_clips, clip_path, read_stored
from lib.data.loaders import ClipBatches
from lib.data.person import find_mover
from lib.settings import StudyError

VARY = ClipAugment(jitter=1, crop=0.2, rotation=5, flip=0.5, brightness=0.1, contrast=0.1)
WHITE = (230, 230, 230)


def write_video(path, images, rotation=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbered(count, first=0, height=96, width=128):
    """Images whose brightness says their number."""
    return [np.full((height, width, 3), 40 + 5 * (first + number), np.uint8) for number in range(count)]


def numbers_of(images):
    return np.round((np.asarray(images, float).mean(axis=(1, 2, 3)) - 40) / 5).astype(int).tolist()


def walker(count, height=96, width=128, at=(80, 40), side=20):
    """A square that moves a little about `at` before a still background."""
    background = np.random.default_rng(0).integers(60, 120, (height, width, 3)).astype(np.uint8)
    images = [background.copy() for _ in range(count)]
    for number, image in enumerate(images):
        x = at[0] + round(8 * np.sin(number))
        image[at[1] : at[1] + side, x : x + side] = WHITE
    return images


def index_of(**videos):
    """An index of videos: video_id -> path, or a dict with the columns that differ."""
    rows = [row if isinstance(row, dict) else {"path": row} for row in videos.values()]
    fixed = {"status": "present", "frame_start": 0, "frame_end": -1, "bbox": None}
    return pd.DataFrame(
        [fixed | row | {"video_id": name, "path": str(row["path"])} for name, row in zip(videos, rows, strict=True)]
    )


def every(count):
    return range(count)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Stored clips of 5 to 12 frames; the brightness of a frame says its clip and number."""
    tmp_path = tmp_path_factory.mktemp("store")
    videos = {f"v{i}": write_video(tmp_path / f"v{i}.mp4", numbered(5 + i, first=3 * i)) for i in range(8)}
    build_clips(index_of(**videos), tmp_path / "clips", size=64, workers=1)
    return [clip_path(tmp_path / "clips", name) for name in videos]


def test_stored_clip_holds_the_signed_segment_in_order(tmp_path):
    video = write_video(tmp_path / "a.mp4", numbered(30))
    index = index_of(a={"path": video, "frame_start": 7, "frame_end": 13}, b={"path": video, "frame_start": 25})
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
    index = index_of(a={"path": write_video(tmp_path / "a.mp4", [image] * 3), "bbox": [70, 20, 110, 60]})
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


def test_unreadable_clips_become_rows_with_a_reason_and_leave_no_file(tmp_path):
    (tmp_path / "page.mp4").write_text("<html>404</html>" * 50)
    black = write_video(tmp_path / "black.mp4", [np.zeros((48, 64, 3), np.uint8)] * 4)
    good = write_video(tmp_path / "good.mp4", numbered(4))
    index = index_of(
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
        "late": "the segment begins at frame 9, the file has 4",
        "aside": r"cannot be cropped \(box .* holds nothing of the 128 × 96 image",
    }.items():
        assert pd.Series(table["reason"][name]).str.contains(reason).all(), table["reason"][name]
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["good.mjpeg"]


def test_black_frames_of_a_clip_are_left_out(tmp_path):
    black = np.zeros((96, 128, 3), np.uint8)
    video = write_video(tmp_path / "fades.mp4", [black, *numbered(4), black])
    table = build_clips(index_of(fades=video), tmp_path / "clips", workers=1)
    assert table[["status", "frames"]].to_numpy().tolist() == [["present", 4]]
    assert numbers_of(read_stored(clip_path(tmp_path / "clips", "fades"), every)) == [0, 1, 2, 3]


def test_only_present_clips_of_the_index_are_stored(tmp_path):
    video = write_video(tmp_path / "a.mp4", numbered(3))
    index = index_of(a=video, b={"path": video, "status": "missing"}, c={"path": video, "status": "dropped: copy"})
    assert build_clips(index, tmp_path / "clips", size=32, workers=1)["video_id"].tolist() == ["a"]


def test_building_again_writes_only_what_is_absent_damaged_or_made_otherwise(tmp_path):
    names = ["stays", "absent", "damaged", "retrimmed", "replaced"]
    index = index_of(**{name: write_video(tmp_path / f"{name}.mp4", numbered(6)) for name in names})
    folder = tmp_path / "clips"
    first = build_clips(index, folder, size=32, workers=1)
    files = {name: clip_path(folder, name) for name in names}
    for path in files.values():
        os.utime(path, (1, 1))
    files["absent"].unlink()
    files["damaged"].write_bytes(files["damaged"].read_bytes()[:-100])
    index.loc[index["video_id"] == "retrimmed", "frame_end"] = 4
    write_video(tmp_path / "replaced.mp4", numbered(9))
    again = build_clips(index, folder, size=32, workers=1)
    assert again["frames"].tolist() == [6, 6, 6, 4, 9]
    assert again.loc[:2].equals(first.loc[:2])
    assert [name for name in names if files[name].stat().st_mtime == 1] == ["stays"]
    build_clips(index, folder, size=48, workers=1)
    assert read_stored(files["stays"], every)[0].shape == (48, 48, 3)


def test_an_interrupted_write_leaves_the_old_clip_and_no_rest(tmp_path, monkeypatch):
    index = index_of(a=write_video(tmp_path / "a.mp4", numbered(6)))
    build_clips(index, tmp_path / "clips", size=32, workers=1)
    before = clip_path(tmp_path / "clips", "a").read_bytes()
    encode, calls = module._encode, []

    def killed(image):
        calls.append(image)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(image)

    monkeypatch.setattr(module, "_encode", killed)
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
    names = ["a", "b", "bad", "c", "d"]
    index = index_of(**{name: write_video(tmp_path / f"{name}.mp4", numbered(3)) for name in names})
    table = build_clips(index, tmp_path / "clips", size=32, workers=2)
    assert table["status"].tolist() == ["present", "present", "unreadable", "present", "present"]
    assert "the process that decoded it ended" in table["reason"][2]


def test_originals_are_untouched(tmp_path):
    video = write_video(tmp_path / "a.mp4", numbered(6))
    before = video.read_bytes(), video.stat().st_mtime_ns
    build_clips(index_of(a=video), tmp_path / "clips", size=32, workers=1)
    assert (video.read_bytes(), video.stat().st_mtime_ns) == before


@pytest.mark.parametrize(("least", "side"), [(64, 64), (40, 64), (32, 32), (16, 16), (8, 8), (5, 8), (100, 64)])
def test_images_come_no_smaller_than_asked_and_keep_their_brightness(store, least, side):
    images = read_stored(store[0], every, least)
    assert {image.shape for image in images} == {(side, side, 3)}
    assert numbers_of(images) == [0, 1, 2, 3, 4]


def test_absent_or_foreign_stored_clips_are_errors_that_name_the_file(store, tmp_path):
    foreign, empty = tmp_path / "foreign.mjpeg", tmp_path / "empty.mjpeg"
    foreign.write_bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    empty.write_bytes(b"")
    for path in (tmp_path / "absent.mjpeg", foreign, empty):
        with pytest.raises(StudyError, match=f"{path.name}: .*02_clips"):
            read_stored(path, every)


@settings(max_examples=60)
@given(content=st.binary(max_size=60), where=st.floats(0, 1))
def test_any_damage_of_a_stored_clip_gives_images_or_a_study_error(tmp_path_factory, content, where):
    path = tmp_path_factory.getbasetemp() / "damaged.mjpeg"
    jpeg = module._encode(np.full((32, 32, 3), 90, np.uint8))
    damaged = bytearray(module._with_comment(jpeg, b'{"size": 32}') + jpeg * 3)
    at = int(where * len(damaged))
    damaged[at : at + len(content)] = content
    path.write_bytes(damaged)
    try:
        images = read_stored(path, every)
    except StudyError:
        return
    assert all(image.dtype == np.uint8 and image.ndim == 3 for image in images)


def test_mover_is_found_and_a_still_scene_has_none(tmp_path):
    video = write_video(tmp_path / "a.mp4", walker(30))
    xmin, ymin, xmax, ymax = find_mover(video, 0, 30)
    assert xmin <= 76
    assert ymin <= 42
    assert xmax >= 104
    assert ymax >= 58
    assert (xmax - xmin) == pytest.approx(ymax - ymin)
    assert xmax - xmin < 70
    assert find_mover(write_video(tmp_path / "b.mp4", [walker(1)[0]] * 20), 0, 20) is None
    assert find_mover(video, 4, 5) is None


def test_noise_alone_is_nobody_and_somebody_in_noise_is_found(tmp_path):
    noise = np.random.default_rng(1)
    moving, still = (
        [np.clip(image + noise.normal(0, 12, image.shape), 0, 255).astype(np.uint8) for image in images]
        for images in (walker(40), [walker(1)[0]] * 40)
    )
    assert find_mover(write_video(tmp_path / "still.mp4", still), 0, 40) is None
    xmin, ymin, xmax, ymax = find_mover(write_video(tmp_path / "moving.mp4", moving), 0, 40)
    assert xmin <= 80 <= 100 <= xmax
    assert ymin <= 42 <= 58 <= ymax


def test_crop_to_the_person_is_made_where_asked_and_no_box_is_given(tmp_path):
    video = write_video(tmp_path / "a.mp4", walker(30, at=(95, 40)))
    box = {"path": video, "bbox": [0, 0, 40, 40]}
    build_clips(index_of(a=video, b=box), tmp_path / "found", size=64, find_person=True, workers=1)
    build_clips(index_of(a=video), tmp_path / "whole", size=64, workers=1)
    found, boxed, whole = (
        (np.stack(read_stored(clip_path(tmp_path / folder, name), every)) > 200).mean()
        for folder, name in (("found", "a"), ("found", "b"), ("whole", "a"))
    )
    assert found > 1.5 * whole
    assert boxed == 0


def training(paths, **options):
    options = {"frames": 4, "size": 32, "vary": VARY, **options}
    return ClipBatches(paths, np.arange(len(paths)) % 3, 3, 3, **options)


def contents(batches):
    return [batches[number] for number in range(len(batches))]


def same(one, other):
    return all(
        np.array_equal(x, y)
        for a, b in zip(contents(one), contents(other), strict=True)
        for x, y in zip(a, b, strict=True)
    )


def test_evaluation_gives_every_clip_in_order_with_its_middle_frames(store):
    batches = ClipBatches(store, np.arange(8), 8, 3, frames=2, size=32)
    assert [len(clips) for clips, _ in contents(batches)] == [3, 3, 2]
    clips, labels = (np.concatenate(part) for part in zip(*contents(batches), strict=True))
    assert clips.dtype == labels.dtype == np.float32
    assert clips.shape == (8, 2, 32, 32, 3)
    assert np.array_equal(labels, np.eye(8))
    frames = [numbers_of(255 * clip) for clip in clips]
    assert frames == [[3 * i + (5 + i) // 4, 3 * i + 3 * (5 + i) // 4] for i in range(8)]


def test_values_lie_between_0_and_1_and_are_varied_in_training_alone(store):
    varied, plain = training(store), training(store, vary=None)
    assert all(clips.min() >= 0 and clips.max() <= 1 for clips, _ in contents(varied))
    plain.set_epoch(5)
    assert same(plain, training(store, vary=None))


def test_same_seed_and_epoch_give_the_same_batches(store):
    assert same(training(store, seed=4, epoch=2), training(store, seed=4, epoch=2, threads=1))
    assert not same(training(store, seed=4, epoch=2), training(store, seed=5, epoch=2))
    assert not same(training(store, seed=4, epoch=2), training(store, seed=4, epoch=3))


def test_setting_an_epoch_equals_living_through_the_epochs_before_it(store):
    lived, jumped = training(store), training(store)
    for _ in range(3):
        contents(lived)
        lived.on_epoch_end()
    jumped.set_epoch(3)
    assert same(lived, jumped)


def test_batches_read_in_any_order_and_again_are_the_same(store):
    batches = training(store)
    first = {number: batches[number] for number in (2, 0, 1, 1, 0)}
    for number, (clips, labels) in first.items():
        assert np.array_equal(clips, batches[number][0])
        assert np.array_equal(labels, batches[number][1])


def test_every_clip_comes_once_in_each_epoch_with_its_own_label(store):
    batches = training(store, vary=ClipAugment(crop=0.2), frames=1)
    middles = [3 * i + (5 + i) // 2 for i in range(8)]
    for epoch in range(3):
        batches.set_epoch(epoch)
        seen = []
        for clips, labels in contents(batches):
            rows = [middles.index(number) for number in numbers_of(255 * clips[:, 0])]
            assert [row % 3 for row in rows] == labels.argmax(1).tolist()
            seen += rows
        assert sorted(seen) == list(range(8))


def test_without_labels_there_are_no_targets_and_without_clips_no_batches(store):
    assert [len(batch) for batch in contents(ClipBatches(store, None, 3, 4, frames=2, size=16))] == [1, 1]
    with pytest.raises(ValueError, match="no clips"):
        ClipBatches([], None, 3, 4)


def test_no_more_batches_are_begun_than_are_needed_next(store):
    batches = training(store)
    for number in range(len(batches)):
        batches[number]
        assert set(batches.begun) <= {number + 1, number + 2}


def test_a_clip_that_cannot_be_read_stops_the_training_with_its_name(store):
    batches = training([*store, Path("nowhere.mjpeg")], vary=None)
    with pytest.raises(StudyError, match=r"nowhere.mjpeg: cannot be read"):
        contents(batches)


def test_fit_sees_the_batches_of_each_epoch_once(store):
    seen = []

    class Recorder(ClipBatches):
        """Notes which batches are read in which epoch."""

        def __getitem__(self, number):
            seen.append((self.epoch, number))
            return super().__getitem__(number)

    layers = [keras.layers.Input((2, 16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    batches = Recorder(store, np.arange(8) % 3, 3, 3, frames=2, size=16, vary=VARY)
    follow = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.set_epoch(epoch))
    model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[follow])  # as lib.training does
    assert seen[-6:] == [(epoch, number) for epoch in range(2) for number in range(3)]
