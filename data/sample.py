"""The synthetic mini-WLASL: a data root in WLASL's own format, with invented signs by drawn signers.

    python data/sample.py <root> [seed]

Ten glosses in five pairs. The two of a pair use the same handshapes and visit the same places in a different order, so
that neither the mean pose nor any single frame tells them apart. Eight signers differ in build, skin, handedness and
speed, and wear different clothes in front of a different wall in each clip; those of val and test sign in no other
split. One video is missing, one is cut short, and one of test is a copy of one of train. Four more glosses follow, for
subsets are nested, as WLASL's are: a study of ten does not know them and can choose by them when to answer "unknown".

Joints are placed in shoulder widths of the signer, y downwards, with the origin at the neck, and then scaled to pixels.
Left and right are the signer's own; the signer faces the camera, so the right hand is on the left of the image.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from tqdm.auto import tqdm

from lib.machine import cores, processes
from lib.settings import StudyError

SIZE = 256  # width and height of a video, pixels
ANNOTATED_FPS = 25  # as in WLASL, which annotates it for every clip whatever the file's own rate
SPLITS = {"train": (0, 1, 2, 3, 4), "val": (5,), "test": (6, 7)}  # signers
OUTSIDE_SIGNERS = (5, 6, 0, 5, 7, 5, 6, 7)  # of clips outside the vocabulary: val and test need them, train hardly any

UPPER_ARM, FOREARM = 0.8, 0.75
SHOULDER, HIP = np.array([-0.5, 0.1]), np.array([-0.35, 1.5])  # the right ones
NOSE, EYE, EAR = np.array([0.0, -0.55]), np.array([0.13, -0.65]), np.array([0.27, -0.6])  # the left ones
PALM, FINGER = 0.34, np.array([0.22, 0.33, 0.37, 0.34, 0.26])  # thumb first
SPREAD = np.radians([-62.0, -22.0, -5.0, 11.0, 27.0])
PHALANGES = np.array([0.45, 0.3, 0.25])
CURL = np.radians([75.0, 160.0, 215.0])  # of the three phalanges of a closed finger, seen from the front
FLIP = np.array([-1.0, 1.0])  # from one side to the other
REST = np.array([[-0.62, 1.35], [0.62, 1.35]])  # wrists, right and left

CLOSED, FLAT, VEE = np.zeros(5), np.ones(5), np.array([0.0, 1.0, 1.0, 0.0, 0.0])  # how far each finger is stretched
CHEST, CHIN, BROW = np.array([-0.45, 0.55]), np.array([-0.12, 0.12]), np.array([-0.3, -0.5])
ASIDE, LOW, HIGH = BROW + np.array([-0.65, 0.1]), CHEST + (0, 0.2), CHEST + (0, -0.2)

Course = Callable[[np.ndarray], np.ndarray]  # what happens while t (n,) goes from 0 to 1: (n, values)


def _circle(turns: int) -> Course:
    """Whole circles at the chest, from the top; turns > 0: first towards the signer's left."""
    return lambda t: CHEST + 0.4 * np.stack([np.sin(2 * np.pi * turns * t), -np.cos(2 * np.pi * turns * t)], -1)


def _tap(times: int) -> Course:
    """Touch the chin from a little below; the hand is as long at each distance, however many `times`."""
    return lambda t: CHIN + np.abs(1 - np.abs((2 * times * t) % 2))[:, None] * (-0.45, 0.55)


def _glide(start: np.ndarray, end: np.ndarray) -> Course:
    """From one place or handshape to another, slowly at both ends."""
    return lambda t: start + (end - start) * _smooth(t)[:, None]


def _zigzag(start: np.ndarray, end: np.ndarray) -> Course:
    """From one place to another, twice to the side and back on the way."""
    return lambda t: start + (end - start) * t[:, None] + 0.35 * np.cos(4 * np.pi * t)[:, None] * (1, 0)


def _smooth(t: np.ndarray) -> np.ndarray:
    return t * t * (3 - 2 * t)


# Each gloss between the movements from and to rest: the dominant wrist (n, 2), stretch of the fingers (n, 5), hands.
SIGNS: dict[str, tuple[Course, Course, int]] = {
    "flat-circle-in": (_circle(2), _glide(FLAT, FLAT), 1),
    "flat-circle-out": (_circle(-2), _glide(FLAT, FLAT), 1),
    "fist-circle-in": (_circle(2), _glide(CLOSED, CLOSED), 1),
    "fist-circle-out": (_circle(-2), _glide(CLOSED, CLOSED), 1),
    "fist-tap-once": (_tap(1), _glide(CLOSED, CLOSED), 1),
    "fist-tap-thrice": (_tap(3), _glide(CLOSED, CLOSED), 1),
    "vee-brow-out": (_glide(BROW, ASIDE), _glide(VEE, VEE), 1),
    "vee-brow-in": (_glide(ASIDE, BROW), _glide(VEE, VEE), 1),
    "both-open": (_glide(LOW, HIGH), _glide(CLOSED, FLAT), 2),
    "both-close": (_glide(HIGH, LOW), _glide(FLAT, CLOSED), 2),
}
OUTSIDE: dict[str, tuple[Course, Course, int]] = {  # a study of the ten does not know these
    "flat-zigzag-down": (_zigzag(BROW, LOW), _glide(FLAT, FLAT), 1),
    "flat-zigzag-up": (_zigzag(LOW, BROW), _glide(FLAT, FLAT), 1),
    "both-part": (_glide(CHIN, ASIDE), _glide(VEE, VEE), 2),
    "both-meet": (_glide(ASIDE, CHIN), _glide(VEE, VEE), 2),
}


class Signer(NamedTuple):
    """Who signs: everything that differs between signers and not between signs."""

    number: int
    shoulders: float  # width, pixels
    neck: tuple[float, float]  # pixels
    skin: tuple[int, int, int]
    left_handed: bool
    speed: float  # 1 = usual
    reach: float  # size of movements, 1 = usual
    shirt: tuple[int, int, int] = (80, 80, 80)
    background: tuple[int, int, int] = (180, 180, 180)


class Clip(NamedTuple):
    """One clip to be drawn: what the annotation states, and the file's own frames."""

    video_id: str
    gloss: str
    number: int  # within the gloss
    signer: Signer
    split: str
    fps: int
    before: int  # frames of rest before the signed segment
    signed: int  # frames of the signed segment
    after: int

    def segment(self) -> tuple[int, int]:
        """First and last frame as annotated: 1-based, inclusive, at ANNOTATED_FPS; (1, -1) for the whole file."""
        if not self.before:
            return 1, -1
        ratio = ANNOTATED_FPS / self.fps
        return round(self.before * ratio) + 1, round((self.before + self.signed) * ratio)


def write_sample(root: Path, seed: int = 0, clips_per_gloss: int = 24) -> None:
    """Write the whole data root: annotations/, videos/, keypoints/, README.txt.

    The same seed gives the same JSON bytes and the same decoded frames. Everything is made in <root>.part and moved
    into place when complete. Raises StudyError when `root` already exists.
    """
    root = Path(root)
    if root.exists():
        raise StudyError(f"{root} already exists; remove it to make the sample again")
    part = root.with_name(f"{root.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for folder in ("annotations", "videos", "keypoints"):
        (part / folder).mkdir(parents=True)
    clips = plan_clips(seed, clips_per_gloss)
    with processes(cores(), __name__) as pool:
        jobs = [pool.submit(_write_clip, part, clip, seed) for clip in clips]
        for job in tqdm(jobs, desc="drawing clips", unit="clip"):
            job.result()
    _write_annotations(part / "annotations", clips)
    _plant_faults(part / "videos", part / "keypoints", [clip for clip in clips if clip.gloss in SIGNS])
    (part / "README.txt").write_text("Synthetic: drawn signers, made-up signs. Nothing here is sign language.\n")
    part.rename(root)


def plan_clips(seed: int, clips_per_gloss: int) -> list[Clip]:
    """Decide on all clips, gloss by gloss, with equally many by each signer; of OUTSIDE, a third as many."""
    rng = np.random.default_rng([seed, 0])
    signers = [_make_signer(number, rng) for number in range(8)]
    split_of = {number: split for split, numbers in SPLITS.items() for number in numbers}
    clips = []
    for label, gloss in enumerate([*SIGNS, *OUTSIDE]):
        for number in range(clips_per_gloss if gloss in SIGNS else clips_per_gloss // 3):
            signer = signers[number % 8 if gloss in SIGNS else OUTSIDE_SIGNERS[number % 8]]
            fps = int(rng.choice([25, 30]))
            signed = round(fps * rng.uniform(1.35, 1.7) / signer.speed)
            before, after = rng.integers(4, 10, 2) if rng.random() < 0.5 else (0, 0)
            video_id = f"{label * 1000 + number:05d}"
            # Dark clothes of any hue in front of a light wall.
            look = np.random.default_rng([seed, 3, int(video_id)])
            shirt, background = (tuple(int(v) for v in look.integers(*span, 3)) for span in ((30, 130), (120, 235)))
            dressed = signer._replace(shirt=shirt, background=background)
            clips.append(Clip(video_id, gloss, number, dressed, split_of[signer.number], fps, before, signed, after))
    return clips


def _make_signer(number: int, rng: np.random.Generator) -> Signer:
    tone = rng.uniform(0.35, 1.0)
    return Signer(
        number=number,
        shoulders=rng.uniform(58, 74),
        neck=(SIZE / 2 + rng.uniform(-10, 10), rng.uniform(98, 112)),
        skin=(int(90 + 150 * tone), int(60 + 130 * tone), int(40 + 115 * tone)),
        left_handed=number in (2, 6),  # one of train and one of test
        speed=rng.uniform(0.85, 1.1),
        reach=rng.uniform(0.85, 1.1),
    )


def joints_of(clip: Clip, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True joints in pixels: body (frames, 25, 2) in the order of BODY_25, hands (frames, 2, 21, 2) right, left.

    Legs and feet (joints 9 to 14, 19 to 24) are outside the picture: NaN.
    """
    rng = np.random.default_rng([seed, 1, int(clip.video_id)])
    sway = np.cumsum(rng.normal(0, 0.25, (clip.before + clip.signed + clip.after, 2)), axis=0)
    skeletons = [_skeleton(*frame) for frame in zip(*_movement(clip, rng), strict=True)]
    shoulders, neck = clip.signer.shoulders, np.array(clip.signer.neck)
    body, hands = (np.stack(joints) * shoulders + neck for joints in zip(*skeletons, strict=True))
    if clip.signer.left_handed:  # reflect, and swap left and right joints
        order = np.arange(25)
        order[[2, 3, 4, 5, 6, 7, 15, 16, 17, 18]] = [5, 6, 7, 2, 3, 4, 16, 15, 18, 17]
        shift = np.array([2 * neck[0], 0.0])
        body, hands = (body * FLIP + shift)[:, order], (hands * FLIP + shift)[:, ::-1]
    return body + sway[:, None], hands + sway[:, None, None]


def _movement(clip: Clip, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Both hands, the right one first, at rest, on the way to the sign, signing, on the way back, at rest.

    Returns wrists (frames, 2, 2), directions of the fingers (frames, 2) in radians, 0 = up, positive towards the
    signer's left, and stretch of the fingers (frames, 2, 5) from 0 = closed to 1 = stretched.
    """
    there, back = rng.integers(clip.signed // 8, clip.signed // 4, 2)
    t = np.linspace(0, 1, clip.signed - there - back)
    course, shapes, hands = (SIGNS | OUTSIDE)[clip.gloss]
    wrist = course(t) + rng.normal(0, 0.04, 2)
    wrist = wrist.mean(0) + (wrist - wrist.mean(0)) * clip.signer.reach * rng.uniform(0.9, 1.1)
    up, down = _smooth(np.linspace(0, 1, there, endpoint=False)), _smooth(np.linspace(1, 0, back))
    here = np.concatenate([np.zeros(clip.before), up, np.ones(len(t)), down, np.zeros(clip.after)])[:, None]
    edges = (clip.before + there, clip.after + back)
    wrist, stretch = (np.pad(v, (edges, (0, 0)), mode="edge") for v in (wrist, shapes(t)))
    moving = REST[0] + (wrist - REST[0]) * here
    shape = 0.5 + (np.clip(stretch + rng.normal(0, 0.05, 5), 0, 1) - 0.5) * here  # a hand at rest is half open
    direction = rng.normal(0, 0.12) + np.pi * (1 - here[:, 0])  # and points down
    if hands == 2:
        other = moving * FLIP, -direction, shape
    else:
        other = np.broadcast_to(REST[1], moving.shape), np.full(len(here), np.pi), np.full_like(shape, 0.5)
    return tuple(np.stack(pair, axis=1) for pair in zip((moving, direction, shape), other, strict=True))


def _skeleton(wrists: np.ndarray, directions: np.ndarray, stretch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The joints of one frame in shoulder widths: body (25, 2), hands (2, 21, 2)."""
    body = np.full((25, 2), np.nan)
    for wrist, shoulder, joints in zip(wrists, (SHOULDER, SHOULDER * FLIP), ([2, 3, 4], [5, 6, 7]), strict=True):
        body[joints] = shoulder, _elbow(shoulder, wrist), wrist
    body[[0, 1, 8]] = NOSE, (0.0, 0.0), (0.0, HIP[1])
    body[15:19] = EYE * FLIP, EYE, EAR * FLIP, EAR
    hands = [_hand(*hand, thumb) for *hand, thumb in zip(wrists, directions, stretch, (1, -1), strict=True)]
    return body, np.stack(hands)


def _elbow(shoulder: np.ndarray, wrist: np.ndarray) -> np.ndarray:
    """Where the elbow is, by the law of cosines, away from the body; an arm that is too short points at the wrist."""
    line = wrist - shoulder
    distance = np.clip(np.linalg.norm(line), 1e-6, UPPER_ARM + FOREARM - 1e-6)
    along = (UPPER_ARM**2 - FOREARM**2 + distance**2) / (2 * distance)
    aside = np.sqrt(max(UPPER_ARM**2 - along**2, 0.0))
    unit = line / max(np.linalg.norm(line), 1e-6)
    normal = np.array([-unit[1], unit[0]])
    elbows = [shoulder + along * unit + sign * aside * normal for sign in (-1, 1)]
    return max(elbows, key=lambda elbow: elbow[0] * np.sign(shoulder[0]))


def _hand(wrist: np.ndarray, direction: float, stretch: np.ndarray, thumb: int) -> np.ndarray:
    """The 21 joints of a hand that shows its palm: wrist, then thumb to little finger, four joints each.

    `thumb` is 1 if the thumb lies towards positive x (the right hand), else -1. A closing finger gets shorter and folds
    back over the palm, as seen from the front.
    """
    joints = [np.zeros(2)]
    for finger in range(5):
        angle = direction - thumb * SPREAD[finger]
        way = np.array([np.sin(angle), -np.cos(angle)])
        knuckle = way * PALM * (0.55 if finger == 0 else 1.0)
        steps = FINGER[finger] * PHALANGES * np.cos((1 - stretch[finger]) * CURL)
        joints += [knuckle, *(knuckle + way * reach for reach in np.cumsum(steps))]
    return wrist + np.array(joints)


def draw(body: np.ndarray, hands: np.ndarray, signer: Signer) -> np.ndarray:
    """Draw one frame, uint8 (SIZE, SIZE, 3) RGB, from joints in pixels: body (25, 2), hands (2, 21, 2)."""
    image, unit = _wall(signer.background).copy(), signer.shoulders
    hip = np.array([HIP[0], 0]) * unit
    torso = np.array([body[2], body[5], body[8] - hip, body[8] + hip])
    cv2.fillConvexPoly(image, np.round(torso).astype(np.int32), signer.shirt, cv2.LINE_AA)
    _line(image, body[1], body[1] + (0, -0.3 * unit), signer.skin, 0.26 * unit)
    face = tuple(int(v * unit) for v in (0.27, 0.36))
    cv2.ellipse(image, _pixel(body[0] - (0, 0.03 * unit)), face, 0, 0, 360, signer.skin, -1, cv2.LINE_AA)
    for eye in body[15:17]:
        cv2.circle(image, _pixel(eye), max(1, int(0.04 * unit)), (40, 30, 30), -1, cv2.LINE_AA)
    sleeve = tuple(int(0.72 * c) for c in signer.shirt)
    for shoulder, elbow, wrist in [(2, 3, 4), (5, 6, 7)]:
        _line(image, body[shoulder], body[elbow], sleeve, 0.27 * unit)
        _line(image, body[elbow], body[wrist], sleeve, 0.2 * unit)
    for joints in hands:
        _draw_hand(image, joints, signer)
    return image


@lru_cache(maxsize=1)
def _wall(colour: tuple[int, int, int]) -> np.ndarray:
    """The empty picture, of which each frame of a clip is a copy; the wall grows darker downwards."""
    shade = np.linspace(1.0, 0.8, SIZE)[:, None, None]
    return np.broadcast_to(shade * np.array(colour), (SIZE, SIZE, 3)).astype(np.uint8, order="C")


def _draw_hand(image: np.ndarray, joints: np.ndarray, signer: Signer) -> None:
    """Palm and fingers with a dark edge, which keeps fingers apart."""
    unit = signer.shoulders
    edge = tuple(int(0.55 * c) for c in signer.skin)
    hull = cv2.convexHull(np.round(joints[[0, 1, 5, 9, 13, 17]]).astype(np.int32))
    for colour, extra in [(edge, 0.06), (signer.skin, 0.0)]:
        cv2.fillConvexPoly(image, hull, colour, cv2.LINE_AA)
        cv2.polylines(image, [hull], True, colour, max(1, round((0.06 + extra) * unit)), cv2.LINE_AA)
    for finger in range(5):
        for colour, width in [(edge, 0.145), (signer.skin, 0.095)]:
            for a, b in pairwise(joints[1 + 4 * finger : 5 + 4 * finger]):
                _line(image, a, b, colour, width * unit)


def _line(image: np.ndarray, a: np.ndarray, b: np.ndarray, colour: tuple[int, int, int], width: float) -> None:
    cv2.line(image, _pixel(a), _pixel(b), colour, max(1, round(width)), cv2.LINE_AA)


def _pixel(xy: np.ndarray) -> tuple[int, int]:
    return round(float(xy[0])), round(float(xy[1]))


def _write_clip(root: Path, clip: Clip, seed: int) -> None:
    """Write the video and the keypoints of a clip; its random numbers are its own, so the order does not matter."""
    body, hands = joints_of(clip, seed)
    pictures = (draw(b, h, clip.signer) for b, h in zip(body, hands, strict=True))
    encode(root / "videos" / f"{clip.video_id}.mp4", pictures, clip.fps)
    rng = np.random.default_rng([seed, 2, int(clip.video_id)])
    folder = root / "keypoints" / clip.video_id
    folder.mkdir()
    lost = rng.random((len(body), 2)) < 0.06  # hands that the detector misses
    bystander = rng.random() < 0.2
    for number, (b, h, gone) in enumerate(zip(body, hands, lost, strict=True), start=1):
        people = [_person(b, h, gone, rng)]
        if bystander:
            people.insert(int(rng.integers(2)), _person(b * 0.35 + (12, 8), h * 0.35, np.ones(2, bool), rng))
        (folder / f"image_{number:05d}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": people}))


def encode(path: Path, pictures: Iterable[np.ndarray], fps: int, size: tuple[int, int] = (SIZE, SIZE)) -> None:
    """Write uint8 RGB pictures of `size` (width, height) as H.264, the same bytes for the same pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "23", "preset": "veryfast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _person(body: np.ndarray, hands: np.ndarray, lost: np.ndarray, rng: np.random.Generator) -> dict:
    """One person as OpenPose writes it, with a detector's noise; a missing joint is 0, 0 with confidence 0."""
    right, left = (np.where(gone, np.nan, h) for h, gone in zip(hands, lost, strict=True))
    person = {"person_id": [-1]}
    for name, joints in {"pose": body, "face": np.zeros((0, 2)), "hand_left": left, "hand_right": right}.items():
        noisy = joints + rng.normal(0, 0.8, joints.shape)
        confidence = rng.uniform(0.6, 0.95, (len(joints), 1))
        values = np.where(np.isnan(joints).any(1, keepdims=True), 0, np.hstack([noisy, confidence]))
        person[f"{name}_keypoints_2d"] = np.round(np.nan_to_num(values), 3).ravel().tolist()
    return person


def _write_annotations(folder: Path, clips: list[Clip]) -> None:
    glosses = [*SIGNS, *OUTSIDE]
    records = [{"gloss": g, "instances": [_instance(c) for c in clips if c.gloss == g]} for g in glosses]
    (folder / "WLASL_v0.3.json").write_text(json.dumps(records, indent=1))
    (folder / "wlasl_class_list.txt").write_text("".join(f"{i}\t{g}\n" for i, g in enumerate(glosses)))
    nslt = {c.video_id: {"subset": c.split, "action": [glosses.index(c.gloss), *c.segment()]} for c in clips}
    for count in (len(SIGNS), len(glosses)):
        listed = {video_id: clip for video_id, clip in nslt.items() if clip["action"][0] < count}
        (folder / f"nslt_{count}.json").write_text(json.dumps(listed))


def _instance(clip: Clip) -> dict:
    start, end = clip.segment()
    x, y = clip.signer.neck
    reach = 1.75 * clip.signer.shoulders
    box = [x - reach, y - 1.1 * clip.signer.shoulders, x + reach, SIZE]
    return {
        "bbox": [int(np.clip(v, 0, SIZE)) for v in box], "fps": ANNOTATED_FPS, "frame_end": end, "frame_start": start,
        "instance_id": clip.number, "signer_id": clip.signer.number, "source": "synthetic", "split": clip.split,
        "url": f"synthetic://{clip.video_id}", "variation_id": 0, "video_id": clip.video_id,
    }  # fmt: skip


def _plant_faults(videos: Path, keypoints: Path, clips: list[Clip]) -> None:
    """Remove one clip, cut one video short, and replace a clip of test by a copy of one of train."""
    train = [clip for clip in clips if clip.split == "train"]
    original, short, missing = train[0], train[-2].video_id, train[-1].video_id
    twin = next(clip.video_id for clip in clips if clip.split == "test" and clip.gloss == original.gloss)
    shutil.copyfile(videos / f"{original.video_id}.mp4", videos / f"{twin}.mp4")
    shutil.rmtree(keypoints / twin)
    shutil.copytree(keypoints / original.video_id, keypoints / twin)
    (videos / f"{missing}.mp4").unlink()
    shutil.rmtree(keypoints / missing)
    video = videos / f"{short}.mp4"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])


if __name__ == "__main__":
    write_sample(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
