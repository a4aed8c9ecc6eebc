"""Exported files: the same model as the trained one, whole or frame by frame, and what each says about itself."""

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from scipy.special import softmax
from torch import nn

from bench.clips import make_videos
from lib.data.video import read_clip
from lib.export import bundle, network, tflite, write
from lib.export import onnx as onnx_files
from lib.export.files import FORMATS, Stream, open_model, read_metadata, run_clip
from lib.export.onnx import activations_first
from lib.export.run import latency, of_length
from lib.figures import runs as figures
from lib.models import build
from lib.models.layers import frame_differences
from lib.models.movinet_sizes import SIZES, Block, Size
from lib.paths import Paths
from lib.predictions import Predictions
from lib.settings import StudyError

SIZE, FRAMES = 32, 4
LABELS = ["book", "drink"]
SMALL = Size(
    stem=8, project=16, clip=(FRAMES, SIZE, SIZE), blocks=(Block(8, (16,), "15", 2), Block(12, (24, 24), "53 33", 2))
)


class Toy(nn.Module):
    """A small network of clips (batch, frames, height, width, 3), with a layer of each kind that matters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.space = nn.Conv3d(3, 16, (1, 3, 3), padding=(0, 1, 1))
        self.depthwise = nn.Conv3d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 5)

    def forward(self, **inputs):
        x = torch.relu(self.space(inputs["clip"].permute(0, 4, 1, 2, 3)))
        return {"logits": self.head(torch.relu(self.depthwise(x)).mean((2, 3, 4)))}


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).random((6, FRAMES, SIZE, SIZE, 3), np.float32)


@pytest.fixture(scope="module")
def toy(clips):
    """The flattened network, example inputs of two clips, and the logits of all clips that torch gives."""
    model = Toy().eval()
    with torch.no_grad():
        flat, example = network.prepare(model, {"clip": torch.as_tensor(clips[:2])})
        return flat, example, model(clip=torch.as_tensor(clips))["logits"].numpy()


@pytest.fixture(scope="module")
def toy_tflite(toy):
    return tflite.convert(toy[0], toy[1])


@pytest.fixture(scope="module")
def toy_onnx(toy):
    return onnx_files.convert(toy[0], toy[1])


def logits(suffix, content, clips):
    runner = FORMATS[suffix].Runner(content)
    return np.concatenate([runner({"clip": clip[None]})["logits"] for clip in clips])


class ChangingToy(Toy):
    """The toy, of what changes in the clip."""

    def forward(self, **inputs):
        return super().forward(clip=frame_differences(inputs["clip"]))


@pytest.mark.parametrize("kind", [".tflite", ".onnx"])
def test_a_network_that_reads_differences_of_frames_gives_the_same_logits(kind, toy, clips):
    model = ChangingToy().eval()
    flat, example = network.prepare(model, {"clip": torch.as_tensor(clips[:2])})
    content = tflite.convert(flat, example) if kind == ".tflite" else onnx_files.convert(flat, example)
    with torch.no_grad():
        expected = model(clip=torch.as_tensor(clips))["logits"].numpy()
    assert np.abs(expected - toy[2]).max() > 0.01
    np.testing.assert_allclose(logits(kind, content, clips), expected, atol=1e-5)


def test_a_depthwise_convolution_of_few_channels_is_widened_and_gives_the_same_logits(clips):
    class Narrow(nn.Module):
        """A block of X3D: expand, depthwise, gate, project, and a skip connection."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.expand, self.project = nn.Conv3d(3, 6, 1), nn.Conv3d(6, 3, 1)
            self.depthwise = nn.Conv3d(6, 6, 3, padding=1, groups=6)
            self.reduce, self.gate = nn.Conv3d(6, 2, 1), nn.Conv3d(2, 6, 1)

        def forward(self, **inputs):
            clip = inputs["clip"].permute(0, 4, 1, 2, 3)
            x = self.depthwise(torch.relu(self.expand(clip)))
            gate = torch.sigmoid(self.gate(torch.relu(self.reduce(x.mean((2, 3, 4), keepdim=True)))))
            x = clip + self.project(nn.functional.silu(x * gate))
            return {"logits": x.mean((2, 3, 4))}

    model = Narrow().eval()
    with torch.no_grad():
        flat, example = network.prepare(model, {"clip": torch.as_tensor(clips[:2])})
        expected = model(clip=torch.as_tensor(clips))["logits"].numpy()
    contents = {".tflite": tflite.convert(flat, example), ".onnx": onnx_files.convert(flat, example)}
    for kind, content in contents.items():
        np.testing.assert_allclose(logits(kind, content, clips), expected, atol=1e-5)
    nodes = onnx.load_from_string(contents[".onnx"]).graph.node
    groups = {item.i for node in nodes for item in node.attribute if item.name == "group"}
    assert groups == {1, 8}


# ---- formats and precisions ----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "precision", "tolerance"), [
    (".tflite", "float32", 1e-5), (".tflite", "float16", 2e-3), (".tflite", "int8-dynamic", 0.05),
    (".tflite", "int8", 0.05), (".onnx", "float32", 1e-5), (".onnx", "float16", 2e-3), (".onnx", "int8", 0.05),
])  # fmt: skip
def test_every_precision_of_both_formats_gives_the_logits_of_torch(request, toy, clips, kind, precision, tolerance):
    content = request.getfixturevalue(f"toy_{kind[1:]}")
    maker = tflite if kind == ".tflite" else onnx_files
    quantised = maker.quantise(content, precision, [{"clip": clip[None]} for clip in clips])
    difference = np.abs(logits(kind, quantised, clips) - toy[2]).max() / np.ptp(toy[2])
    assert difference < tolerance
    if precision == "float32":
        assert quantised == content
    else:
        assert difference > 1e-7  # it is another file
    assert maker.custom_ops(quantised) == {}


@pytest.mark.parametrize(("kind", "precision"), [("tflite", "int8"), ("tflite", "int8-dynamic"), ("onnx", "int8")])
def test_int8_leaves_the_first_layers_in_float32_as_far_as_it_is_told(request, toy, clips, kind, precision):
    content, maker = request.getfixturevalue(f"toy_{kind}"), {"onnx": onnx_files, "tflite": tflite}[kind]
    calibration = [{"clip": clip[None]} for clip in clips]
    files = [maker.quantise(content, precision, calibration, kept) for kept in (0, 0.5, 1)]
    rounded = [count_rounded(kind, file) for file in files]
    assert rounded[0] > rounded[1] > rounded[2] == 0
    np.testing.assert_allclose(logits(f".{kind}", files[2], clips), toy[2], atol=1e-5)


def count_rounded(kind, content):
    """How many tensors of a file are int8."""
    if kind == "tflite":
        return sum(tensor.type == schema.TensorType.INT8 for tensor in tflite.parse(content).subgraphs[0].tensors)
    return sum(tensor.data_type == onnx.TensorProto.INT8 for tensor in onnx.load_from_string(content).graph.initializer)


def test_ranges_of_int8_hold_the_values_of_every_clip_not_of_the_first_alone(toy_tflite, toy, clips):
    bright = 20 * clips[:2]
    with torch.no_grad():
        wanted = toy[0](clip=torch.as_tensor(bright))["logits"].numpy()
    calibration = [{"clip": clip[None]} for clip in (clips[2], *bright)]
    given = logits(".tflite", tflite.quantise(toy_tflite, "int8", calibration), bright)
    assert np.abs(given - wanted).max() / np.ptp(wanted) < 0.05


def test_weights_of_one_shape_are_not_taken_for_one_another():
    class Alike(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            layers = [nn.Conv3d(64, 64, (1, 3, 3), padding=(0, 1, 1)) for _ in range(6)]
            self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last_3d)

        def forward(self, **inputs):
            return {"logits": self.layers(inputs["clip"]).mean((2, 3, 4))}

    model, clip = Alike().eval(), torch.rand(2, 64, 2, 5, 5)
    with torch.no_grad():
        flat, example = network.prepare(model, {"clip": clip})
        wanted = model(clip=clip)["logits"].numpy()
    given = tflite.Runner(tflite.convert(flat, example))({"clip": clip[:1].numpy()})["logits"]
    np.testing.assert_allclose(given, wanted[:1], atol=1e-6)
    assert np.ptp(wanted) > 0.01


def test_weights_are_kept_in_the_type_that_the_precision_says(toy_tflite, toy_onnx, clips):
    calibration = [{"clip": clip[None]} for clip in clips]
    for precision, kind in (("float16", np.float16), ("int8-dynamic", np.int8), ("int8", np.int8)):
        runner = tflite.Runner(tflite.quantise(toy_tflite, precision, calibration))
        sizes = {kind: 0}
        for tensor in runner.interpreter.get_tensor_details():
            sizes[tensor["dtype"]] = max(sizes.get(tensor["dtype"], 0), int(np.prod(tensor["shape_signature"])))
        assert sizes[kind] >= 16 * 27
    halved = onnx.load_from_string(onnx_files.quantise(toy_onnx, "float16"))
    large = [one for one in halved.graph.initializer if np.prod(one.dims) >= onnx_files.LARGE]
    assert large
    assert all(one.data_type != onnx.TensorProto.FLOAT for one in large)


def test_an_onnx_file_takes_any_number_of_clips_and_is_of_the_standard(toy, toy_onnx, clips):
    runner = onnx_files.Runner(toy_onnx)
    np.testing.assert_allclose(runner({"clip": clips})["logits"], toy[2], atol=1e-5)
    model = onnx.load_from_string(toy_onnx)
    onnx.checker.check_model(model)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == onnx_files.OPSET


@pytest.mark.parametrize("maker", [tflite, onnx_files])
def test_int8_without_clips_to_measure_ranges_on_is_one_clear_error(request, maker):
    content = request.getfixturevalue("toy_tflite" if maker is tflite else "toy_onnx")
    with pytest.raises(StudyError, match="no calibration set"):
        maker.quantise(content, "int8", [])
    with pytest.raises(ValueError, match="unknown precision 'int4'"):
        maker.quantise(content, "int4")


def test_a_layer_without_a_counterpart_is_one_line_that_names_it(capfd):
    class Strange(nn.Module):
        def forward(self, **inputs):
            return {"logits": torch.linalg.eigvals(inputs["clip"]).real}

    for maker in (tflite, onnx_files):
        with pytest.raises(StudyError, match=r"cannot hold this network|no built-in operation") as error:
            maker.convert(Strange(), {"clip": torch.rand(2, 3, 3)})
        assert "\n" not in str(error.value)
        assert "eig" in str(error.value)
    assert "graph(" not in capfd.readouterr().out  # so long a text that it hangs the kernel of a notebook


def test_operations_that_are_not_built_in_are_seen(toy_tflite, toy_onnx):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(toy_tflite, 0))
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = schema.BuiltinOperator.CUSTOM, 32, b"FlexErf"
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    assert tflite.custom_ops(bytes(builder.Output())).keys() == {"custom FlexErf"}
    changed = onnx.load_from_string(toy_onnx)
    changed.graph.node[0].domain = "com.microsoft"
    assert sum(onnx_files.custom_ops(changed.SerializeToString()).values()) == 1


# ---- what a file carries -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [".tflite", ".onnx"])
def test_labels_and_description_travel_in_the_file_and_change_no_logit(request, tmp_path, clips, kind):
    content = request.getfixturevalue(f"toy_{kind[1:]}")
    description = {"licence": "none – a test", "input": {"clip": {"shape": [1, 4]}}}
    (tmp_path / f"toy{kind}").write_bytes(FORMATS[kind].add_metadata(content, description, ["éa", "b c"]))
    assert read_metadata(tmp_path / f"toy{kind}") == (description, ["éa", "b c"])
    runner = open_model(tmp_path / f"toy{kind}")
    np.testing.assert_array_equal(runner({"clip": clips[:1]})["logits"], logits(kind, content, clips[:1]))
    if kind == ".tflite":
        assert zipfile.ZipFile(tmp_path / "toy.tflite").testzip() is None


def test_a_file_that_is_no_model_or_carries_nothing_is_one_clear_error(tmp_path, toy_tflite, toy_onnx):
    for name, content in (("a.tflite", toy_tflite), ("a.onnx", toy_onnx), ("b.tflite", b"noise"), ("b.onnx", b"noise")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StudyError, match=name):
            read_metadata(tmp_path / name)
    for name in ("b.tflite", "b.onnx"):
        with pytest.raises(StudyError, match="that can be run"):
            open_model(tmp_path / name)
    with pytest.raises(StudyError, match=r"c\.tflite: cannot be read"):
        open_model(tmp_path / "c.tflite")
    with pytest.raises(StudyError, match=r"suffix \.tflite or \.onnx, not '\.pb'"):
        open_model(tmp_path / "d.pb")


def test_a_path_that_cannot_be_written_is_one_clear_error_and_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "kept").touch()
    with pytest.raises(StudyError, match=r"taken: cannot be written"):
        write(tmp_path / "taken", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


# ---- frame by frame ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two clips of made-up signing, of different signs."""
    folder = tmp_path_factory.mktemp("videos")
    make_videos(folder, [(64, 64)], noise=0, clips=12)
    return sorted(folder.glob("*.mp4"))[:2]


@pytest.fixture(scope="module")
def movinet(videos):
    """A small stream model whose classifier names these two clips, and these, float32 (2, frames, height, width, 3)."""
    keras.utils.set_random_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "a0", SMALL)  # the published A0 takes a minute to convert
        model = build("movinet-a0", 2, clip=(FRAMES, SIZE, SIZE), stream=True, residual=0.5, differences=True)
    clips = np.stack([read_clip(path, frames=FRAMES, size=SIZE) for path in videos]) / np.float32(255)
    seen = model.run(keras.ops.convert_to_tensor(clips), {})[1]
    features = keras.ops.convert_to_numpy(model.head(seen["features"] / FRAMES))
    middle, apart = features.mean(0), features[1] - features[0]
    direction = apart / (apart @ apart)
    model.classifier.kernel.assign(np.stack([-direction, direction], 1) * 8)
    model.classifier.bias.assign(np.array([1, -1]) * 8 * (middle @ direction))
    return model, clips


@pytest.fixture(scope="module")
def files(movinet, tmp_path_factory):
    """The stream files of both formats and the ONNX file of whole clips, described as exported ones are."""
    folder = tmp_path_factory.mktemp("files")
    model, clips = movinet
    whole, frame = network.whole(model, clips[:1]), network.streaming(model)
    contents = {
        "whole.onnx": onnx_files.convert(*whole),
        "stream.tflite": tflite.convert(*frame),
        "stream.onnx": onnx_files.convert(*frame),
    }
    for name, content in contents.items():
        shape = [1, FRAMES if name.startswith("whole") else 1, SIZE, SIZE, 3]
        description = {"frames": FRAMES, "input": {"clip": {"shape": shape, "margin": 0.1}}}
        (folder / name).write_bytes(FORMATS[f".{name.split('.')[1]}"].add_metadata(content, description, LABELS))
    return folder


@pytest.mark.parametrize("name", ["stream.tflite", "stream.onnx"])
def test_frame_by_frame_equals_the_whole_clip(files, movinet, name):
    model, clips = movinet
    camera = Stream(files / name)
    assert camera.labels == LABELS
    for clip in clips:
        camera.reset()
        for count, frame in enumerate(clip, start=1):
            probabilities = camera.push(frame)
            wanted = keras.ops.softmax(model(clip[None, :count]))[0]
            np.testing.assert_allclose(probabilities, keras.ops.convert_to_numpy(wanted), atol=1e-4)
        by_frame = run_clip(camera.runner, clip[None])
        np.testing.assert_allclose(by_frame, keras.ops.convert_to_numpy(model(clip[None])), atol=1e-4)
    assert np.ptp(probabilities) > 0.1


@pytest.mark.parametrize("name", ["stream.tflite", "stream.onnx"])
def test_a_stream_gives_the_logits_of_its_probabilities(files, movinet, name):
    camera, other = Stream(files / name), Stream(files / name)
    for frame in movinet[1][0]:
        logits = camera.logits(frame)
        assert (logits.shape, logits.dtype) == ((1, len(LABELS)), np.float32)
        np.testing.assert_allclose(softmax(logits[0]), other.push(frame), atol=1e-6)
    np.testing.assert_allclose(logits, run_clip(camera.runner, movinet[1][:1]), atol=1e-6)


def test_a_new_clip_begins_with_nothing_remembered(files, movinet):
    camera = Stream(files / "stream.tflite")
    frames = movinet[1][0]
    first = camera.push(frames[0])
    assert not np.array_equal(camera.push(frames[1]), first)
    camera.reset()
    np.testing.assert_array_equal(camera.push(frames[0]), first)


@pytest.mark.parametrize("name", ["stream.tflite", "stream.onnx"])
def test_a_frame_of_bytes_is_scaled_and_read_only_ones_are_taken(files, movinet, name):
    bytes_of_frame = (movinet[1][0, 0] * 255).round().astype(np.uint8)
    camera = Stream(str(files / name))
    expected = camera.push(bytes_of_frame / np.float32(255))
    assert np.ptp(expected) > 0.01
    for frame in (bytes_of_frame, bytes_of_frame / 255):
        frame.flags.writeable = False
        camera.reset()
        np.testing.assert_allclose(camera.push(frame), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda frame: frame * 255, "float32 of shape"),  # never scaled
        (lambda frame: frame * np.nan, "or has other values"),
        (lambda frame: frame.astype(np.int64), "int64 of shape"),
        (lambda frame: frame[:-1], rf"{SIZE - 1}, {SIZE}, 3"),
        (lambda frame: frame[..., 0], rf"shape \({SIZE}, {SIZE}\)"),
    ],
)
def test_a_frame_that_would_be_noise_is_refused_with_what_a_frame_is(files, movinet, change, problem):
    camera = Stream(files / "stream.tflite")
    with pytest.raises(StudyError, match=rf"a frame is uint8, or float in \[0, 1\], of shape .*{problem}"):
        camera.push(change(movinet[1][0, 0]))


def test_a_file_of_whole_clips_is_no_stream(files):
    with pytest.raises(StudyError, match=r"whole.onnx: takes whole clips, not frames"):
        Stream(files / "whole.onnx")


def test_a_file_of_a_stream_is_of_the_operations_that_phones_are_fast_at(files):
    found = tflite.operations((files / "stream.tflite").read_bytes())
    assert found["FULLY_CONNECTED"] == 8  # two in each of three gates, and the head's two
    assert found["DEPTHWISE_CONV_2D"] == 7  # of space in three bottlenecks, of time in two, and two that halve the size
    assert found["HARD_SWISH"] > 6
    assert not {"TRANSPOSE", "CONV_3D", "DELEGATE"} & found.keys()


def test_a_base_model_cannot_go_frame_by_frame():
    with pytest.raises(ValueError, match="uses future frames"):
        network.streaming(build("movinet-a0", 2, clip=(FRAMES, SIZE, SIZE)))


@pytest.mark.parametrize("name", ["whole.onnx", "stream.tflite", "stream.onnx"])
def test_a_program_that_shares_no_code_with_the_study_names_the_clips(files, videos, repository, tmp_path, name):
    for video, label in zip(videos, LABELS, strict=True):
        command = [sys.executable, "-P", repository / "tests" / "export_client.py", files / name, video]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        named, probability = done.stdout.split()
        assert named == label
        assert float(probability) > 0.6


# ---- poses ---------------------------------------------------------------------------------------------


def test_poses_padded_to_one_length_give_the_logits_of_the_unpadded_clip():
    keras.utils.set_random_seed(0)
    options = {"normalisation": "robust", "motion": True, "convolutions": 1, "pool": True, "pre_norm": True}
    model = build("spobet", 5, layout="hands-42", stride=2, width=16, depth=1, feed_forward=32, **options)
    rng = np.random.default_rng(0)
    clip = rng.random((1, 13, 42, 3), np.float32)
    clip[..., 2] = rng.random((1, 13, 1)) < 0.8
    clip[..., :2] *= clip[..., 2:]
    wanted = keras.ops.convert_to_numpy(model(clip))
    flat, example = network.whole(model, of_length(clip, 20))
    contents = {".tflite": tflite.convert(flat, example), ".onnx": onnx_files.convert(flat, example)}
    for suffix, content in contents.items():
        given = FORMATS[suffix].Runner(content)({"clip": of_length(clip, 20)})["logits"]
        np.testing.assert_allclose(given, wanted, atol=1e-4)
    assert np.ptp(wanted) > 0.1


def test_poses_are_padded_with_frames_without_joints_or_lose_only_such():
    clip = np.ones((1, 5, 2, 3))
    assert of_length(clip, 7)[0, :, 0, 0].tolist() == [1] * 5 + [0] * 2
    assert of_length(of_length(clip, 8), 6).shape == (1, 6, 2, 3)


# ---- verification --------------------------------------------------------------------------------------


def predictions(rows):
    rows = np.asarray(rows, np.float32)
    return Predictions(np.array([str(n) for n in range(len(rows))]), np.arange(len(rows)) % 2, rows, np.array(LABELS))


def test_a_file_is_compared_clip_by_clip_with_its_source():
    source, file = predictions([[2, 1], [0, 3], [5, 4]]), predictions([[2, 1.5], [1, 0], [5, 4]])
    assert bundle.compare(file, source) == {
        "top1": pytest.approx(2 / 3), "top1_source": pytest.approx(1.0),
        "agreement": pytest.approx(2 / 3), "max_abs_diff": 3.0,
    }  # fmt: skip
    other = Predictions(np.array(["7", "8", "9"]), source.label, source.logits, source.glosses)
    with pytest.raises(StudyError, match="different clips"):
        bundle.compare(other, source)


def test_a_file_of_many_glosses_that_is_the_model_but_for_rounding_passes():
    rng, glosses = np.random.default_rng(0), [f"gloss {number}" for number in range(301)]
    logits, label = 8 * rng.normal(size=(400, 301)), rng.integers(0, 301, 400)
    names = np.array([str(number) for number in range(400)])
    source = Predictions(names, label, logits, np.array(glosses))
    file = Predictions(names, label, logits + 1e-5 * rng.normal(size=logits.shape), np.array(glosses))
    assert np.abs(source.logits - file.logits).max() > bundle.EXACT  # some are rounded up here and down there
    row = {"precision": "float32", "flex_ops": 0, **bundle.compare(file, source)}
    assert bundle.problem(row) == ""
    other = Predictions(names, label, logits + 0.1 * rng.normal(size=logits.shape), np.array(glosses))
    assert bundle.problem(row | bundle.compare(other, source)) != ""


@pytest.mark.parametrize(("change", "said"), [
    ({}, ""), ({"max_abs_diff": 2e-3}, "differ by up to 0.002"), ({"agreement": 0.99}, "agrees on 99.0%"),
    ({"flex_ops": 1}, "1 operations that are not built in"),
    ({"precision": "float16", "agreement": 0.98}, "agrees on 98.0%"),
    ({"precision": "float16", "agreement": 0.995, "max_abs_diff": 0.1}, ""),
    ({"precision": "int8", "agreement": 0.5, "max_abs_diff": 9.0}, ""),
])  # fmt: skip
def test_only_a_file_that_is_the_trained_model_passes(change, said):
    row = {"precision": "float32", "agreement": 1.0, "max_abs_diff": 1e-4, "flex_ops": 0} | change
    assert (said in bundle.problem(row)) if said else not bundle.problem(row)


def test_latency_is_the_median_after_warming_up():
    taken = iter([0.2, 0.2, *[0.001] * 100])

    def work():
        import time

        time.sleep(next(taken))

    assert 0.9 < latency(work) < 20


def test_rows_of_all_exported_runs_make_one_table_whose_scores_come_from_the_predictions(tmp_path):
    class Two:
        name, paths, exports = "two", Paths("two", tmp_path), ["b", "a"]

    facts = {"format": "onnx", "precision": "int8", "bytes": 9, "flex_ops": 0}
    facts |= {"latency_ms_1_thread": 1.0, "latency_ms_2_threads": 0.5}
    for run in "ab":
        predictions([[2, 1], [0, 3]]).save(Two.paths.predictions(run))
        predictions([[2, 1], [4, 3]] if run == "a" else [[2, 1], [0, 3]]).save(
            Two.paths.exported_predictions(run, "onnx", "int8")
        )
        # An earlier version also stored scores, which are not read.
        pd.DataFrame([{"run": run, **facts, "top1": 0.1}]).to_csv(Two.paths.export_table(run), index=False)
    table = bundle.gather(Two())
    assert table["run"].tolist() == ["b", "a"]
    assert table["top1"].tolist() == [1, 0.5]
    assert table["agreement"].tolist() == [1, 0.5]
    assert table["max_abs_diff"].tolist() == [0, 4]
    assert list(pd.read_csv(Two.paths.table("export.csv"))) == [
        "run", "format", "precision", "bytes", "top1", "top1_source", "agreement", "max_abs_diff",
        "latency_ms_1_thread", "latency_ms_2_threads", "flex_ops",
    ]  # fmt: skip
    Two.paths.export_table("a").unlink()
    with pytest.raises(StudyError, match="run a is not exported: run `make study STUDY=two`"):
        bundle.gather(Two())


def test_a_model_computes_in_float32_whatever_it_was_built_for():
    from lib.training import compute_in_float32

    options = {"layout": "hands-42", "width": 16, "depth": 1, "feed_forward": 32, "normalisation": "robust"}
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = build("spobet", 5, **options)
    keras.config.set_dtype_policy("float32")
    exact = build("spobet", 5, **options)
    exact.set_weights(mixed.get_weights())
    poses = np.random.default_rng(0).random((2, 8, 42, 3), np.float32)
    wanted, before = (keras.ops.convert_to_numpy(model(poses)) for model in (exact, mixed))
    assert np.abs(before - wanted).max() > 1e-4
    compute_in_float32(mixed)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(mixed(poses)), wanted, atol=1e-6)


def test_description_is_json(tmp_path, toy_onnx):
    (tmp_path / "a.onnx").write_bytes(onnx_files.add_metadata(toy_onnx, {"a": [1]}, ["x"]))
    properties = {prop.key: prop.value for prop in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert json.loads(properties["description"]) == {"a": [1]}


def conv_then(*nodes):
    """A convolution, and nodes behind it: (operation, its further inputs and attributes)."""
    make, name, made = onnx.helper, "y0", []
    for number, (kind, more, attributes) in enumerate(nodes, 1):
        made.append(make.make_node(kind, [name, *more], [f"y{number}"], **attributes))
        name = f"y{number}"
    values = {"w": np.random.default_rng(0).normal(size=(4, 3, 3, 3)), "low": 0.0, "high": 6.0, "shift": np.ones(4)}
    constants = [onnx.numpy_helper.from_array(np.asarray(value, np.float32), one) for one, value in values.items()]
    constants.append(onnx.numpy_helper.from_array(np.array([2, 2, 4, 4, 4]), "shape"))
    shape = make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 3, 6, 6])
    out = make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    graph = make.make_graph([make.make_node("Conv", ["x", "w"], ["y0"]), *made], "g", [shape], [out], constants)
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=9)


TURN = ("Transpose", [], {"perm": [0, 2, 3, 1]})
FOLD, CUT, RELU = ("Reshape", ["shape"], {}), ("Clip", ["low", "high"], {}), ("Relu", [], {})


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([TURN, CUT], ["Conv", "Clip", "Transpose"]),
        ([TURN, FOLD, RELU], ["Conv", "Relu", "Transpose", "Reshape"]),
        ([RELU, TURN, CUT], ["Conv", "Relu", "Transpose", "Clip"]),
        ([TURN, ("Add", ["shift"], {}), RELU], ["Conv", "Transpose", "Add", "Relu"]),
    ],
)
def test_activations_move_behind_their_convolution_where_values_are_only_moved(nodes, expected):
    model, x = conv_then(*nodes), np.random.default_rng(1).normal(size=(4, 3, 6, 6)).astype(np.float32)
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    activations_first(model)
    assert [node.op_type for node in model.graph.node] == expected
    np.testing.assert_array_equal(
        onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0], before
    )


class Skip(nn.Module):
    """A skip connection around a convolution that gives nothing."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, clip):
        kept = torch.relu(clip - 1)
        return {"logits": kept + self.conv(kept)}


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_int8_leaves_a_skip_connection_around_a_layer_as_it_is(kind):
    loud = torch.full((1, 3, 4, 4), 256.0)  # makes steps of 1 in what the convolution reads
    maker = {"onnx": onnx_files, "tflite": tflite}[kind]
    content = maker.quantise(maker.convert(Skip().eval(), {"clip": loud}), "int8", [{"clip": loud.numpy()}])
    quiet = np.linspace(0, 2, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    np.testing.assert_allclose(maker.Runner(content)({"clip": quiet})["logits"], np.maximum(quiet - 1, 0))


def test_figure_has_a_panel_for_each_run_and_a_point_for_each_file():
    rows = [
        {"run": run, "format": kind, "precision": precision, "bytes": 2e6, "latency_ms_1_thread": 3.0}
        for run, kinds in (("one", ["tflite", "onnx"]), ("two", ["tflite"]))
        for kind in kinds
        for precision in ("float32", "int8")
    ]
    panels = figures.sizes_and_speeds(pd.DataFrame(rows)).axes
    assert [panel.get_title(loc="left") for panel in panels] == ["one", "two"]
    assert [len(panel.collections[0].get_offsets()) for panel in panels] == [4, 2]
    assert panels[1].collections[0].get_offsets()[0].tolist() == pytest.approx([2, 3])
    many = pd.concat([pd.DataFrame(rows).assign(run=name) for name in "abcd"])
    assert [panel.get_title(loc="left") for panel in figures.sizes_and_speeds(many).axes] == [*"abcd"]


@pytest.mark.parametrize("precision", ["float32", "float16", "int8-dynamic", "int8"])
def test_cosine_logits_and_the_embedding_that_they_are_made_from_are_both_in_a_file(precision):
    options = {"layout": "hands-42", "normalisation": "robust", "width": 32, "depth": 1, "pre_norm": True, "pool": True}
    model = build("spobet", 12, **options, cosine=16.0)
    poses = np.random.default_rng(0).random((1, 8, 42, 3), np.float32)
    poses[..., 2] = 1
    content = tflite.convert(*network.whole(model, poses))
    content = content if precision == "float32" else tflite.quantise(content, precision, [{"clip": poses}])
    found, (given, vector) = tflite.Runner(content)({"clip": poses}), model.read(poses)
    tolerance = {"float32": 1e-4, "float16": 0.02}.get(precision, 0.2)
    np.testing.assert_allclose(found["logits"], given.numpy(force=True), atol=tolerance)
    np.testing.assert_allclose(found["embedding"], vector.numpy(force=True), atol=tolerance / 4)
