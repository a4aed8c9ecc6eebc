"""A trained run as files: all of them made, scored, described; and which of them are released."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import yaml

from helpers import RECIPE, make_study
from lib.evaluation import write_metrics
from lib.export import network, tflite
from lib.export.bundle import card, gather, problem, release, score_run
from lib.export.files import FORMATS, embed_clip, open_model, read_metadata, run_clip
from lib.export.run import KEPT, calibrate, clips, quantise, record, write_files
from lib.predictions import Predictions
from lib.runs import PoseRun, embed_batch, open_run
from lib.settings import StudyError

RUN = "small-s0"
FILES = [("tflite", p) for p in ("float32", "float16", "int8-dynamic", "int8")]
FILES += [("onnx", p) for p in ("float32", "float16", "int8")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run of a study that is trained and exported, and the rows of its files."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "small.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(folder / "home"))
        patch.setattr("lib.paths.RECIPES", folder)
        study = make_study(folder).model_copy(update={"exports": [RUN], "release": [RUN]})
        run = PoseRun(study, RUN)
        model = run.build()
        run.pretrain(model)
        run.train(model)
        for split in ("val", "test"):
            path = study.paths.metrics(RUN, split)
            write_metrics(path, run.predict(model, split), **run.facts(model, split))
        (recorded,) = record(run.trained(), next(clips(run, "test"))).values()
        exact = {suffix[1:]: maker.convert(*recorded) for suffix, maker in FORMATS.items()}
        stale = study.paths.exported_predictions(RUN, "tflite", "int4")
        stale.parent.mkdir(parents=True)
        stale.touch()
        # Too few clips to measure it on: a number that says from which embeddings and clips it was made.
        patch.setattr(
            "lib.export.run.own_signs_from",
            lambda vectors, clips, _: vectors[(clips["label"] == 1).to_numpy(), 0].item(),
        )
        table = write_files(open_run(study, RUN), exact)
        assert not stale.exists()
        pd.testing.assert_frame_equal(pd.read_csv(study.paths.export_table(RUN)), table, rtol=1e-4, check_dtype=False)
        yield run, gather(study)


def test_every_file_is_the_trained_model(exported):
    run, table = exported
    assert list(zip(table["format"], table["precision"], strict=True)) == FILES
    exact = table[table["precision"] == "float32"]
    assert (exact["agreement"] == 1).all()
    assert (exact["max_abs_diff"] < 1e-4).all()
    assert (table["flex_ops"] == 0).all()
    assert (table[["latency_ms_1_thread", "latency_ms_2_threads"]] > 0).all(axis=None)
    source = Predictions.load(run.report / "predictions-test.npz")
    for row in table.to_dict("records"):
        scored = Predictions.load(run.report / "exports" / f"predictions-test-{row['format']}-{row['precision']}.npz")
        np.testing.assert_array_equal(scored.video_id, source.video_id)
        assert np.abs(scored.logits - source.logits).max() == pytest.approx(row["max_abs_diff"])


def test_every_file_gives_the_embeddings_of_the_trained_model(exported):
    run, _ = exported
    model = run.trained()
    poses = list(clips(run, "test"))
    wanted = np.concatenate([embed_batch(model, clip) for clip in poses])
    facts = pd.read_csv(run.study.paths.export_table(RUN)).set_index(["format", "precision"])
    for form, precision in FILES:
        file = open_model(run.study.paths.exported(RUN, form, precision))
        assert file.outputs == ["logits", "embedding"] or form == "tflite"
        given = np.concatenate([embed_clip(file, clip) for clip in poses])
        difference = np.abs(given - wanted).max()
        assert difference == pytest.approx(facts.loc[(form, precision), "embedding_diff"], rel=1e-3, abs=1e-7)
        assert difference < {"float32": 1e-5, "float16": 5e-3}.get(precision, 0.2)
        np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-5)
        if form == "onnx":
            np.testing.assert_allclose(file({"clip": np.concatenate(poses)})["embedding"], given, atol=1e-5)


def test_all_files_of_a_run_have_the_checksum_of_its_weights(exported):
    run, _ = exported
    content = (run.folder / "train" / "best.weights.h5").read_bytes()
    for form, precision in FILES:
        about, _ = read_metadata(run.study.paths.exported(RUN, form, precision))
        assert about["checksum"] == hashlib.sha256(content).hexdigest()
        assert about["output"].keys() == {"logits", "embedding"}


def test_every_file_and_its_card_state_from_which_similarity_on_a_clip_shows_a_sign_of_ones_own(exported):
    run, _ = exported
    where = run.clips("val")["label"].tolist().index(1)
    least = embed_batch(run.trained(), [*clips(run, "val")][where])[0, 0]
    for form, precision in FILES:
        path = run.study.paths.exported(RUN, form, precision)
        assert read_metadata(path)[0]["own_signs_from"] == pytest.approx(least, abs=6e-4)
        assert f"each is below {least:.2f}." in path.with_name(f"{path.name}.md").read_text()


@pytest.mark.parametrize(("precision", "difference", "wrong"), [
    ("float32", 5e-5, False), ("float32", 2e-4, True), ("float16", 0.004, False), ("float16", 0.006, True),
    ("int8", 0.2, False), ("float32", float("nan"), False),
])  # fmt: skip
def test_a_file_whose_embeddings_differ_is_not_the_trained_model(precision, difference, wrong):
    row = {"precision": precision, "flex_ops": 0, "agreement": 1, "max_abs_diff": 0}
    assert problem(row) == ""
    assert ("embeddings differ" in problem(row | {"embedding_diff": difference})) == wrong


def test_a_file_that_gives_no_embeddings_still_gives_logits(of_videos):
    file = open_model(of_videos.files["tflite"])
    clip = np.zeros((1, 4, 32, 32, 3), np.float32)
    assert run_clip(file, clip).shape == (1, 3)
    with pytest.raises(StudyError, match="gives no embeddings"):
        embed_clip(file, clip)


def test_every_file_says_what_it_is(exported):
    run, table = exported
    for row in table.to_dict("records"):
        path = run.study.paths.exported(RUN, row["format"], row["precision"])
        assert path.stat().st_size == row["bytes"]
        description, labels = read_metadata(path)
        assert labels == run.glosses
        assert description["input"]["clip"]["shape"] == [1, 12, 42, 3]
        assert description["precision"] == row["precision"]
        card = path.with_name(f"{path.name}.md").read_text()
        for said in (f"{row['top1']:.1%}", "C-UDA", hashlib.sha256(path.read_bytes()).hexdigest(), "42, 3", "5 clips"):
            assert said in card


def test_float16_files_are_released_with_all_that_belongs_to_them(exported):
    run, _ = exported
    written = release(run.study, RUN)
    folder = run.study.paths.models
    names = [f"{RUN}.tflite", f"{RUN}.onnx", f"{RUN}.sha256", f"{RUN}-labels.txt", "LICENCE.md"]
    assert {path.name for path in written} == {*names, f"{RUN}.tflite.md", f"{RUN}.onnx.md"}
    sums = dict(reversed(line.split()) for line in (folder / f"{RUN}.sha256").read_text().splitlines())
    for name in names[:2]:
        assert sums[name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert read_metadata(folder / name)[0]["precision"] == "float16"


def test_what_is_not_asked_for_or_not_the_trained_model_is_not_released(exported):
    run, _ = exported
    study, paths = run.study, run.study.paths
    with pytest.raises(StudyError, match=f"does not release run {RUN}"):
        release(study.model_copy(update={"release": []}), RUN)
    scored, facts = paths.exported_predictions(RUN, "onnx", "float16"), paths.export_table(RUN)
    before, rows = scored.read_bytes(), facts.read_bytes()
    right = Predictions.load(scored)
    Predictions(right.video_id, right.label, -right.logits, right.glosses).save(scored)
    with pytest.raises(StudyError, match="onnx: not released, as the file is not the trained model"):
        release(study, RUN)
    scored.write_bytes(before)
    table = pd.read_csv(facts)
    table[table["precision"] != "float16"].to_csv(facts, index=False)
    with pytest.raises(StudyError, match="has no float16 file of tflite"):
        release(study, RUN)
    facts.unlink()
    with pytest.raises(StudyError, match=f"run {RUN} is not exported"):
        release(study, RUN)
    facts.write_bytes(rows)


def test_a_run_without_weights_is_one_clear_error(study):
    with pytest.raises(StudyError, match=r"best\.weights\.h5 is missing: train the run first"):
        PoseRun(study, RUN).trained()


@pytest.mark.parametrize(("precision", "agreements", "chosen"), [
    ("int8", [0.95, 0.1], 0), ("int8-dynamic", [0.5, 0.9, 0.96], KEPT[2]), ("int8", [0.5, 0.7, 0.7, 0.6], KEPT[1]),
])  # fmt: skip
def test_int8_keeps_no_more_layers_in_float32_than_agreement_on_val_takes(
    exported, monkeypatch, precision, agreements, chosen
):
    run, _ = exported
    content = tflite.convert(*network.whole(run.trained(), next(clips(run, "test"))))
    calibration, left = calibrate(run, tflite.Runner(content)), iter(agreements)
    monkeypatch.setattr(Predictions, "agreement", lambda predictions, source: next(left))
    quantised, kept = quantise(run, ".tflite", precision, content, calibration)
    assert kept == chosen
    assert quantised == tflite.quantise(content, precision, calibration, chosen)


def card_of(exported, precision, **changes):
    """The card of a TensorFlow Lite file, with changes to its row."""
    run, _ = exported
    row = next(row for row in score_run(run.study, RUN) if (row["format"], row["precision"]) == ("tflite", precision))
    return card(run.study, row | changes, run.study.paths.exported(RUN, "tflite", precision))


@pytest.mark.parametrize(("precision", "lost", "costs"), [
    ("int8", 0.05, True), ("int8", 0.01, False), ("int8-dynamic", 0.05, True), ("float16", 0.05, False),
])  # fmt: skip
def test_a_card_says_what_int8_costs_and_why_where_it_costs_more_than_two_points(exported, precision, lost, costs):
    text = card_of(exported, precision, top1=0.5 - lost, top1_source=0.5, agreement=1.0)
    assert ("**Int8 costs 5.0 points**: its weights have 256 levels" in text) == costs
    assert ("inputs and outputs of layers have 256 levels" in text) == (costs and precision == "int8")


def test_a_card_says_that_a_file_is_not_the_trained_model(exported):
    assert "**Not the trained model" not in card_of(exported, "float32")
    assert "**Not the trained model: agrees on 50.0% of the clips" in card_of(exported, "float32", agreement=0.5)


def test_a_card_says_which_layers_of_an_int8_file_stay_in_float32(exported):
    assert "stay in float32" not in card_of(exported, "int8", kept=0)
    assert "the first 33% of the layers stay in float32" in card_of(exported, "int8", kept=1 / 3)
