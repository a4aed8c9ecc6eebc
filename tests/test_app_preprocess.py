"""What the page makes of landmarks before the model reads them, held to Python's."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from lib.data.augment import resample
from lib.data.hands import order_hands
from lib.data.poses import pad, shorten, trim
from lib.export.files import open_model, run_clip
from lib.paths import REPOSITORY
from lib.predict.model import best_released

LENGTH = 64  # frames that the released model reads
LARGEST = 1e-4  # difference of a logit
RELEASED = best_released().with_suffix(".onnx")
# Reads clips of landmarks, float32 one after another, and writes what a model reads of each, zeros for null.
SCRIPT = """
import { readFileSync, writeSync } from "node:fs";
const { prepare, VALUES } = await import(process.argv[1]);
const bytes = readFileSync(0);
const all = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
const [length, counts, seconds] = JSON.parse(process.argv[2]);
let start = 0;
for (const count of counts) {
  const frames = Array.from({ length: count }, (_, n) => all.subarray((start + n) * VALUES, (start + n + 1) * VALUES));
  const clip = prepare(frames, length, seconds) ?? new Float32Array(length * VALUES);
  const out = Buffer.from(clip.buffer);
  for (let at = 0; at < out.length; ) at += writeSync(1, out, at);
  start += count;
}
"""


def in_javascript(clips, length=LENGTH, seconds=None):
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not here to run the page's modules")
    module = (REPOSITORY / "lib" / "app" / "preprocess.js").as_uri()
    landmarks = b"".join(np.ascontiguousarray(clip, "<f4").tobytes() for clip in clips)
    counts = json.dumps([length, [len(clip) for clip in clips], seconds])
    command = [node, "--input-type=module", "--eval", SCRIPT, module, counts]
    done = subprocess.run(command, input=landmarks, capture_output=True, timeout=300)
    assert not done.returncode, done.stderr.decode()
    return np.frombuffer(done.stdout, "<f4").reshape(len(clips), length, 42, 3)


def in_python(clips, length=LENGTH):
    return pad([shorten(trim(order_hands(clip)), length) for clip in clips] + [np.zeros((length, 42, 3))], length)[:-1]


def made_clips():
    """Hands that wander, cross, vanish, change slots and are found twice; clips shorter and longer than the model's."""
    rng = np.random.default_rng(24)
    clips = []
    for frames in (1, 2, 7, 40, 63, 64, 65, 90, 127, 233):
        shape = rng.normal(0, 0.04, (2, 21, 3)) + rng.normal(0, 0.01, (frames, 2, 21, 3))
        places = rng.uniform(0.2, 0.8, (1, 2, 1, 3)) + np.cumsum(rng.normal(0, 0.02, (frames, 2, 1, 3)), 0)
        clip = (shape + places).astype(np.float32)
        twins = rng.random(frames) < 0.1
        clip[twins, 1] = clip[twins, 0] + rng.normal(0, 0.001, (twins.sum(), 21, 3))
        clip[rng.random((frames, 2)) < 0.25] = -1
        swapped = rng.random(frames) < 0.3
        clip[swapped] = clip[swapped, ::-1]
        clip[: frames // 8] = clip[frames - frames // 8 :] = -1
        clips.append(clip)
    clips[3][20, 0, 4, 1] = np.nan  # no place: the hand is missing
    clips[5][..., 2][rng.random((64, 2, 21)) < 0.5] = np.inf  # no depth: 0
    return [*clips, np.full((5, 2, 21, 3), -1, np.float32)]


def largest_difference(clips):
    runner = open_model(RELEASED)
    ours, theirs = (
        [run_clip(runner, clip[None]) for clip in made] for made in (in_javascript(clips), in_python(clips))
    )
    return max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))


def test_made_clips_are_prepared_as_in_python():
    clips = made_clips()
    np.testing.assert_allclose(in_javascript(clips), in_python(clips), atol=1e-6)
    np.testing.assert_allclose(in_javascript(clips, 13), in_python(clips, 13), atol=1e-6)
    assert largest_difference(clips) <= LARGEST


def test_half_a_frame_is_rounded_as_in_python():
    # Three of four frames lie at 0, 1.5 and 3; beside 1.5 there is a hand on one side only.
    for gone in (1, 2):
        clip = np.random.default_rng(gone).random((4, 2, 21, 3), np.float32)
        clip[gone] = -1
        np.testing.assert_allclose(in_javascript([clip], 3), in_python([clip], 3), atol=1e-6)


def test_frames_of_a_camera_are_put_at_the_rate_that_models_know():
    rng = np.random.default_rng(7)
    (clip,) = (clip for clip in made_clips() if len(clip) == 40)
    for seconds in (np.arange(40) / 25, np.arange(40) / 8, np.cumsum(rng.uniform(0.02, 0.2, 40))):
        times = np.arange(int((seconds[-1] - seconds[0]) * 25 + 1e-6) + 1) / 25
        positions = np.minimum(np.interp(times, seconds - seconds[0], np.arange(40)), 39)
        expected = pad([shorten(trim(resample(order_hands(clip), positions)), 200)], 200)
        found = in_javascript([clip], 200, seconds.tolist())
        np.testing.assert_allclose(found, expected, atol=1e-5)
    (still,) = in_javascript([clip[10:11]], 200, [3.0])
    assert (still[1:] == 0).all()


def test_real_clips_are_prepared_as_in_python(wlasl_root):
    with np.load(wlasl_root / "hands" / "wlasl300_hands.npz") as archive:
        clips = [archive[name].astype(np.float32) for name in archive.files[::20]]
    assert len(clips) > 100
    assert largest_difference(clips) <= LARGEST
