"""Augmentation of clips: off by default, the same for all frames, in range, never black."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lib.data.augment import ClipAugment, augment_clip, colour_matrix, recolour, resize, view_matrix

EVERYTHING = ClipAugment(
    jitter=1, crop=0.4, rotation=30, flip=0.5, brightness=0.2, contrast=0.3, saturation=0.5, tint=0.2
)
SIDE = 64


def generator(seed=0):
    return np.random.default_rng(seed)


def scene(seed=0):
    """A smooth picture without symmetry, so that any change of place or colour shows."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    phase = generator(seed).uniform(0, 1, 3)
    waves = np.stack([np.sin(2 * (x * 2 + y) + phase[0]), np.cos(3 * x * y + phase[1]), np.sin(4 * y + phase[2])], -1)
    return (120 + 60 * waves).astype(np.uint8)


def clip_of(frames=4):
    return [scene(seed) for seed in range(frames)]


def difference(one, other):
    return np.abs(one.astype(int) - other.astype(int)).max()


def test_nothing_is_varied_by_default():
    clip = clip_of()
    assert difference(augment_clip(clip, SIDE, ClipAugment(), generator()), np.stack(clip)) <= 1
    assert difference(augment_clip(clip, 48, ClipAugment(), generator()), resize(clip, 48)) <= 2


@pytest.mark.parametrize("field", ClipAugment.model_fields)
def test_each_setting_alone_changes_pixels_except_the_choice_of_frames(field):
    how = ClipAugment(**{field: 0.9 if field != "rotation" else 20.0})
    changed = [
        difference(augment_clip(clip_of(1), SIDE, how, generator(s)), np.stack(clip_of(1))) > 3 for s in range(8)
    ]
    assert any(changed) == (field != "jitter")


@pytest.mark.parametrize("setting", [{"flip": 1.5}, {"crop": 1.0}, {"rotation": -1.0}, {"blur": 1.0}])
def test_settings_out_of_range_or_unknown_are_refused(setting):
    with pytest.raises(ValidationError):
        ClipAugment(**setting)


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6), size=st.integers(8, 96), frames=st.integers(1, 5))
def test_all_frames_of_a_clip_are_varied_alike(seed, size, frames):
    still = augment_clip([scene()] * frames, size, EVERYTHING, generator(seed))
    assert still.shape == (frames, size, size, 3)
    assert still.dtype == np.uint8
    assert (still == still[0]).all()


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6))
def test_rotation_and_crop_bring_in_no_black(seed):
    bright = [np.full((SIDE, SIDE, 3), 200, np.uint8)]
    how = ClipAugment(rotation=180, crop=0.5, flip=0.5)
    assert (augment_clip(bright, 48, how, generator(seed)) == 200).all()


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6))
def test_same_numbers_give_the_same_clip(seed):
    one, two = (augment_clip(clip_of(2), 40, EVERYTHING, generator(seed)) for _ in range(2))
    assert np.array_equal(one, two)


def test_flip_mirrors_left_and_right_exactly():
    clip = clip_of()
    mirrored = augment_clip(clip, SIDE, ClipAugment(flip=1), generator())
    assert difference(mirrored, np.stack(clip)[:, :, ::-1]) <= 1


def test_without_flip_left_stays_left():
    half = np.zeros((SIDE, SIDE, 3), np.uint8)
    half[:, : SIDE // 2] = 200
    for seed in range(30):
        varied = augment_clip([half], SIDE, EVERYTHING.model_copy(update={"flip": 0.0}), generator(seed))[0].astype(
            float
        )
        assert varied[:, : SIDE // 4].mean() > varied[:, -SIDE // 4 :].mean()


@settings(max_examples=200)
@given(seed=st.integers(0, 10**6), crop=st.floats(0, 0.95), size=st.integers(1, 300))
def test_crop_stays_inside_the_image_and_keeps_at_least_the_share_asked(seed, crop, size):
    matrix = view_matrix(SIDE, size, ClipAugment(crop=crop), generator(seed))
    low, high = (matrix @ [at, at, 1] for at in (-0.5, size - 0.5))  # the outer edges of the first and last pixel
    assert (low >= -0.5 - 1e-6).all()
    assert (high <= SIDE - 0.5 + 1e-6).all()
    assert (1 - crop) * SIDE - 1e-6 <= high[0] - low[0] <= SIDE + 1e-6


def test_crop_reaches_every_corner_of_the_image():
    starts = [view_matrix(100, 100, ClipAugment(crop=0.5), generator(seed))[:, 2] for seed in range(500)]
    assert np.min(starts, 0).max() < 2
    assert np.max(starts, 0).min() > 35


def test_rotation_turns_about_the_middle():
    how = ClipAugment(rotation=90)
    for seed in range(10):
        matrix = view_matrix(SIDE, SIDE, how, generator(seed))
        middle = (SIDE - 1) / 2
        assert np.allclose(matrix @ [middle, middle, 1], middle)
        assert np.allclose(matrix[:, :2] @ matrix[:, :2].T, np.eye(2))


def test_brightness_adds_and_contrast_keeps_mid_grey():
    grey = np.full((1, 4, 4, 3), 128, np.uint8)
    for seed in range(20):
        assert difference(recolour(grey, colour_matrix(ClipAugment(contrast=0.9), generator(seed))), grey) <= 1
        brighter = recolour(grey, colour_matrix(ClipAugment(brightness=0.2), generator(seed)))
        assert np.ptp(brighter) == 0
        assert difference(brighter, grey) <= 0.2 * 255 + 1


def test_saturation_keeps_the_brightness_of_every_pixel():
    clip = np.stack(clip_of())
    luma = [0.299, 0.587, 0.114]
    for seed in range(10):
        varied = recolour(clip, colour_matrix(ClipAugment(saturation=0.5), generator(seed)))
        inside = ((varied > 0) & (varied < 255)).all(-1)
        assert inside.mean() > 0.5
        assert np.abs((varied @ luma - clip @ luma)[inside]).max() < 1.5


def test_colours_beyond_the_range_are_cut_and_do_not_wrap():
    clip = np.full((1, 2, 2, 3), 250, np.uint8)
    matrix = np.column_stack([np.eye(3), np.full(3, 60.0)])
    assert (recolour(clip, matrix) == 255).all()
    assert (recolour(255 - clip, -matrix) == 0).all()
