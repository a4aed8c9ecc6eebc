"""Published MoViNet weights: archives with checkpoints, and the file for phones."""

import os
import subprocess
import sys
import tarfile

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from lib.data.video import read_clip
from lib.export import network, tflite
from lib.export.files import run_clip, stream_clip
from lib.models import build, weights
from lib.models.movinet_weights import from_tflite, load_mobile_tflite, plain, read_tflite, to_own_layout
from lib.models.weights import load_pretrained
from lib.settings import StudyError

PHONE = "movinet-a0-stream-k600-int8"
CLIP = (2, 64, 64)


def arrays(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.variables]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of published weights, empty; nothing can be downloaded."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))

    def offline(url, part):
        raise OSError("no network")

    monkeypatch.setattr(weights, "download", offline)
    (tmp_path / "data" / "weights").mkdir(parents=True)
    return tmp_path / "data" / "weights"


@pytest.fixture(scope="module")
def phone_file(official_weights):
    return official_weights / "movinet_a0_stream_k600_int8.tflite"


@pytest.fixture(scope="module")
def phone_model(phone_file):
    model = build("movinet-a0", 600, clip=(8, 172, 172), mobile=True)
    load_mobile_tflite(model, phone_file)
    return model


def test_an_archive_with_an_official_checkpoint_fills_all_but_the_classifier(folder, official_weights):
    with tarfile.open(folder / "movinet_a0_base.tar.gz", "w:gz") as archive:
        archive.add(official_weights / "movinet_a0_base", "movinet_a0_base")
    script = f"""
import numpy as np
from lib.models import build
from lib.models.movinet_weights import load_official_checkpoint
from lib.models.weights import load_pretrained
ours, whole = build("movinet-a0", 5, {CLIP}, dropout=.5), build("movinet-a0", 600, {CLIP})
classifier = ours.classifier.get_weights()
load_pretrained(ours, "movinet-a0", "movinet-a0-base")
load_official_checkpoint(whole, {str(official_weights / "movinet_a0_base" / "ckpt-1")!r})
clips = np.random.default_rng(0).random((2, *{CLIP}, 3), np.float32)
features = [model.run(clips, {{}})[1]["features"] for model in (ours, whole)]
heads = [np.asarray(model.head(feature)) for model, feature in zip((ours, whole), features)]
assert np.ptp(heads[0]) > 1e-3 and np.array_equal(*heads)
assert all(np.array_equal(a, b) for a, b in zip(classifier, ours.classifier.get_weights()))
"""
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "STUDY_HOME": str(folder.parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("content", ["noise", "no checkpoint"])
def test_an_archive_that_is_none_or_holds_no_checkpoint_is_one_clear_error(folder, content):
    archive = folder / "movinet_a0_base.tar.gz"
    (folder / "readme").write_text("hello")
    if content == "noise":
        archive.write_bytes(b"noise")
    else:
        with tarfile.open(archive, "w:gz") as file:
            file.add(folder / "readme", "readme")
    said = {"noise": "not a readable archive", "no checkpoint": "holds no TensorFlow checkpoint"}[content]
    with pytest.raises(StudyError, match=said):
        load_pretrained(build("movinet-a0", 5, CLIP), "movinet-a0", "movinet-a0-base")


def test_a_variable_has_one_name_in_all_forms_of_a_convolution():
    assert plain("_stem/_conv/_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE") == "_stem/_conv/kernel"
    assert plain("_stem/_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE") == "_stem/_conv/kernel"
    assert plain("_feature/_conv_temporal/_conv/depthwise_kernel") == "_feature/_conv_temporal/kernel"
    assert plain("_feature/_conv/_conv/depthwise_kernel") == "_feature/_conv/kernel"


def test_published_kernels_are_arranged_and_those_that_do_not_fit_stay_as_they_are():
    whole = np.random.default_rng(0).random((5, 3, 3, 1, 8))  # frames, height, width, 1, channels
    np.testing.assert_array_equal(to_own_layout(whole, (3, 3, 8, 5)), np.moveaxis(whole[:, :, :, 0], 0, -1))
    np.testing.assert_array_equal(to_own_layout(whole[:1], (3, 3, 8, 1))[..., 0], whole[0, :, :, 0])
    time = whole[:, :1, :1]
    np.testing.assert_array_equal(to_own_layout(time, (5, 1, 8, 1))[:, 0, :, 0], time[:, 0, 0, 0])
    assert to_own_layout(np.zeros((1, 1, 1, 24, 8)), (24, 8)).shape == (24, 8)
    assert to_own_layout(np.zeros((1, 1, 1, 24, 8)), (8, 24)).shape == (1, 1, 1, 24, 8)
    assert to_own_layout(whole, (3, 3, 8, 3)) is whole


# ---- the file for phones -------------------------------------------------------------------------------


def published_logits(runner, clip):
    """Of the published file, which goes frame by frame, after the last frame of a clip (1, frames, …)."""
    state = {name: np.zeros(d["shape"], d["dtype"]) for name, d in runner.get_input_details().items()}
    for frame in range(clip.shape[1]):
        state = runner(**state | {"image": clip[:, frame : frame + 1]})
        logits = state.pop("logits")
    return logits


def real_videos(wlasl_root):
    return sorted((wlasl_root / "videos").glob("*.mp4"))[:14]


def test_the_file_for_phones_names_every_convolution_and_residual_scale(phone_file):
    found = read_tflite(phone_file)
    kernels, biases, scales = ([name for name in found if name.endswith(end)] for end in ("/kernel", "/bias", "/scale"))
    assert len(kernels) == len(biases) == 64
    assert len(scales) == 15
    assert all(-3 < found[name] < 3 and found[name] != 0 for name in scales)
    stem = found["movinet_classifier/movinet/stem/stem/conv2d/kernel"]
    assert stem.shape == (8, 3, 3, 3)
    assert 1 < np.abs(stem).max() < 100


def test_the_dequantised_model_calls_a_real_clip_by_its_name(phone_model, official_weights):
    labels = (official_weights / "kinetics600_label_map.txt").read_text().splitlines()
    clip = read_clip(official_weights / "carving_ice.mp4", frames=8, size=172)[None] / np.float32(255)
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(phone_model(clip)))[0]
    assert labels[probabilities.argmax()] == "carving ice"
    assert probabilities.max() > 0.9


def test_logits_follow_those_of_the_file_itself(phone_model, phone_file, official_weights):
    clip = read_clip(official_weights / "carving_ice.mp4", frames=8, size=172)[None] / np.float32(255)
    logits = published_logits(Interpreter(str(phone_file)).get_signature_runner(), clip)
    ours = keras.ops.convert_to_numpy(phone_model(clip))
    assert np.corrcoef(logits.ravel(), ours.ravel())[0, 1] > 0.95
    assert logits.argmax() == ours.argmax()


def test_exported_again_to_int8_it_names_clips_as_the_published_file_does(phone_model, phone_file, wlasl_root):
    recorded, example = network.streaming(phone_model)
    exact = tflite.convert(recorded, example)
    videos = [read_clip(path, frames=8, size=172)[None] / np.float32(255) for path in real_videos(wlasl_root)]
    ranges = [inputs for clip in videos[:4] for inputs, _ in stream_clip(tflite.Runner(exact), clip)]
    again = tflite.Runner(tflite.quantise(exact, "int8", ranges))
    published = Interpreter(str(phone_file)).get_signature_runner()
    carving_ice = read_clip(phone_file.with_name("carving_ice.mp4"), frames=8, size=172)[None] / np.float32(255)
    alike = [run_clip(again, c).argmax() == published_logits(published, c).argmax() for c in videos[4:]]
    assert np.mean(alike) >= 0.9
    labels = phone_file.with_name("kinetics600_label_map.txt").read_text().splitlines()
    assert labels[run_clip(again, carving_ice).argmax()] == "carving ice"


def test_the_file_for_phones_does_not_fill_a_model_with_squeeze_excite_half(phone_file):
    model = build("movinet-a1", 600, CLIP, mobile=True)
    before = arrays(model)
    with pytest.raises(StudyError, match=r"only in the model: .*block4_layer6") as error:
        load_mobile_tflite(model, phone_file)
    assert "stem/conv2d/kernel is (8, 3, 3, 3) in the file, (3, 3, 3, 16) in the model" in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, arrays(model), strict=True))


@pytest.mark.parametrize("options", [{}, {"stream": True}], ids=str)
def test_the_file_for_phones_in_another_form_says_which_option_to_set(phone_file, options):
    with pytest.raises(StudyError, match=r"for the mobile form of movinet-a0: set options\.mobile to true"):
        load_mobile_tflite(build("movinet-a0", 600, CLIP, **options), phone_file)


def test_a_file_that_is_no_tflite_model_is_one_clear_error(tmp_path):
    (tmp_path / "noise.tflite").write_bytes(b"noise" * 10)
    with pytest.raises(StudyError, match=r"noise\.tflite: not a readable TensorFlow Lite model"):
        read_tflite(tmp_path / "noise.tflite")


def test_kernels_of_tflite_are_turned_outputs_last():
    kernel = np.arange(2 * 3 * 3 * 5.0).reshape(2, 3, 3, 5)
    turned = from_tflite(kernel, (3, 3, 5, 2))
    assert turned[0, 1, 2, 1] == kernel[1, 0, 1, 2]
    depthwise = from_tflite(np.arange(12.0).reshape(1, 3, 1, 4), (3, 1, 4, 1))
    assert depthwise[2, 0, 1, 0] == 9
    assert from_tflite(kernel, (3, 3, 5, 4)) is kernel


def test_fixed_normalisation_keeps_its_statistics_and_trains_scale_and_shift():
    model = build("movinet-a0", 3, CLIP, mobile=True, fix_norm=True)
    norm = model.stem.norm
    before = [keras.ops.convert_to_numpy(value).copy() for value in (norm.moving_mean, norm.moving_variance, norm.beta)]
    clips = np.random.default_rng(0).random((4, *CLIP, 3), np.float32)
    model.compile(keras.optimizers.SGD(1.0), keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(clips, np.eye(3)[[0, 1, 2, 0]], epochs=2, verbose=0)
    mean, variance, beta = (keras.ops.convert_to_numpy(v) for v in (norm.moving_mean, norm.moving_variance, norm.beta))
    np.testing.assert_array_equal(mean, before[0])
    np.testing.assert_array_equal(variance, before[1])
    assert np.abs(beta - before[2]).max() > 0
