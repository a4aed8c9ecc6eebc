"""Augmentation of a batch of poses in torch, on the device that the model is on: space, time, what a detector loses.

Inside, a batch is (batch, frames, 3, joints): planes of x, y and present in {0, 1}. A missing joint's x and y mean
nothing until the end, when they are set to 0. Nothing here waits for a GPU.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from lib.data.augment import PoseAugment
from lib.data.layouts import FINGERS, SIDES, Layout

NO_SPREAD = 1e-5  # relative to another clip's spread: float32 has seven digits
NEITHER = len(SIDES)  # the side of a joint that belongs to no hand
PADDING = -1.0  # the position of a frame that is only there to fill the batch
MASKED = 0.2, 0.4  # shares of the frames that a time mask takes, and of the extent that a box does


class PoseClips:
    """Clips of any length on one device, end to end, to be sampled many at a time."""

    def __init__(self, clips: Sequence[np.ndarray], device: torch.device | str) -> None:
        """Copy clips, each float32 (frames, joints, 3), to the device."""
        self.device = torch.device(device)
        self.frames = torch.from_numpy(np.concatenate(clips)).to(self.device).transpose(1, 2).contiguous()
        lengths = torch.tensor([len(clip) for clip in clips])
        self.first = (lengths.cumsum(0) - lengths).to(self.device)
        self.last = (lengths - 1).to(self.device)

    def sample(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Sample clips `rows` (batch,) at fractional frame numbers (batch, frames); see `lib.data.augment.resample`.

        Returns float32 (batch, frames, 3, joints), empty where the position is PADDING.
        """
        low = positions.clamp(min=0).floor()
        weight = (positions - low)[..., None, None]
        low = low.long()
        high = torch.minimum(low + 1, self.last[rows, None])
        before, after = (self.frames[self.first[rows, None] + number] for number in (low, high))
        both = before[:, :, 2:] * after[:, :, 2:] > 0
        nearest = torch.where(weight <= 0.5, before, after)
        sampled = torch.where(both, torch.lerp(before, after, weight), nearest)
        return sampled * (positions >= 0).float()[..., None, None]


def draw_positions(
    lengths: np.ndarray, how: PoseAugment, rng: np.random.Generator, max_frames: int, pad_to: int, least: int = 1
) -> np.ndarray:
    """Where to sample clips of these lengths: crop both ends, change the speed overall and, smoothly, within.

    Drawn without a device, as the number of frames is needed to lay out the batch.
    Returns fractional frame numbers, float64 (batch, frames), PADDING after the end; a clip has `least` to
    `max_frames` frames, and the batch a multiple of `pad_to`.
    """
    crop, start, speed, bend = rng.uniform([[0], [0], [-1], [-1]], 1, (4, len(lengths)))
    cut = how.crop * crop * (lengths - 1)
    counts = np.clip(np.round((lengths - cut) * (1 + how.speed * speed)), least, max_frames)[:, None]
    number = np.arange(-(-counts.max() // pad_to) * pad_to)
    span, steps = (lengths - 1 - cut)[:, None], np.maximum(counts - 1, 1)
    bent = (how.warp * bend)[:, None] * np.sin(np.pi * number / steps) / np.pi
    return np.where(number < counts, (start * cut)[:, None] + number * (span / steps) + bent * span, PADDING)


class AugmentedPoses:
    """Clips on a device, from which augmented batches are made."""

    def __init__(
        self,
        clips: Sequence[np.ndarray],
        how: PoseAugment,
        layout: Layout,
        device: torch.device | str,
        max_frames: int,
        pad_to: int,
        least: int = 1,
    ) -> None:
        """Take clips, each float32 (frames, joints, 3); see `draw_positions` for the frames of a batch."""
        self.clips, self.augmenter, self.how = PoseClips(clips, device), PoseAugmenter(how, layout, device), how
        self.lengths = np.array([len(clip) for clip in clips])
        self.form = {"max_frames": max_frames, "pad_to": pad_to, "least": least}

    def batch(self, rows: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Augment clips `rows`, spliced with `others` of the same glosses: splice, time, space, then what is lost.

        Returns float32 (batch, frames, joints, 3) on the device, without waiting for it. All random numbers depend on
        the state of `rng`, and on the kind of device.
        """
        lengths = self.lengths[rows]
        positions = draw_positions(lengths, self.how, rng, **self.form)
        scale = (self.lengths[others] - 1) / np.maximum(lengths - 1, 1)  # the same moment in the other clip
        there = np.where(positions >= 0, positions * scale[:, None], PADDING)
        rows, others = self.to_device(np.stack([rows, others]))
        positions, there = self.to_device(np.stack([positions, there]).astype(np.float32))
        generator = torch.Generator(self.clips.device).manual_seed(int(rng.integers(2**63)))
        poses = self.clips.sample(rows, positions)
        spliced = self.clips.sample(others, there) if self.how.splice else None
        return self.augmenter(poses, spliced, (positions >= 0).sum(1), generator)

    def to_device(self, array: np.ndarray) -> torch.Tensor:
        """The array on the device, without waiting for what the device does at the moment."""
        return torch.from_numpy(array).to(self.clips.device, non_blocking=True)


class PoseAugmenter:
    """The augmentation of batches, as `how` asks, of poses in a layout."""

    def __init__(self, how: PoseAugment, layout: Layout, device: torch.device | str) -> None:
        """Note which joints move together; the numbers of joints are on the device."""
        order = np.arange(len(layout.joints))
        side, wrist, finger, knuckle = np.full_like(order, NEITHER), order.copy(), np.zeros_like(order), order.copy()
        for number, name in enumerate(SIDES):
            part = layout.parts[name]
            side[part], wrist[part] = number, part.start
            chains = np.arange(part.start + 1, part.stop).reshape(len(FINGERS), -1)  # after the wrist, finger by finger
            finger[chains], knuckle[chains] = number * len(FINGERS) + np.arange(len(FINGERS))[:, None], chains[:, :1]
        mirrored = order.copy()
        left, right = np.array(layout.pairs).T
        mirrored[left], mirrored[right] = right, left
        self.how = how
        numbers = torch.from_numpy(np.stack([side, wrist, finger, knuckle, mirrored])).to(device)
        self.side, self.wrist, self.finger, self.knuckle, self.mirrored = numbers

    def __call__(
        self, poses: torch.Tensor, others: torch.Tensor | None, frames: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Augment sampled poses (batch, frames, 3, joints); all but time, which was sampled, is varied here.

        others: alike, other clips of the same glosses at the same moments, to splice with; None for none.
        frames: the number of frames of each clip, (batch,). Returns float32 (batch, frames, joints, 3).
        """
        draw, frames = _Draw(generator, len(poses)), frames[:, None, None, None]
        xy, seen = poses[:, :, :2], poses[:, :, 2:]
        if others is not None:
            xy, seen = self._splice(xy, seen, others, frames, draw)
        if self.how.mirror:
            xy, seen = self._mirror(xy, seen, draw)
        varied = self._vary_space(xy, seen, draw)
        if varied is not xy:
            xy = torch.where(draw.chance(self.how.probability), varied, xy)
        seen = self._lose(xy, seen, frames, draw)
        return torch.cat([xy * seen, seen], 2).transpose(2, 3).contiguous()

    def _splice(
        self, xy: torch.Tensor, seen: torch.Tensor, others: torch.Tensor, frames: torch.Tensor, draw: "_Draw"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one hand, or all joints before or after a moment, from another performance of the sign."""
        other_xy, other_seen = others[:, :, :2], others[:, :, 2:]
        (centre, here), (other_centre, there) = _place(xy, seen), _place(other_xy, other_seen)
        # A single joint has no spread but rounding errors.
        ratio = torch.where(there > NO_SPREAD * here, here / there, 1.0)
        other_xy = (other_xy - other_centre) * ratio + centre
        of_hand = self.side == draw.below(len(SIDES))
        before = _numbers(seen) < draw.below(frames + 1)
        of_time = before == draw.chance(0.5)
        taken = torch.where(draw.chance(0.5), of_hand, of_time) & draw.chance(self.how.splice)
        taken &= seen.amax((1, 2, 3), True) * other_seen.amax((1, 2, 3), True) > 0  # both have a place and a size
        return torch.where(taken, other_xy, xy), torch.where(taken, other_seen, seen)

    def _mirror(self, xy: torch.Tensor, seen: torch.Tensor, draw: "_Draw") -> tuple[torch.Tensor, torch.Tensor]:
        """Reflect about the vertical through the centre and swap left and right joints, as of a left-handed signer."""
        chosen, centre = draw.chance(self.how.mirror), _place(xy, seen)[0]
        x, y = xy[..., self.mirrored].split(1, 2)
        flipped = torch.cat([2 * centre[:, :, :1] - x, y], 2)
        return torch.where(chosen, flipped, xy), torch.where(chosen, seen[..., self.mirrored], seen)

    def _vary_space(self, xy: torch.Tensor, seen: torch.Tensor, draw: "_Draw") -> torch.Tensor:
        """Transform the whole clip, then fingers and hands about knuckles and wrists; shift hands; add noise."""
        how = self.how
        if how.rotation or how.scale or how.shear:
            centre = _place(xy, seen)[0]
            xy = _transform(xy - centre, draw.affine(how.rotation, how.scale, how.shear, 1)) + centre
        if how.finger_rotation:
            count = len(SIDES) * len(FINGERS)
            turns = draw.affine(how.finger_rotation * draw.chance(0.5, count), 0, 0, count)
            xy = _turn(xy, seen, self.knuckle, turns[..., self.finger])
        if how.hand_rotation or how.hand_scale or how.hand_shear:
            maps = draw.affine(how.hand_rotation, how.hand_scale, how.hand_shear, len(SIDES))
            xy = _turn(xy, seen, self.wrist, maps[..., self.side.clamp(max=NEITHER - 1)])
        if how.shift or how.noise:
            unit = _place(xy, seen)[1]
        if how.shift:
            offsets = torch.nn.functional.pad(draw.normal(1, 2, len(SIDES)), (0, 1))  # none for the other joints
            xy = xy + how.shift * unit * offsets[..., self.side]
        if how.noise:
            xy = torch.addcmul(xy, how.noise * unit, draw.normal(*xy.shape[1:]))
        return xy

    def _lose(self, xy: torch.Tensor, seen: torch.Tensor, frames: torch.Tensor, draw: "_Draw") -> torch.Tensor:
        """What a detector may lose: one hand for up to half of the frames, single frames, a run of them, a box."""
        how, number, lost = self.how, _numbers(seen), []
        if how.hand_dropout:
            stretch = draw.below((frames // 2).clamp(min=1)) + 1
            hand = self.side == draw.below(len(SIDES))
            lost.append(draw.chance(how.hand_dropout) & hand & draw.run(number, stretch, frames))
        if how.frame_dropout:
            lost.append(draw.between(0, 1, *number.shape[1:]) < draw.between(0, how.frame_dropout, 1, 1, 1))
        if how.time_mask:
            stretch = (draw.between(*MASKED, 1, 1, 1) * frames).round().long()
            lost.append(draw.chance(how.time_mask) & draw.run(number, stretch, frames))
        if how.box:
            low = torch.where(seen > 0, xy, math.inf).amin((1, 3), True)
            high = torch.where(seen > 0, xy, -math.inf).amax((1, 3), True)
            size = (high - low) * draw.between(*MASKED, 1, 1, 1)
            low = low + (high - low - size) * draw.between(0, 1, 1, 2, 1)
            inside = ((xy >= low) & (xy <= low + size)).all(2, keepdim=True)  # nothing is where nothing was seen
            lost.append(draw.chance(how.box) & inside)
        for part in lost:
            seen = seen * ~part
        return seen


class _Draw:
    """Draws random numbers for each clip of a batch; shapes are without the batch axis."""

    def __init__(self, generator: torch.Generator, batch: int) -> None:
        self.options, self.batch = {"generator": generator, "device": generator.device}, batch

    def between(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Uniform numbers (batch, *shape)."""
        return low + (high - low) * torch.rand(self.batch, *shape, **self.options)

    def normal(self, *shape: int) -> torch.Tensor:
        """Normal numbers (batch, *shape)."""
        return torch.randn(self.batch, *shape, **self.options)

    def chance(self, probability: float, count: int = 1) -> torch.Tensor:
        """True with this probability, (batch, 1, 1, count)."""
        return self.between(0, 1, 1, 1, count) < probability

    def below(self, count: int | torch.Tensor) -> torch.Tensor:
        """A whole number from 0 to count - 1, (batch, 1, 1, 1)."""
        return (self.between(0, 1, 1, 1, 1) * count).long()

    def run(self, number: torch.Tensor, length: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Whether each frame number is in a run of this length somewhere in the clip."""
        start = self.below(frames - length + 1)
        return (number >= start) & (number < start + length)

    def affine(self, rotation: float | torch.Tensor, scale: float, shear: float, count: int) -> torch.Tensor:
        """Linear maps (batch, 1, 2, 2, count): a shear, then a scale for each axis, then a rotation in degrees."""
        angle = rotation * self.between(-math.pi / 180, math.pi / 180, 1, 1, count)
        wide, high = (1 + self.between(-scale, scale, 1, 2, count)).split(1, 2)
        slant = self.between(-shear, shear, 1, 1, count)
        cos, sin = angle.cos(), angle.sin()
        across = torch.cat([cos * wide, sin * wide], 2)  # where (1, 0) goes
        down = torch.cat([-sin * high, cos * high], 2)
        return torch.stack([across, across * slant + down], 3)


def _numbers(seen: torch.Tensor) -> torch.Tensor:
    """Numbers of the frames, (1, frames, 1, 1)."""
    return torch.arange(seen.shape[1], device=seen.device)[None, :, None, None]


def _place(xy: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre (batch, 1, 2, 1) of the present joints and their root mean square distance from it (batch, 1, 1, 1)."""
    count = seen.sum((1, 3), True).clamp(min=1)
    centre = (xy * seen).sum((1, 3), True) / count
    away = (xy - centre) * seen
    return centre, ((away * away).sum((1, 2, 3), True) / count).sqrt()


def _transform(xy: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Map vectors (batch, frames, 2, joints) by matrices (batch, 1, 2, 2, joints or 1)."""
    x, y = xy.split(1, 2)
    return torch.addcmul(maps[:, :, :, 0] * x, maps[:, :, :, 1], y)


def _turn(xy: torch.Tensor, seen: torch.Tensor, pivots: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Map each joint about its pivot, a joint number (joints,), where that is present; its own pivot stays."""
    pivot = xy[..., pivots]
    return torch.where(seen[..., pivots] > 0, _transform(xy - pivot, maps) + pivot, xy)
