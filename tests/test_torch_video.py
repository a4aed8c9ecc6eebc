"""S3D and X3D in Keras: equal to the published torch networks, loadable from state dicts, trainable, freezable."""

import copy

import keras
import numpy as np
import pytest
from keras import ops
from pydantic import ValidationError

from lib import models
from lib.models import freeze
from lib.models.cost import gflops
from lib.models.frames import flatten_convolutions
from lib.models.torch_video import PUBLISHED, SMALLEST, load_published_weights, separated
from lib.settings import StudyError

if keras.backend.backend() != "torch":
    pytest.skip("torch networks need keras' torch backend", allow_module_level=True)

import torch
from pytorchvideo.models.x3d import create_x3d
from torchvision.models.video import s3d

CLASSES = 7
CLIP = (7, 40, 33)  # neither square nor a multiple of the strides
COLOURS = {  # of the published transforms
    "s3d": ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]),
    "x3d": ([0.45] * 3, [0.225] * 3),
}
HEAD = {"s3d": "classifier.1.", "x3d": "blocks.5.proj."}
every_family = pytest.mark.parametrize("family", HEAD)


def clips_of(count=2, clip=CLIP, seed=0):
    return np.random.default_rng(seed).random((count, *clip, 3), np.float32)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def logits(model, clips):
    return numpy(model(clips, training=False))


def build(family, seed=0, clip=CLIP, size="s", **options):
    keras.utils.set_random_seed(seed)
    return models.build(f"x3d-{size}" if family == "x3d" else family, CLASSES, clip, **options)


def published(family, clip, classes=CLASSES, **options):
    """The library's own network, its statistics random, too."""
    torch.manual_seed(3)
    if family == "s3d":
        network = s3d(num_classes=classes)
    else:
        network = create_x3d(
            input_clip_length=clip[0], input_crop_size=clip[1], model_num_class=classes, head_activation=None, **options
        )
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.02, 0.2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def published_logits(network, family, clips):
    """Normalise as the published transforms do and classify with the library's own network."""
    mean, std = np.float32(COLOURS[family])
    x = torch.from_numpy(np.ascontiguousarray(((clips - mean) / std).transpose(0, 4, 1, 2, 3)))
    with torch.no_grad():
        return network(x).numpy()


def save(network, path, family):
    """Write a state dict as its library publishes it."""
    state = network.state_dict()
    torch.save({"model_state": state, "epoch": 3} if family == "x3d" else state, path)
    return path


# ---- the published networks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "clip", "options"),
    [("s3d", (13, 209, 209), {}), ("x3d", (4, 64, 64), {"size": "xs"}), ("x3d", (3, 33, 33), {"size": "l"})],
)
def test_logits_equal_those_of_the_published_network(family, clip, options, tmp_path):
    network = published(family, clip, depth_factor=5.0) if options.get("size") == "l" else published(family, clip)
    model = build(family, clip=clip, **options)
    load_published_weights(model, save(network, tmp_path / "weights", family), head=True)
    clips = clips_of(2 if family == "x3d" else 1, clip)
    expected = published_logits(network, family, clips)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(logits(model, clips), expected, atol=1e-4 * max(1, np.abs(expected).max()))


@every_family
def test_differences_of_frames_are_what_the_network_reads_if_asked_for(family):
    clips = clips_of()
    changes = np.diff(clips, axis=1, prepend=clips[:, :1])
    expected = logits(build(family), changes + np.float32(COLOURS[family][0]))  # the mean is taken off
    np.testing.assert_allclose(logits(build(family, differences=True), clips), expected, atol=1e-4)


def test_s3d_has_the_published_parameters_and_multiply_adds():
    table = PUBLISHED["s3d"]
    assert table["clip"] == (16, 224, 224)
    model = models.build("s3d", table["classes"], (16, 32, 32))
    assert model.count_params() == table["parameters"]
    # A 49th of the area is a 49th of the work, but for the head's, which is too little to matter.
    cost = gflops(model, clips_of(1, (16, 32, 32))) / 2
    assert 49 * cost == pytest.approx(table["multiply_adds"], rel=3e-3)


@pytest.mark.parametrize("name", models.FAMILIES["x3d"].models)
def test_x3d_has_the_published_parameters_and_multiply_adds(name):
    table = PUBLISHED[name]
    frames, *sides = table["clip"]
    model = models.build(name, table["classes"], (1, *sides))
    assert model.count_params() == pytest.approx(table["parameters"], rel=2e-3)
    # The work grows evenly with the frames, so one and two frames tell that of all.
    one, two = (gflops(model, clips_of(1, (count, *sides))) / 2 for count in (1, 2))
    assert one + (frames - 1) * (two - one) == pytest.approx(table["multiply_adds"], rel=1e-2)


@every_family
def test_any_size_of_clip_works_and_another_than_built_for_as_well(family):
    model = build(family)
    for clip in (CLIP, (9, 33, 64)):
        found = logits(model, clips_of(3, clip))
        assert found.shape == (3, CLASSES)
        assert np.isfinite(found).all()


def test_a_clip_too_small_is_an_error_and_the_smallest_is_not():
    assert np.isfinite(logits(build("s3d", clip=SMALLEST), clips_of(1, SMALLEST))).all()
    for clip in ((6, 17, 17), (7, 16, 17), (7, 17, 16)):
        with pytest.raises(ValueError, match="s3d needs clips of at least 7 frames of 17 × 17"):
            build("s3d", clip=clip)
    assert np.isfinite(logits(build("x3d", clip=(1, 1, 1)), clips_of(1, (1, 1, 1)))).all()
    with pytest.raises(ValueError, match="x3d-s needs clips of at least 1 frames"):
        build("x3d", clip=(0, 32, 32))


@every_family
def test_unknown_and_wrong_options_are_errors(family):
    with pytest.raises(ValidationError, match="droput"):
        build(family, droput=0.1)
    with pytest.raises(ValidationError, match="momentum"):
        build(family, momentum=1)


@every_family
def test_another_backend_is_a_clear_error(family, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(StudyError, match=f"{family}.* is a torch network.* is tensorflow: set KERAS_BACKEND=torch"):
        build(family)


def test_weights_of_convolutions_lie_channels_last():
    for model in (build("s3d"), build("x3d")):
        weights = [w for block in model.blocks for w in block.module.parameters() if w.ndim == 5]
        assert len(weights) > 50
        assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in weights)


# ---- loading -------------------------------------------------------------------------------------------


@every_family
def test_loading_leaves_the_new_head_alone_and_takes_everything_else(family, tmp_path):
    network = published(family, (5, 40, 40), classes=400)
    model = build(family)
    head = [weight.copy() for weight in model.head.get_weights()]
    load_published_weights(model, save(network, tmp_path / "weights", family))
    for before, after in zip(head, model.head.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)
    loaded = {
        f"{block.name.replace('_', '.')}.{key}": value
        for block in model.blocks
        for key, value in block.module.state_dict().items()
    }
    state = {key: value for key, value in network.state_dict().items() if not key.startswith(HEAD[family])}
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


@every_family
def test_what_does_not_match_is_listed_and_nothing_is_loaded(family, tmp_path):
    network = published(family, (5, 40, 40))
    state = network.state_dict()
    first, second = [key for key in state if key.endswith("weight") and not key.startswith(HEAD[family])][:2]
    state["nonsense.weight"] = torch.zeros(2)
    state[second] = torch.zeros(2, 3)
    del state[first]
    torch.save(state, tmp_path / "weights")
    model = build(family)
    before = [weight.copy() for weight in model.get_weights()]
    with pytest.raises(StudyError) as error:
        load_published_weights(model, tmp_path / "weights")
    assert f"only in the model: {first}" in str(error.value)
    assert "only in the file: nonsense.weight" in str(error.value)
    assert f"{second} is (2, 3) in the file, " in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def of_i3d(seed=0):
    """Weights of I3D by name, whose kernels are each the product of an image and a curve over time."""
    rng, weights = np.random.default_rng(seed), {}
    for layer in models.build("i3d", CLASSES, (16, 32, 32)).layers:
        if layer.name.endswith("_conv"):
            time, *image, filters = layer.kernel.shape
            curve, picture = rng.standard_normal((time, 1, 1, 1, filters)), rng.standard_normal((*image, filters))
            weights[f"{layer.name}/kernel"] = np.float32(curve * picture)
        elif layer.name.endswith("_bn"):
            weights[f"{layer.name}/beta"] = rng.random(layer.beta.shape, np.float32)
    return weights


def test_kernels_of_i3d_that_are_products_become_s3ds_two_convolutions():
    weights = of_i3d()
    state = separated(weights)
    names = {name for name in s3d(num_classes=CLASSES).state_dict() if not name.startswith("classifier")}
    assert set(state) == {name for name in names if name.rsplit(".", 1)[1] in {"weight", "bias"}}
    for place, unit in {"features.3": "2c_3x3", "features.9.branch2.1": "4c_2b_3x3"}.items():
        image, time = (state[f"{place}.{half}.0.weight"].double() for half in (0, 1))
        product = torch.einsum("ostyx,sihwk->oithw", time, image.transpose(2, 4))
        expected = weights[f"Conv3d_{unit}_conv/kernel"].transpose(4, 3, 0, 1, 2)
        np.testing.assert_allclose(product.numpy().swapaxes(3, 4), expected, atol=1e-4)
        np.testing.assert_array_equal(state[f"{place}.1.1.bias"], weights[f"Conv3d_{unit}_bn/beta"])
    kernel = weights["Conv3d_5c_0a_1x1_conv/kernel"].transpose(4, 3, 0, 1, 2)
    np.testing.assert_array_equal(state["features.15.branch0.0.weight"], kernel)


def test_a_kernel_of_i3d_whose_curve_adds_up_to_0_is_kept():
    weights = of_i3d()
    kernel = np.zeros((3, 3, 3, 64, 192), np.float32)
    kernel[0], kernel[2] = 1, -1
    state = separated(weights | {"Conv3d_2c_3x3_conv/kernel": kernel})
    image, time = (state[f"features.3.{half}.0.weight"] for half in (0, 1))
    found = image[5, 7, 0, 1, 1] * time[5, 5, :, 0, 0]
    np.testing.assert_allclose(found, [1, 0, -1], atol=1e-4)


def test_the_first_kernel_of_i3d_gives_s3d_what_it_gives_for_the_same_colours():
    weights, clip = of_i3d(), torch.rand(1, 3, 9, 20, 20)
    state = separated(weights)
    mean, std = (torch.tensor(values)[:, None, None, None] for values in COLOURS["s3d"])
    kernel = torch.from_numpy(weights["Conv3d_1a_7x7_conv/kernel"]).permute(4, 3, 0, 1, 2)
    theirs = torch.nn.functional.conv3d(2 * (clip - mean), kernel)
    ours = torch.nn.functional.conv3d((clip - mean) / std, state["features.0.0.0.weight"])
    ours = torch.nn.functional.conv3d(ours, state["features.0.1.0.weight"])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-3 * theirs.std().item())


def test_s3d_takes_i3ds_file_and_what_is_no_such_file_is_an_error(tmp_path, monkeypatch):
    import lib.models.torch_video

    model, path = build("s3d"), tmp_path / "weights.ckpt"
    head = numpy(model.head.weights[0]).copy()
    monkeypatch.setattr(lib.models.torch_video, "read_flax", lambda path: of_i3d())
    load_published_weights(model, path)
    state, own = separated(of_i3d()), model.blocks[3].module.state_dict()
    torch.testing.assert_close(own["1.0.weight"].contiguous(), state["features.3.1.0.weight"].contiguous())
    np.testing.assert_array_equal(numpy(model.head.weights[0]), head)
    monkeypatch.setattr(lib.models.torch_video, "read_flax", lambda path: {})
    with pytest.raises(
        StudyError, match=r"weights\.ckpt: these are not weights of I3D; 'Conv3d_1a_7x7_conv/kernel' is"
    ):
        load_published_weights(model, path)
    monkeypatch.undo()
    path.write_bytes(b"no pickle")
    with pytest.raises(StudyError, match=r"weights\.ckpt: not a readable file of Flax weights"):
        load_published_weights(model, path)


def test_a_published_head_of_other_classes_is_an_error_that_says_so(tmp_path):
    path = save(published("s3d", CLIP, classes=9), tmp_path / "weights", "s3d")
    with pytest.raises(StudyError, match=r"classifier.1.bias is \(9,\) in the file, \(7,\) in the model"):
        load_published_weights(build("s3d"), path, head=True)


def test_a_missing_or_broken_file_is_an_error_that_names_it(tmp_path):
    model = build("x3d")
    (tmp_path / "broken").write_text("no pickle")
    torch.save({"model_state": 3}, tmp_path / "other")
    for name in ("broken", "missing", "other"):
        with pytest.raises(StudyError, match=f"{name}: not a "):
            load_published_weights(model, tmp_path / name)


# ---- training ------------------------------------------------------------------------------------------


def train(model, optimizer="sgd"):
    """One step of training; gives the weights and statistics it changed, as (layer, name in the torch module)."""
    parts = [*model.blocks, model.head]
    state = lambda: {(p.name, k): v.clone() for p in parts for k, v in p.module.state_dict().items()}  # noqa: E731
    before = state()
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(clips_of(4), np.eye(CLASSES, dtype=np.float32)[:4], batch_size=4, verbose=0)
    return {name for name, value in state().items() if not torch.equal(before[name], value)}


@every_family
def test_every_parameter_of_the_head_and_of_the_blocks_gets_a_gradient(family):
    model = build(family)
    for block in model.blocks:
        for module in block.module.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                torch.nn.init.ones_(module.weight)  # X3D begins with 0 at the end of a residual: no gradient inside it
    clips, labels = clips_of(4), torch.arange(4)
    torch.nn.functional.cross_entropy(model(clips, training=True), labels).backward()
    head = list(model.head.module.parameters())
    assert [weight.shape[0] for weight in head] == [CLASSES, CLASSES]
    for part in (*model.blocks, model.head):
        assert all(w.grad is not None and w.grad.abs().max() > 0 for w in part.module.parameters()), part.name
    assert len(model.trainable_variables) == sum(len(list(p.module.parameters())) for p in (*model.blocks, model.head))


@every_family
def test_a_fit_trains_and_saved_weights_give_the_same_predictions(family, tmp_path, capsys):
    model = build(family)
    changed = train(model, "adam")
    assert {name for name, _ in changed} == {p.name for p in (*model.blocks, model.head) if p.weights}
    model.save_weights(tmp_path / "model.weights.h5")
    other = build(family, seed=1)
    expected = model.predict(clips_of(), verbose=0)
    assert np.abs(other.predict(clips_of(), verbose=0) - expected).max() > 1e-4
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.predict(clips_of(), verbose=0), expected)
    model.summary()
    assert f"{model.count_params():,}" in capsys.readouterr().out


@every_family
def test_frozen_blocks_keep_weights_and_statistics_and_the_others_train(family):
    model = build(family, freeze=4)
    names = [block.name for block in model.blocks if block.weights]
    frozen = {block.name for block in model.blocks[:4]} & set(names)
    assert frozen
    assert {name for name, _ in train(model)} == set(names) - frozen | {model.head.name}
    freeze(model, len(model.blocks))
    assert {name for name, _ in train(model)} == {model.head.name}
    freeze(model, 0)
    assert {name for name, _ in train(model)} == {*names, model.head.name}
    with pytest.raises(ValueError, match="stages to freeze, not 99"):
        freeze(model, 99)


@every_family
def test_momentum_is_the_share_of_the_old_statistics_that_a_step_keeps(family):
    model = build(family, momentum=0.75)
    norm = next(m for m in model.blocks[0].module.modules() if isinstance(m, torch.nn.BatchNorm3d))
    seen = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].mean((0, 2, 3, 4))))
    model(clips_of(4), training=True)  # the running mean is 0 before
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.25 * seen[0].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(("options", "scale"), [({}, 0.0), ({"residual": 0.5}, 0.5)])
def test_residual_branches_of_x3d_begin_as_published_or_at_the_scale_asked_for(options, scale):
    weights = create_x3d().state_dict()
    last = [key for key, value in weights.items() if key.endswith("norm_c.weight") and not value.any()]
    assert len(last) == 26  # blocks of X3D-S and X3D-M
    blocks = [layer.module for layer in build("x3d", **options).blocks[:-1]]
    for key in last:
        block, name = key.removeprefix("blocks.").split(".", 1)
        np.testing.assert_array_equal(blocks[int(block)].get_parameter(name).detach(), scale)


@every_family
def test_with_fixed_norms_training_computes_what_inference_does_and_keeps_the_statistics(family):
    model = build(family, fix_norm=True, dropout=0.0)
    before = {name: value.clone() for name, value in model.blocks[0].module.state_dict().items()}
    outputs = model(clips_of(4), training=True)
    np.testing.assert_allclose(numpy(outputs), logits(model, clips_of(4)), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.blocks[0].module.state_dict().items())
    outputs.sum().backward()
    assert next(model.blocks[0].module.parameters()).grad.abs().max() > 0


def test_features_are_normalised_by_what_the_head_step_has_learned():
    model = build("s3d", norm_features=True, momentum=0.0, dropout=0.0)
    norm = model.norm_features
    freeze(model, None)
    model(clips_of(4), training=True)
    learned = [numpy(weight).copy() for weight in norm.weights]
    assert learned[0].std() > 0
    assert learned[1].max() < 1
    freeze(model, 2)
    model(clips_of(4, seed=1), training=True)
    for weight, kept in zip(norm.weights, learned, strict=True):
        np.testing.assert_array_equal(numpy(weight), kept)
    np.testing.assert_allclose(numpy(norm(learned[0][None, :, None, None, None])), 0, atol=1e-4)


@every_family
def test_statistics_are_learned_from_batches_alone_whatever_is_frozen(family):
    model = build(family, momentum=0.75, fix_norm=True)
    norm = next(m for m in model.blocks[0].module.modules() if isinstance(m, torch.nn.BatchNorm3d))
    norm.running_mean.fill_(7)
    seen = []
    hook = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].mean((0, 2, 3, 4))))
    model.learn_statistics(clips_of(4, seed=seed) for seed in range(3))
    hook.remove()
    assert len(seen) == 3
    np.testing.assert_allclose(norm.running_mean.numpy(), torch.stack(seen).mean(0).numpy(), atol=1e-5)
    assert norm.momentum == 0.25
    assert model.fixed


@every_family
def test_dropout_is_the_one_asked_for(family):
    clips = clips_of(4)
    assert build(family, dropout=0.9).dropout.rate == 0.9
    model = build(family, dropout=0.9, freeze=6)  # frozen blocks give the same features each time
    freeze(model, len(model.blocks))
    draws = [numpy(model(clips, training=True)) for _ in range(2)]
    from_features = draws[0] - numpy(model.head.module.bias)
    assert np.abs(draws[0] - draws[1]).max() > 0.1 * np.abs(from_features).max()
    np.testing.assert_array_equal(logits(model, clips), logits(model, clips))


@every_family
def test_bfloat16_computes_nearly_the_same_and_keeps_weights_and_logits_in_float32(family, tmp_path):
    path = save(published(family, (5, 40, 40)), tmp_path / "weights", family)
    built = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            built.append(build(family))
        finally:
            keras.config.set_dtype_policy("float32")
        load_published_weights(built[-1], path, head=True)
    computed = []
    built[1].blocks[0].module.register_forward_hook(lambda module, inputs, output: computed.append(output.dtype))
    exact, rounded = (model(clips_of(), training=False) for model in built)
    assert rounded.dtype == torch.float32
    assert computed == [torch.bfloat16]
    error = np.abs(numpy(rounded) - numpy(exact)).max()
    assert 0 < error < 0.15 * np.abs(numpy(exact)).max() + 0.02
    train(built[1])
    assert all(weight.dtype == torch.float32 for block in built[1].blocks for weight in block.module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("frames", "kernel", "stride"), [(2, 3, 1), (1, 3, 1), (4, 3, 1), (7, 7, 2), (8, 7, 2)])
def test_gradients_of_convolutions_over_few_frames_are_right_whatever_is_in_memory(frames, kernel, stride, dtype):
    plain = torch.nn.Conv3d(48, 48, (kernel, 1, 1), (stride, 1, 1), (kernel // 2, 0, 0), bias=False)
    safe = copy.deepcopy(plain)
    flatten_convolutions(torch.nn.Sequential(safe))
    clips = torch.randn(2, 48, frames, 5, 5).to(memory_format=torch.channels_last_3d)
    exact = torch.nn.functional.conv3d(clips.double(), weight := plain.weight.detach().double().requires_grad_(),
                                       stride=plain.stride, padding=plain.padding)  # fmt: skip
    exact.square().sum().backward()
    for _ in range(5):
        safe.weight.grad = None
        junk = [torch.full((48, 48, kernel, 1, 1), 1e30) for _ in range(4)]  # what freed memory may hold
        del junk
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = safe(clips)
        logits.float().square().sum().backward()
        error = (safe.weight.grad - weight.grad).abs().max() / weight.grad.abs().max()
        assert error < (0.02 if dtype == torch.bfloat16 else 1e-5)


FLAT = [
    torch.nn.Conv3d(6, 8, (7, 1, 1), (2, 1, 1), (3, 0, 0), bias=False),
    torch.nn.Conv3d(6, 8, (3, 1, 1), 1, (1, 0, 0)),
    torch.nn.Conv3d(6, 8, (1, 3, 5), (1, 2, 1), (0, 1, 2), bias=False),
    torch.nn.Conv3d(6, 8, 1),
    torch.nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    torch.nn.MaxPool3d(3, 1, 1),
    torch.nn.MaxPool3d((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    torch.nn.MaxPool3d(2, 2),
]


@pytest.mark.parametrize("layer", FLAT, ids=str)
def test_flat_layer_is_torchs_with_the_same_gradients_and_its_own_to_predict(layer):
    flat = copy.deepcopy(layer)
    flatten_convolutions(torch.nn.Sequential(flat))
    assert type(flat) is not type(layer)
    clips = torch.randn(2, 6, 8, 9, 10).to(memory_format=torch.channels_last_3d)
    results = []
    for module in (layer, flat):
        x = clips.clone().requires_grad_()
        y = module.train()(x)
        y.square().sum().backward()
        results.append([y, x.grad, *(parameter.grad for parameter in module.parameters())])
    for plain, quick in zip(*results, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-4)
    assert results[1][0].is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(flat.eval()(clips), layer.eval()(clips))


def test_full_and_dilated_convolutions_stay_as_they_are():
    network = torch.nn.Sequential(torch.nn.Conv3d(4, 4, 3), torch.nn.Conv3d(4, 4, (3, 1, 1), dilation=2))
    flatten_convolutions(network)
    assert [type(layer) for layer in network] == [torch.nn.Conv3d] * 2


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3, 3), 1), ((3, 3, 3), 2), ((5, 1, 1), 1)])
def test_quick_depthwise_convolution_is_torchs_with_the_same_gradients(kernel, stride):
    padding = tuple(size // 2 for size in kernel)
    plain = torch.nn.Conv3d(6, 6, kernel, (1, stride, stride), padding, groups=6, bias=False)
    quick = copy.deepcopy(plain)
    flatten_convolutions(torch.nn.Sequential(quick))
    assert type(quick) is not type(plain)
    clips = torch.randn(2, 6, 5, 8, 9)
    results = []
    for layer in (plain, quick):
        x = clips.clone().requires_grad_()
        y = layer(x)
        y.square().sum().backward()
        results.append((y, x.grad, layer.weight.grad))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_quick_depthwise_convolution_predicts_as_torchs_does_to_the_bit():
    quick = torch.nn.Conv3d(6, 6, 3, padding=1, groups=6, bias=False).eval()
    clips = torch.randn(2, 6, 5, 8, 9)
    expected = quick(clips)
    flatten_convolutions(torch.nn.Sequential(quick))
    assert type(quick) is not torch.nn.Conv3d
    assert torch.equal(quick(clips), expected)
