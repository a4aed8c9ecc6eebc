"""MoViNet: equal to the official code, frame by frame equal to the whole clip, its layers, what trains and what not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from pydantic import ValidationError

from lib.models import build, freeze
from lib.models.movinet import Movinet, MovinetConfig, load_official_checkpoint
from lib.models.movinet_layers import (
    Bottleneck,
    ConvNorm,
    SqueezeExcite,
    TimeConv,
    divisible,
    encode_positions,
    halve,
    in_frames,
)
from lib.models.movinet_sizes import SIZES, Block, Size
from lib.models.movinet_weights import official_names
from lib.settings import StudyError

CLASSES = 7
CLIP = (6, 16, 20)
OFFICIAL = (600, (8, 112, 112))  # classes and clip of the official checkpoints here
SMALL = Size(stem=8, project=16, clip=CLIP, blocks=(Block(8, (16,), "15", 2), Block(12, (24, 24), "53 33", 2)))
STAGES = 5  # of the small network: stem, three bottlenecks, projection
KINDS = ("base", "stream")
every_kind = pytest.mark.parametrize("kind", KINDS)
few = settings(max_examples=20)


@pytest.fixture
def small(monkeypatch):
    """Let A0 and A3 be a network small enough to be built in no time, with every kind of layer of the real ones."""
    for size in ("a0", "a3"):
        monkeypatch.setitem(SIZES, size, SMALL)


def clips_of(count=2, clip=CLIP, seed=0):
    return np.random.default_rng(seed).random((count, *clip, 3), np.float32)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def logits(model, clips, training=False):
    return numpy(model(clips, training=training))


def randomise(layer, seed=0):
    """Draw every weight, so that scales, which start at 0, shifts and statistics matter, too."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        if weight.name == "kernel":
            weight.assign(rng.normal(0, np.prod(weight.shape[:-1]) ** -0.5, weight.shape))
        elif weight.name in ("gamma", "moving_variance", "scale", "position_scale"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif "seed" not in weight.name:
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return layer


def random_model(seed=0, size="a0", **options):
    keras.utils.set_random_seed(seed)
    return randomise(build(f"movinet-{size}", CLASSES, CLIP, **options), seed)


def values(model):
    return [numpy(weight).copy() for weight in model.weights]


def assert_weights(model, expected, **tolerance):
    for weight, value in zip(model.weights, expected, strict=True):
        np.testing.assert_allclose(numpy(weight), value, err_msg=weight.path, **tolerance)


# ---- with TensorFlow, in a process of its own ------------------------------------------------------------


def on_tensorflow(folder, official):
    """Read checkpoints, which only TensorFlow can; writes what came of it into `folder` for the tests below."""
    for kind in KINDS if official else ():
        model = build("movinet-a0", *OFFICIAL, stream=kind == "stream")
        checkpoint = official / f"movinet_a0_{kind}"
        load_official_checkpoint(model, checkpoint / "ckpt-1")
        model.save_weights(folder / f"official-{kind}.weights.h5")
        np.save(folder / f"official-{kind}.npy", logits(model, case(checkpoint)[0]))
    SIZES["a0"] = SMALL
    for kind in KINDS:
        model = random_model(stream=kind == "stream")
        model.save_weights(folder / f"{kind}.weights.h5")
        np.save(folder / f"{kind}.npy", logits(model, clips_of(), training=True))
        model.save_weights(folder / f"{kind}-trained.weights.h5")
    write_checkpoint(model, folder / "whole", lambda variables: None)
    write_checkpoint(model, folder / "spoilt", spoil)
    (folder / "broken.index").write_text("no checkpoint")
    other = random_model(seed=1, stream=True)
    before, said = values(other), {}
    for name in ("spoilt", "missing", "broken"):
        try:
            load_official_checkpoint(other, folder / name)
        except StudyError as error:
            said[name] = str(error)
    assert_weights(other, before)
    load_official_checkpoint(other, folder / "whole")
    assert_weights(other, values(model))
    (folder / "said.json").write_text(json.dumps(said))


def write_checkpoint(model, path, change):
    """Write a model as the official code does, after a change to its variables by official name."""
    import tensorflow as tf

    variables = {name: numpy(weight) for name, weight in official_names(model)}
    change(variables)
    names = [f"{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in variables]
    tf.raw_ops.SaveV2(
        prefix=str(path), tensor_names=names, shape_and_slices=[""] * len(names), tensors=list(variables.values())
    )


def spoil(variables):
    del variables["model/layer_with_weights-0/layer_with_weights-2/_mobile_bottleneck/_rezero/scale"]
    variables["model/layer_with_weights-1/_classifier/_conv/bias"] = np.zeros(3, np.float32)
    variables["model/layer_with_weights-2/kernel"] = np.zeros(3, np.float32)


def case(folder):
    """Clips in [0, 1] and the official model's logits of them."""
    case = np.load(folder / "case.npz")
    return case["clip"].astype(np.float32) / 255, case["logits"]


@pytest.fixture(scope="module")
def from_tensorflow(request, tmp_path_factory):
    """Folder of what `on_tensorflow` has written."""
    folder = tmp_path_factory.mktemp("tensorflow")
    try:
        official = [str(request.getfixturevalue("official_weights"))]
    except pytest.skip.Exception:
        official = []
    command = "import sys, pathlib, test_movinet as t; t.on_tensorflow(*[*map(pathlib.Path, sys.argv[1:]), None][:2])"
    subprocess.run(
        [sys.executable, "-c", command, str(folder), *official],
        cwd=Path(__file__).parent,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=True,
        timeout=300,
    )
    return folder


@every_kind
def test_the_official_checkpoints_give_the_official_logits_on_both_backends(kind, official_weights, from_tensorflow):
    clips, expected = case(official_weights / f"movinet_a0_{kind}")
    assert expected.std() > 0.1
    np.testing.assert_allclose(np.load(from_tensorflow / f"official-{kind}.npy"), expected, atol=1e-4)
    model = build("movinet-a0", *OFFICIAL, stream=kind == "stream")
    model.load_weights(from_tensorflow / f"official-{kind}.weights.h5")
    np.testing.assert_allclose(logits(model, clips), expected, atol=1e-4)
    if kind == "stream":
        np.testing.assert_allclose(list(in_pieces(model, clips, 4))[-1], expected, atol=1e-4)


@every_kind
def test_a_forward_pass_in_training_gives_the_same_on_both_backends(kind, small, from_tensorflow):
    model, trained = (random_model(seed, stream=kind == "stream") for seed in (1, 2))
    model.load_weights(from_tensorflow / f"{kind}.weights.h5")
    trained.load_weights(from_tensorflow / f"{kind}-trained.weights.h5")
    before = values(model)
    expected = np.load(from_tensorflow / f"{kind}.npy")
    np.testing.assert_allclose(logits(model, clips_of(), training=True), expected, atol=1e-4)
    assert_weights(model, values(trained), rtol=1e-5, atol=1e-5)
    for weight, old in zip(model.weights, before, strict=True):
        assert ("moving" in weight.name) == (np.abs(numpy(weight) - old).max() > 1e-5), weight.path


def test_a_checkpoint_that_does_not_match_is_an_error_that_lists_every_difference(from_tensorflow):
    said = json.loads((from_tensorflow / "said.json").read_text())["spoilt"]
    _, _, differences = said.partition("spoilt: these are not weights for movinet-a0; ")
    assert differences.split("; ") == [
        "model/layer_with_weights-1/_classifier/_conv/bias is (3,) in the file, (7,) in the model",
        "only in the file: model/layer_with_weights-2/kernel",
        "only in the model: model/layer_with_weights-0/layer_with_weights-2/_mobile_bottleneck/_rezero/scale",
    ]


@pytest.mark.parametrize("name", ["missing", "broken"])
def test_a_missing_or_broken_checkpoint_is_an_error_that_names_it(name, from_tensorflow):
    said = json.loads((from_tensorflow / "said.json").read_text())[name]
    assert f"{name}: not a readable TensorFlow checkpoint (give its name without suffix): " in said
    assert "\n" not in said


# ---- sizes and options -----------------------------------------------------------------------------------

PARAMETERS = {  # of the official code, 600 classes
    "base": (3_126_071, 4_717_912, 5_280_922, 7_443_289, 11_422_727, 18_763_355),
    "stream": (3_765_983, 6_481_560, 7_366_050, 11_043_146, 18_228_326, 31_636_734),
}


@every_kind
@pytest.mark.parametrize("size", range(6))
def test_parameters_are_as_many_as_in_the_official_code(kind, size, monkeypatch):
    monkeypatch.setattr(
        keras.initializers.HeNormal, "__call__", lambda self, shape, dtype=None: ops.zeros(shape, dtype)
    )
    model = Movinet(MovinetConfig(size=f"a{size}", stream=kind == "stream"), 600)
    model.built = True  # else keras traces it first, which takes longer than the pass itself, over one pixel
    model(np.zeros((1, 1, 1, 1, 3), np.float32))
    assert model.count_params() == PARAMETERS[kind][size]


def test_each_form_is_as_published(small):
    def chosen(**options):
        model = random_model(**options)
        excite = model.bottlenecks[-1].excite
        gates = [layer.activation.__name__ for layer in (excite.reduce, excite.expand)] if excite else []
        return model.stem.activation.__name__.strip("_"), model.head.activation.__name__, *gates

    assert chosen() == ("silu", "silu", "silu", "sigmoid")
    assert chosen(stream=True) == ("hard_silu", "silu", "hard_silu", "hard_sigmoid")
    assert chosen(mobile=True) == ("relu6", "relu6")
    assert MovinetConfig(mobile=True).stream
    assert not MovinetConfig().stream


def test_streams_from_a3_on_encode_positions_and_no_others():
    def encodes(size, **options):
        return SqueezeExcite(8, MovinetConfig(size=size, **options)).positions

    assert [encodes(f"a{n}", stream=True) for n in range(6)] == [False] * 3 + [True] * 3
    assert not encodes("a3")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"droput": 0.1}, "droput"),
        ({"conv_type": "3d"}, "conv_type"),
        ({"dropout": 1.0}, "dropout"),
        ({"freeze": -1}, "freeze"),
    ],
)
def test_unknown_and_impossible_options_are_errors(options, said):
    with pytest.raises(ValidationError, match=said):
        build("movinet-a0", CLASSES, CLIP, **options)


def test_an_unknown_size_and_too_many_frozen_stages_are_errors(small):
    with pytest.raises(ValueError, match="unknown model 'movinet-a6'"):
        build("movinet-a6", CLASSES)
    with pytest.raises(ValueError, match="movinet-a0 has 5 stages to freeze, not 6"):
        build("movinet-a0", CLASSES, CLIP, freeze=STAGES + 1)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="other backends trace, and never compute")
@pytest.mark.parametrize(("size", "options"), [("a0", {}), ("a0", {"stream": True}), ("a3", {"stream": True})], ids=str)
def test_building_computes_nothing_however_large_the_clip(size, options, small):
    clip = (10**5, 10**4, 10**3)  # what it cannot trace, Keras runs, on 83 clips: more than a machine can address
    model = build(f"movinet-{size}", CLASSES, clip, **options)
    if model.config.stream:
        piece = keras.Input((10, *clip[1:], 3))
        buffers = {name: keras.Input(value.shape[1:]) for name, value in model.run(piece, {})[1].items()}
        assert model.run(piece, buffers)[0].shape == (None, CLASSES)


# ---- frame by frame --------------------------------------------------------------------------------------

STREAMS = {
    "published": {},
    "positions": {"size": "a3"},
    "mobile": {"mobile": True},
    "differences of frames": {"differences": True},
}


def in_pieces(model, clips, frames):
    """Logits after each piece of so many frames, from buffers of zeros on, as an exported stream begins."""
    clips = ops.convert_to_tensor(clips)
    buffers = {name: ops.zeros_like(value) for name, value in model.run(clips[:, :frames], {})[1].items()}
    for start in range(0, clips.shape[1], frames):
        found, buffers = model.run(clips[:, start : start + frames], buffers)
        yield numpy(found)


@pytest.mark.parametrize("options", STREAMS.values(), ids=list(STREAMS))
def test_piece_by_piece_gives_the_logits_of_the_clip_so_far(options, small):
    model, clips = random_model(stream=True, **options), clips_of()
    so_far = [logits(model, clips[:, : count + 1]) for count in range(CLIP[0])]
    assert min(np.ptp(so_far, 0).max(), np.ptp(so_far, 1).max()) > 0.01  # both frames and clips make a difference
    for frames in (1, 3):
        np.testing.assert_allclose(list(in_pieces(model, clips, frames)), so_far[frames - 1 :: frames], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_differences_of_frames_are_what_the_network_reads_if_asked_for(kind, small):
    model, changing = (random_model(stream=kind == "stream", differences=asked) for asked in (False, True))
    clips = clips_of()
    expected = logits(model, np.diff(clips, axis=1, prepend=clips[:, :1]))
    np.testing.assert_allclose(logits(changing, clips), expected, atol=1e-4)


def test_positions_count_only_as_much_as_their_scale(small):
    model, without = random_model(stream=True, size="a3"), random_model(stream=True)
    shared = [weight for weight in model.weights if weight.name != "position_scale"]
    assert len(model.weights) == len(shared) + 3  # one for each bottleneck
    without.set_weights([numpy(weight) for weight in shared])
    assert np.abs(logits(model, clips_of()) - logits(without, clips_of())).max() > 0.01
    for block in model.bottlenecks:
        block.excite.position_scale.assign(0)
    np.testing.assert_allclose(logits(model, clips_of()), logits(without, clips_of()), atol=1e-6)


# ---- layers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "kernel", "stride"), [(3, 3, 1), (5, 3, 2), (3, 5, 2)])
def test_a_depthwise_convolution_over_time_and_space_equals_torchs(length, kernel, stride):
    block = Bottleneck(MovinetConfig(), (8, 8, 8), f"{length}{kernel}", stride, 0.0, name="block")
    x = clips_of(2, (4, 7, 6, 8))[..., 0] - 0.5
    ours = block.time.convolution(in_frames(block.space, x))
    weight = numpy(block.space.kernel).transpose(2, 3, 0, 1)[:, None]  # channels, 1, frames, height, width
    np.testing.assert_allclose(numpy(ours), grouped_convolution(x, weight, stride, causal=False), atol=1e-5)


def test_a_convolution_over_time_equals_torchs_and_reads_no_later_frame():
    layer, x = TimeConv(5), clips_of(2, (6, 3, 2, 8))[..., 0]
    ours = numpy(layer(x))
    weight = numpy(layer.kernel).transpose(2, 1, 0, 3)[..., None]
    np.testing.assert_allclose(ours, grouped_convolution(x, weight, 1, causal=True), atol=1e-5)


def grouped_convolution(x, weight, stride, causal):
    """torch's, over time and space, padded as TensorFlow pads; causal: in time all in front."""
    import torch

    channels, _, length, kernel, _ = weight.shape
    time = (length - 1, 0) if causal else (length // 2, length // 2)
    space = [((side - 1) // stride * stride + kernel - side) for side in x.shape[2:4]]
    space = [(max(total, 0) // 2, max(total, 0) - max(total, 0) // 2) for total in space]
    padded = np.pad(x, [(0, 0), time, *space, (0, 0)]).transpose(0, 4, 1, 2, 3)
    y = torch.conv3d(torch.tensor(padded), torch.tensor(weight), stride=(1, stride, stride), groups=channels)
    return y.numpy().transpose(0, 2, 3, 4, 1)


@few
@given(st.integers(1, 9), st.integers(1, 9))
def test_halving_averages_what_there_is_of_a_window(height, width):
    import torch

    frames = clips_of(2, (height, width))
    # Of an even side TensorFlow pads only the far end, of an odd one both; `ceil_mode` is the former.
    expected = torch.nn.functional.avg_pool2d(
        torch.tensor(frames.transpose(0, 3, 1, 2)),
        3,
        2,
        (height % 2, width % 2),
        ceil_mode=True,
        count_include_pad=False,
    )
    np.testing.assert_allclose(numpy(halve(frames)), expected.numpy().transpose(0, 2, 3, 1), atol=1e-6)


@few
@given(st.integers(0, 200), st.integers(1, 40))
def test_positions_are_sines_then_cosines_of_falling_frequency(first, channels):
    ours = numpy(encode_positions(ops.arange(first, first + 3, dtype="float32")[None, :, None], channels))
    assert ours.shape == (1, 3, channels)
    for row, number in enumerate(range(first, first + 3)):
        angles = [number / 10_000 ** (2 * (channel // 2) / channels) for channel in range(channels)]
        expected = [*np.sin(angles[0::2]), *np.cos(angles[1::2])]
        np.testing.assert_allclose(ours[0, row], expected, atol=1e-4)


@given(st.floats(0.25, 1000))
def test_channels_are_rounded_to_eights_and_never_far_down(filters):
    rounded = divisible(filters)
    assert rounded % 8 == 0
    assert rounded >= max(8, 0.9 * filters)
    assert rounded < filters + 8


@pytest.mark.parametrize(
    ("filters", "expected"),
    [(6, 8), (8, 8), (9, 16), (11, 16), (12, 16), (20, 24), (26, 24), (27, 32), (46, 48), (170, 168)],
)
def test_channels_are_rounded_as_in_the_official_code(filters, expected):
    assert divisible(filters) == expected


@pytest.mark.parametrize(
    "convolution",
    [
        layers.Conv2D(6, 3, 2, "same", use_bias=False),
        layers.DepthwiseConv2D(3, 2, "same", use_bias=False),
        layers.Conv2D(6, 1, use_bias=False),
        TimeConv(3),
    ],
    ids=["space", "depthwise", "pointwise", "time"],
)
def test_fixed_statistics_go_into_the_kernel_without_changing_the_result(convolution):
    layer = ConvNorm(convolution, MovinetConfig(), name="layer")
    x = clips_of(3, (4, 5, 6, 7))[..., 0]
    x, before = (x, [x[:, :2]]) if isinstance(convolution, TimeConv) else (x[0], [])
    layer(x)
    randomise(layer)
    expected = numpy(layer.activation(layer.norm(convolution(x, *before), training=False)))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(numpy(layer(x, *before, training=False)), expected, atol=1e-5)
    layer.trainable = False
    np.testing.assert_allclose(numpy(layer(x, *before, training=True)), expected, atol=1e-5)


# ---- training --------------------------------------------------------------------------------------------


def train(model):
    """One step of training; gives the paths of the weights that it changed."""
    before = values(model)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(clips_of(4), np.eye(CLASSES, dtype=np.float32)[:4], verbose=0)
    pairs = zip(model.weights, before, strict=True)
    return {weight.path for weight, old in pairs if not np.array_equal(numpy(weight), old)} - shifts(model)


def paths(*layers):
    return {weight.path for layer in layers for weight in layer.weights}


def shifts(model):
    """Of projections between bottlenecks: the next normalisation undoes them, so nothing pulls at them."""
    projections = [layer for block in model.bottlenecks for layer in (block, block.skip) if layer]
    return {layer.project.norm.beta.path for layer in projections}


@every_kind
def test_frozen_stages_keep_weights_and_statistics_and_the_others_train(kind, small):
    model = random_model(stream=kind == "stream", freeze=2)
    trainable = paths(model) - shifts(model)
    assert len(paths(model)) == len(model.weights)
    assert len(model.stages) == STAGES
    assert train(model) == trainable - paths(*model.stages[:2])
    freeze(model, STAGES)
    assert train(model) == paths(model.head, model.classifier)
    freeze(model, 0)
    assert train(model) == trainable


def test_a_step_of_fit_drops_what_is_to_be_dropped(small):
    model = random_model(stochastic_depth=0.999)  # of the last block's clips
    last = model.bottlenecks[-1]
    assert not train(model) & {last.scale.path, last.project.convolution.kernel.path}


@pytest.mark.parametrize("option", ["dropout", "stochastic_depth"])
def test_what_is_dropped_changes_training_and_not_inference(option, small):
    model, plain_model = random_model(**{option: 0.7}), random_model()
    for each in (model, plain_model):
        freeze(each, STAGES)  # statistics stay, so that training differs by what is dropped alone
    expected = logits(plain_model, clips_of())
    np.testing.assert_allclose(logits(plain_model, clips_of(), training=True), expected, atol=1e-5)
    np.testing.assert_array_equal(logits(model, clips_of()), expected)
    draws = [logits(model, clips_of(), training=True) for _ in range(10)]
    assert np.ptp(draws, 0).max() > 0.01


def test_a_clip_skips_a_block_or_gets_more_of_it_so_that_the_mean_stays():
    keras.utils.set_random_seed(0)
    block = Bottleneck(MovinetConfig(), (8, 16, 8), "33", 1, skipped=0.75, name="block")
    x = clips_of(200, (2, 4, 4, 8))[..., 0]
    block(x)
    randomise(block).trainable = False
    added = numpy(block(x, training=False)[0]) - x
    drawn = numpy(block(x, training=True)[0]) - x
    skipped = np.abs(drawn).max((1, 2, 3, 4)) == 0
    assert 0.65 < skipped.mean() < 0.85
    np.testing.assert_allclose(drawn[~skipped], 4 * added[~skipped], atol=1e-4)


def test_deeper_blocks_are_skipped_more_often(small):
    assert [block.drop.rate for block in random_model(stochastic_depth=0.9).bottlenecks] == pytest.approx(
        [0.3, 0.6, 0.9]
    )


def test_momentum_is_the_share_of_the_old_statistics_that_a_step_keeps(small):
    model = random_model(momentum=0.75)
    stem = model.stem
    old = numpy(stem.norm.moving_mean).copy()
    batch = numpy(in_frames(stem.convolution, clips_of())).mean((0, 1, 2, 3))
    model(clips_of(), training=True)
    np.testing.assert_allclose(numpy(stem.norm.moving_mean), 0.75 * old + 0.25 * batch, atol=1e-5)
