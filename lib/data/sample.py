"""The synthetic mini-WLASL: a data root in WLASL's own form, with made-up signs by drawn signers.

    python -m lib.data.sample <root> [seed]

Ten glosses in five pairs. The two of a pair have the same handshapes and visit the same places, only in another
order, so that neither the mean pose nor one frame tells them apart: circles one way or the other with a flat hand and
with a fist, one tap or two, in or out, opening or closing. Eight signers differ in build, skin, handedness and speed,
and wear something else before another wall in each clip; those of val and test sign nowhere else. One video is missing,
one is cut short, and one of test is a copy of one of train.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from tqdm.auto import tqdm

from lib.data.signer import SIZE, Pose, Signer, draw, place_on_image, skeleton
from lib.settings import StudyError

ANNOTATED_FPS = 25  # as in WLASL, where it stands at every clip whatever the file's own rate
SPLITS = {"train": (0, 1, 2, 3, 4), "val": (5,), "test": (6, 7)}  # signers
REST = np.array([[-0.62, 1.35], [0.62, 1.35]])  # wrists, right and left
CLOSED, FLAT = np.zeros(5), np.ones(5)
VEE = np.array([0.0, 1.0, 1.0, 0.0, 0.0])
CHEST, CHIN, BROW = np.array([-0.45, 0.55]), np.array([-0.12, 0.12]), np.array([-0.3, -0.5])

Course = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sign:
    """What a gloss looks like between the movements from and to rest; t rises from 0 to 1."""

    wrist: Course  # (n,) -> (n, 2), of the dominant hand
    stretch: Course  # (n,) -> (n, 5)
    two_handed: bool = False


def circle(turns: int) -> Course:
    """Whole circles at the chest, from the top; turns > 0: first towards the signer's left."""
    return lambda t: CHEST + 0.4 * np.stack([np.sin(2 * np.pi * turns * t), -np.cos(2 * np.pi * turns * t)], -1)


def tap(times: int) -> Course:
    """Touch the chin so many times, from a little below."""
    return lambda t: CHIN + np.stack([-0.45 * tent(t, times), 0.55 * tent(t, times)], -1)


def tent(t: np.ndarray, times: int) -> np.ndarray:
    """1 at the ends, 0 at `times` moments between them, so each value is met equally long whatever `times`."""
    return np.abs(1 - np.abs((2 * times * t) % 2))


def slide(start: np.ndarray, end: np.ndarray) -> Course:
    """Along a line, slowly at its ends."""
    return lambda t: start + (end - start) * smooth(t)[:, None]


def hold(stretch: np.ndarray) -> Course:
    """One handshape throughout."""
    return lambda t: np.broadcast_to(stretch, (len(t), 5))


def change(start: np.ndarray, end: np.ndarray) -> Course:
    """From one handshape to another."""
    return lambda t: start + (end - start) * smooth(t)[:, None]


def smooth(t: np.ndarray) -> np.ndarray:
    """From 0 to 1 without a jerk."""
    return t * t * (3 - 2 * t)


ASIDE = BROW + np.array([-0.65, 0.1])
SIGNS: dict[str, Sign] = {
    "flat-circle-in": Sign(circle(2), hold(FLAT)),
    "flat-circle-out": Sign(circle(-2), hold(FLAT)),
    "fist-circle-in": Sign(circle(2), hold(CLOSED)),
    "fist-circle-out": Sign(circle(-2), hold(CLOSED)),
    "fist-tap-once": Sign(tap(1), hold(CLOSED)),
    "fist-tap-thrice": Sign(tap(3), hold(CLOSED)),
    "vee-brow-out": Sign(slide(BROW, ASIDE), hold(VEE)),
    "vee-brow-in": Sign(slide(ASIDE, BROW), hold(VEE)),
    "both-open": Sign(slide(CHEST + (0, 0.2), CHEST + (0, -0.2)), change(CLOSED, FLAT), two_handed=True),
    "both-close": Sign(slide(CHEST + (0, -0.2), CHEST + (0, 0.2)), change(FLAT, CLOSED), two_handed=True),
}


@dataclass(frozen=True)
class Clip:
    """One clip to be made: all that the annotation says of it, and the file's own frames."""

    video_id: str
    gloss: str
    number: int  # within the gloss
    signer: Signer
    split: str
    fps: int
    before: int  # frames of rest before the signed segment
    signed: int  # frames of the signed segment
    after: int


def write_sample(root: Path, seed: int = 0, clips_per_gloss: int = 24) -> None:
    """Write the whole data root: annotations/, videos/, keypoints/, README.txt.

    The same seed gives the same JSON bytes and the same decoded frames. All is made in <root>.part and moved into
    place when complete. Raises StudyError when `root` already exists.
    """
    root = Path(root)
    if root.exists():
        raise StudyError(f"{root} already exists; remove it to make the sample anew")
    part = root.with_name(f"{root.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for folder in ("annotations", "videos", "keypoints"):
        (part / folder).mkdir(parents=True)
    clips = plan_clips(seed, clips_per_gloss)
    with ProcessPoolExecutor() as pool:
        jobs = [pool.submit(write_clip, part, clip, seed) for clip in clips]
        for job in tqdm(jobs, desc="drawing clips", unit="clip"):
            job.result()
    write_annotations(part, clips)
    plant_faults(part, clips)
    (part / "README.txt").write_text("Synthetic: drawn signers, made-up signs. Nothing here is sign language.\n")
    part.rename(root)


def plan_clips(seed: int, clips_per_gloss: int) -> list[Clip]:
    """Decide all clips: as many of each signer as of any other, gloss by gloss."""
    rng = np.random.default_rng([seed, 0])
    signers = [make_signer(number, rng) for number in range(8)]
    split_of = {number: split for split, numbers in SPLITS.items() for number in numbers}
    clips = []
    for label, gloss in enumerate(SIGNS):
        for number in range(clips_per_gloss):
            signer = signers[number % len(signers)]
            fps = int(rng.choice([25, 30]))
            signed = round(fps * rng.uniform(1.35, 1.7) / signer.speed)
            before, after = rng.integers(4, 10, 2) if rng.random() < 0.5 else (0, 0)
            video_id = f"{label * 1000 + number:05d}"
            dressed = dress(signer, np.random.default_rng([seed, 3, int(video_id)]))
            clips.append(Clip(video_id, gloss, number, dressed, split_of[signer.number], fps, before, signed, after))
    return clips


def make_signer(number: int, rng: np.random.Generator) -> Signer:
    """Draw a signer. Numbers 2 and 6, one of train and one of test, are left-handed."""
    tone = rng.uniform(0.35, 1.0)
    return Signer(
        number=number,
        shoulders=rng.uniform(58, 74),
        neck=(SIZE / 2 + rng.uniform(-10, 10), rng.uniform(98, 112)),
        skin=(int(90 + 150 * tone), int(60 + 130 * tone), int(40 + 115 * tone)),
        left_handed=number in (2, 6),
        speed=rng.uniform(0.85, 1.1),
        reach=rng.uniform(0.85, 1.1),
    )


def dress(signer: Signer, rng: np.random.Generator) -> Signer:
    """The signer on another day: dark clothes before a light wall, of any hue."""
    shirt, background = (tuple(int(v) for v in rng.integers(*span, 3)) for span in ((30, 130), (120, 235)))
    return replace(signer, shirt=shirt, background=background)


def poses_of(clip: Clip, rng: np.random.Generator) -> list[Pose]:
    """Every frame's pose: rest, the way there, the sign, the way back, rest."""
    there, back = rng.integers(clip.signed // 8, clip.signed // 4, 2)
    t = np.linspace(0, 1, clip.signed - there - back)
    sign = SIGNS[clip.gloss]
    wrist = sign.wrist(t) + rng.normal(0, 0.04, 2)
    wrist = wrist.mean(0) + (wrist - wrist.mean(0)) * clip.signer.reach * rng.uniform(0.9, 1.1)
    up, down = smooth(np.linspace(0, 1, there, endpoint=False)), smooth(np.linspace(1, 0, back))
    here = np.concatenate([np.zeros(clip.before), up, np.ones(len(t)), down, np.zeros(clip.after)])[:, None]
    edges = (clip.before + there, clip.after + back)
    wrist, stretch = (np.pad(v, (edges, (0, 0)), mode="edge") for v in (wrist, sign.stretch(t)))
    moving = REST[0] + (wrist - REST[0]) * here
    shape = 0.5 + (np.clip(stretch + rng.normal(0, 0.05, 5), 0, 1) - 0.5) * here  # a hand at rest is half open
    direction = rng.normal(0, 0.12) + np.pi * (1 - here[:, 0])  # and points down
    if sign.two_handed:
        other = moving * (-1, 1), -direction, shape
    else:
        other = np.broadcast_to(REST[1], moving.shape), np.full(len(here), np.pi), np.full_like(shape, 0.5)
    both = (np.stack(pair, axis=1) for pair in zip((moving, direction, shape), other, strict=True))
    return [Pose(*frame) for frame in zip(*both, strict=True)]


def joints_of(clip: Clip, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True joints in pixels: body (frames, 25, 2), hands (frames, 2, 21, 2) right, left; NaN outside the drawing."""
    rng = np.random.default_rng([seed, 1, int(clip.video_id)])
    sway = np.cumsum(rng.normal(0, 0.25, (clip.before + clip.signed + clip.after, 2)), axis=0)
    bodies, hands = zip(*map(skeleton, poses_of(clip, rng)), strict=True)
    body, both = (place_on_image(np.stack(v), clip.signer) for v in (bodies, hands))
    if clip.signer.left_handed:
        body, both = mirror(body, both, 2 * clip.signer.neck[0])
    return body + sway[:, None], both + sway[:, None, None]


def mirror(body: np.ndarray, hands: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """The same signing by the other hand: reflect, and let left and right joints change places."""
    order = np.arange(25)
    order[[2, 3, 4, 5, 6, 7, 15, 16, 17, 18]] = [5, 6, 7, 2, 3, 4, 16, 15, 18, 17]
    flip, shift = np.array([-1.0, 1.0]), np.array([width, 0.0])
    return (body * flip + shift)[:, order], (hands * flip + shift)[:, ::-1]


def write_clip(root: Path, clip: Clip, seed: int) -> None:
    """Write one clip's video and keypoints; every clip has its own random numbers, so the order does not matter."""
    body, hands = joints_of(clip, seed)
    pictures = (draw(b, h, clip.signer) for b, h in zip(body, hands, strict=True))
    encode(root / "videos" / f"{clip.video_id}.mp4", pictures, clip.fps)
    rng = np.random.default_rng([seed, 2, int(clip.video_id)])
    folder = root / "keypoints" / clip.video_id
    folder.mkdir()
    for number, people in enumerate(detections(body, hands, rng), start=1):
        path = folder / f"image_{number:05d}_keypoints.json"
        path.write_text(json.dumps({"version": 1.3, "people": people}))


def encode(path: Path, pictures: Iterable[np.ndarray], fps: int, size: tuple[int, int] = (SIZE, SIZE)) -> None:
    """Write uint8 RGB pictures of `size` (width, height) as H.264, the same bytes for the same pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "23", "preset": "veryfast", "threads": "1"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def detections(body: np.ndarray, hands: np.ndarray, rng: np.random.Generator) -> list[list[dict]]:
    """What a detector would find: noisy joints, hands lost for some frames, now and then a bystander."""
    lost = rng.random((len(body), 2)) < 0.06
    bystander = rng.random() < 0.2
    frames = []
    for b, h, gone in zip(body, hands, lost, strict=True):
        people = [person(b, h, gone, rng)]
        if bystander:
            small = b * 0.35 + (12, 8)
            people.insert(int(rng.integers(2)), person(small, h * 0.35, np.ones(2, bool), rng))
        frames.append(people)
    return frames


def person(body: np.ndarray, hands: np.ndarray, lost: np.ndarray, rng: np.random.Generator) -> dict:
    """One person in OpenPose's form; a missing joint is 0, 0 with confidence 0."""
    right, left = (np.where(gone, np.nan, h) for h, gone in zip(hands, lost, strict=True))
    lists = {"pose": body, "face": np.zeros((0, 2)), "hand_left": left, "hand_right": right}
    return {"person_id": [-1], **{f"{name}_keypoints_2d": triples(xy, rng) for name, xy in lists.items()}}


def triples(joints: np.ndarray, rng: np.random.Generator) -> list[float]:
    """x, y, confidence of every joint in one list, with a detector's noise."""
    noisy = joints + rng.normal(0, 0.8, joints.shape)
    confidence = rng.uniform(0.6, 0.95, (len(joints), 1))
    values = np.nan_to_num(np.where(np.isnan(joints).any(1, keepdims=True), 0, np.hstack([noisy, confidence])))
    return np.round(values, 3).ravel().tolist()


def write_annotations(root: Path, clips: list[Clip]) -> None:
    """Write WLASL_v0.3.json, nslt_<n>.json and wlasl_class_list.txt as WLASL has them."""
    glosses = list(SIGNS)
    folder = root / "annotations"
    records = [{"gloss": g, "instances": [instance(c) for c in clips if c.gloss == g]} for g in glosses]
    (folder / "WLASL_v0.3.json").write_text(json.dumps(records, indent=1))
    (folder / "wlasl_class_list.txt").write_text("".join(f"{i}\t{g}\n" for i, g in enumerate(glosses)))
    nslt = {c.video_id: {"subset": c.split, "action": [glosses.index(c.gloss), *segment(c)]} for c in clips}
    (folder / f"nslt_{len(glosses)}.json").write_text(json.dumps(nslt))


def instance(clip: Clip) -> dict:
    """One record of WLASL_v0.3.json."""
    start, end = segment(clip)
    x, y = clip.signer.neck
    reach = 1.75 * clip.signer.shoulders
    box = [x - reach, y - 1.1 * clip.signer.shoulders, x + reach, SIZE]
    return {
        "bbox": [int(np.clip(v, 0, SIZE)) for v in box],
        "fps": ANNOTATED_FPS,
        "frame_end": end,
        "frame_start": start,
        "instance_id": clip.number,
        "signer_id": clip.signer.number,
        "source": "synthetic",
        "split": clip.split,
        "url": f"synthetic://{clip.video_id}",
        "variation_id": 0,
        "video_id": clip.video_id,
    }


def segment(clip: Clip) -> tuple[int, int]:
    """First and last frame, 1-based and inclusive, at the annotated rate; (1, -1) where it is the whole file."""
    if not clip.before:
        return 1, -1
    ratio = ANNOTATED_FPS / clip.fps
    return round(clip.before * ratio) + 1, round((clip.before + clip.signed) * ratio)


def plant_faults(root: Path, clips: list[Clip]) -> None:
    """Remove one clip, cut one video short, and put a copy of a clip of train in the place of one of test."""
    train = [clip for clip in clips if clip.split == "train"]
    original = train[0]
    twin = next(clip for clip in clips if clip.split == "test" and clip.gloss == original.gloss)
    missing, short = train[-1], train[-2]
    for kind in ("videos", "keypoints"):
        copy(root / kind, original.video_id, twin.video_id)
    (root / "videos" / f"{missing.video_id}.mp4").unlink()
    shutil.rmtree(root / "keypoints" / missing.video_id)
    video = root / "videos" / f"{short.video_id}.mp4"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])


def copy(folder: Path, source: str, target: str) -> None:
    """Put the file or folder of one clip in the place of another's."""
    if folder.name == "videos":
        shutil.copyfile(folder / f"{source}.mp4", folder / f"{target}.mp4")
        return
    shutil.rmtree(folder / target)
    shutil.copytree(folder / source, folder / target)


if __name__ == "__main__":
    write_sample(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
