"""Accuracy, intervals, confusion and paired tests against libraries and worked examples."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score

from lib.evaluation import (
    accuracy_per_gloss,
    calibration,
    confusion,
    evaluate,
    expected_calibration_error,
    most_confused,
    other_glosses,
    paired_recipe_tests,
    paired_test,
    paired_tests,
    top1_either,
    wilson,
    without_twins,
    write_metrics,
)
from lib.predictions import Predictions
from lib.settings import StudyError

FACTS = {
    "model": "movinet",
    "variant": "a0",
    "recipe": "movinet-a0",
    "input": "videos",
    "frames": 20,
    "size": 172,
    "weights": "kinetics600",
    "seed": 1,
    "backend": "tensorflow",
    "split": "test",
    "params_m": 3.1,
    "gflops": None,
    "train_seconds": 12.3456789,
    "epochs": 5,
}


def predictions(logits, label, glosses=None) -> Predictions:
    logits = np.asarray(logits, dtype=np.float32)
    glosses = glosses or [f"gloss {number}" for number in range(logits.shape[1])]
    clips = [f"{number:05d}" for number in range(len(logits))]
    return Predictions(np.array(clips), np.asarray(label), logits, np.array(glosses))


def random_predictions(clips=200, classes=12, seed=0) -> Predictions:
    random = np.random.default_rng(seed)
    label = random.integers(0, classes, clips)
    return predictions(random.normal(size=(clips, classes)) + 1.5 * np.eye(classes)[label], label)


def from_right(right) -> Predictions:
    """Two glosses, all clips of the first; predicted right where `right`."""
    right = np.asarray(right)
    return predictions(np.column_stack([right, ~right]), np.zeros(len(right), dtype=int))


# ---- metrics


@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_top_k_without_ties_equals_sklearn(k):
    given_ = random_predictions()
    expected = top_k_accuracy_score(given_.label, given_.logits, k=k, labels=range(12))
    assert evaluate(given_)[f"top{k}"] == pytest.approx(expected)


def test_top1_per_class_equals_balanced_accuracy_and_weighs_rare_glosses_the_same():
    given_ = random_predictions()
    expected = balanced_accuracy_score(given_.label, given_.logits.argmax(axis=1))
    assert evaluate(given_)["top1_per_class"] == pytest.approx(expected)
    uneven = predictions([[1, 0], [1, 0], [1, 0], [1, 0]], [0, 0, 0, 1])
    assert evaluate(uneven)["top1_per_class"] == 0.5
    assert evaluate(uneven)["top1"] == 0.75


def test_per_class_is_a_mean_over_the_glosses_that_occur():
    assert evaluate(predictions([[1, 0, 0], [0, 1, 0]], [0, 0]))["top1_per_class"] == 0.5


def test_loss_equals_log_loss_and_does_not_overflow():
    given_ = random_predictions()
    softmax = np.exp(given_.logits.astype(float))
    softmax /= softmax.sum(axis=1, keepdims=True)
    assert evaluate(given_)["loss"] == pytest.approx(log_loss(given_.label, softmax, labels=range(12)))
    assert evaluate(predictions([[1e30, 0]], [0]))["loss"] == 0


@given(classes=st.integers(1, 30), data=st.data())
def test_constant_logits_score_chance(classes, data):
    label = data.draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=20))
    metrics = evaluate(predictions(np.full((len(label), classes), 0.3), label))
    for k in (1, 2, 5, 10):
        assert metrics[f"top{k}"] == pytest.approx(min(1, k / classes))
        assert metrics[f"top{k}_per_class"] == pytest.approx(min(1, k / classes))
    assert metrics["loss"] == pytest.approx(np.log(classes), abs=1e-9)


@given(
    logits=arrays.arrays(np.float32, (7, 6), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])),
    label=arrays.arrays(np.int32, 7, elements=st.integers(0, 5)),
    order=st.permutations(range(6)),
)
def test_metrics_do_not_depend_on_the_order_of_the_classes(logits, label, order):
    order = np.array(order)
    metrics = evaluate(predictions(logits, label))
    permuted = evaluate(predictions(logits[:, order], np.argsort(order)[label]))
    assert permuted.pop("top1_ci95") == pytest.approx(metrics.pop("top1_ci95"))
    assert permuted == pytest.approx(metrics)


def test_tied_logits_get_the_credit_of_random_ranking():
    metrics = evaluate(predictions([[3, 1, 1, 1, 0]], [2]))
    assert metrics["top1"] == 0
    assert metrics["top2"] == pytest.approx(1 / 3)
    assert metrics["top5"] == 1


def test_absent_clips_count_as_wrong_in_top1_full_only():
    metrics = evaluate(from_right([True, True, False]), n_missing=1)
    assert (metrics["n"], metrics["n_missing"]) == (3, 1)
    assert metrics["top1"] == pytest.approx(2 / 3)
    assert metrics["top1_full"] == 0.5


def test_negative_n_missing_is_refused():
    with pytest.raises(ValueError, match="n_missing >= 0"):
        evaluate(random_predictions(), n_missing=-1)


# ---- Wilson interval


def test_wilson_gives_newcombes_published_interval():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@given(n=st.integers(1, 400), data=st.data())
def test_wilson_equals_scipy_for_whole_counts(n, data):
    k = data.draw(st.integers(0, n))
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_takes_fractional_credit_and_refuses_the_impossible():
    low, high = wilson(2.5, 10)
    assert wilson(2, 10)[0] < low < 0.25 < high < wilson(3, 10)[1]
    for k, n in ((11, 10), (-1, 10), (0, 0)):
        with pytest.raises(ValueError, match="need n >= 1"):
            wilson(k, n)


# ---- the predictions file


def test_predictions_file_has_the_contract_types_and_reads_back(tmp_path):
    given_ = random_predictions()
    path = tmp_path / "runs" / "predictions-test.npz"
    given_.save(path)
    with np.load(path) as file:
        assert set(file) == {"video_id", "label", "logits", "glosses"}
        assert (file["label"].dtype, file["logits"].dtype) == (np.int32, np.float32)
        assert file["video_id"].dtype.kind == file["glosses"].dtype.kind == "U"
    assert evaluate(path) == evaluate(given_)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "predictions-test.npz"
    given_ = random_predictions()
    given_.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez_compressed", lambda file, **arrays: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        given_.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"logits": np.array([[0, np.nan], [0, 1], [0, np.inf]], np.float32)},
            r"clip a .* not finite \(2 such",
        ),
        ({"logits": np.zeros((3, 4), np.float32)}, r"logits are \(3, 4\) for 3 clips and 2 glosses"),
        ({"logits": np.zeros((3, 2), int)}, "logits is int64"),
        ({"label": np.array([0, 2, 1])}, "clip b has label 2"),
        ({"label": np.array([0, -1, 1])}, "clip b has label -1"),
        ({"label": np.array([0.0, 1.0, 1.0])}, "label is float64"),
        ({"label": np.array([0, 1])}, "label has 2 rows for 3 clips"),
        ({"video_id": np.array(["a", "b", "b"])}, "video_id holds 'b' 2 times"),
        ({"video_id": np.array([1, 2, 3])}, "video_id is int64"),
        ({"glosses": np.array(["book", "book"])}, "glosses holds 'book' 2 times"),
        (
            {
                "video_id": np.array([], str),
                "label": np.array([], int),
                "logits": np.zeros((0, 2), np.float32),
            },
            "predictions hold 0 clips",
        ),
    ],
)
def test_wrong_arrays_are_refused_by_name_and_file(tmp_path, change, message):
    right = {
        "video_id": np.array(["a", "b", "c"]),
        "label": np.array([0, 1, 1]),
        "logits": np.zeros((3, 2), np.float32),
        "glosses": np.array(["book", "drink"]),
    }
    path = tmp_path / "predictions-test.npz"
    np.savez(path, **right | change)
    with pytest.raises(StudyError, match=message) as refusal:
        Predictions.load(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_absent_broken_and_incomplete_files_are_refused_by_name(tmp_path):
    with pytest.raises(StudyError, match=r"absent\.npz: no such predictions file"):
        Predictions.load(tmp_path / "absent.npz")
    path = tmp_path / "incomplete.npz"
    np.savez(path, video_id=np.array(["a"]), label=np.array([0]), logits=np.zeros((1, 1)))
    with pytest.raises(StudyError, match=r"incomplete\.npz: .*glosses"):
        Predictions.load(path)
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:-30])
    with pytest.raises(StudyError, match=r"cut\.npz: not a valid predictions file"):
        Predictions.load(tmp_path / "cut.npz")


@given(content=st.binary(max_size=200))
def test_any_other_file_is_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("broken") / "predictions.npz"
    path.write_bytes(content)
    with pytest.raises(StudyError, match="not a valid predictions file"):
        Predictions.load(path)


# ---- the predictions file of many glosses


def many_glosses(clips=40, classes=301, seed=0):
    random = np.random.default_rng(seed)
    return predictions(8 * random.normal(size=(clips, classes)), random.integers(0, classes, clips))


def test_logits_of_many_glosses_are_float16_in_the_file_and_float32_in_memory(tmp_path):
    given_ = many_glosses()
    given_.save(tmp_path / "many.npz")
    with np.load(tmp_path / "many.npz") as file:
        assert file["logits"].dtype == np.float16
    read = Predictions.load(tmp_path / "many.npz")
    assert read.logits.dtype == np.float32
    assert np.array_equal(read.logits, given_.logits)
    assert evaluate(read) == evaluate(given_)
    fresh = 8 * np.random.default_rng(0).normal(size=(40, 301))
    assert 0 < np.abs(read.logits - fresh).max() <= 0.5 * np.spacing(np.float16(np.abs(fresh).max()))


def test_logits_of_few_glosses_are_not_rounded(tmp_path):
    given_ = many_glosses(classes=300)
    given_.save(tmp_path / "few.npz")
    fresh = 8 * np.random.default_rng(0).normal(size=(40, 300))
    assert np.array_equal(Predictions.load(tmp_path / "few.npz").logits, fresh.astype(np.float32))


def test_logits_that_float16_cannot_hold_are_refused():
    with pytest.raises(StudyError, match=r"clip 00001 has logits that are not finite \(1 such"):
        predictions(np.eye(2, 301, k=5) * [[1], [70_000]], [0, 0])


def test_rounding_hides_no_difference_but_its_own():
    one = many_glosses()
    nearly = Predictions(one.video_id, one.label, one.logits * (1 + 6e-4), one.glosses)
    assert not np.array_equal(nearly.logits, one.logits)
    assert nearly.largest_difference(one) == 0
    other = Predictions(one.video_id, one.label, one.logits * 1.01, one.glosses)
    assert other.largest_difference(one) == pytest.approx(0.01 * np.abs(one.logits).max(), rel=0.2)


# ---- metrics.json


def test_metrics_file_holds_the_contract_rounded_and_in_stable_order(tmp_path):
    path = tmp_path / "spobet" / "metrics.json"
    written = write_metrics(path, from_right([True, True, False]), 1, **FACTS)
    read = json.loads(path.read_text())
    assert read == written
    assert read["top1"] == 0.666667
    assert read["train_seconds"] == 12.345679
    assert read["top1_ci95"] == [round(bound, 6) for bound in wilson(2, 3)]
    contract = (
        "top1 top2 top5 top10 top1_per_class top5_per_class loss n n_missing top1_full top1_ci95 params_m "
        "gflops train_seconds epochs weights seed backend split"
    )
    assert set(contract.split()) <= set(read)
    shuffled = dict(reversed(FACTS.items()))
    write_metrics(tmp_path / "again.json", from_right([True, True, False]), 1, **shuffled)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_unknown_and_left_out_facts_are_named(tmp_path):
    wrong = {name: fact for name, fact in FACTS.items() if name != "seed"} | {"flops": 1}
    with pytest.raises(StudyError, match="unknown or left out: flops, seed"):
        write_metrics(tmp_path / "metrics.json", from_right([True]), 0, **wrong)
    assert not (tmp_path / "metrics.json").exists()


# ---- twins

# Of four glosses. Clip 0 has a near copy in training, 1 is identical to a clip of gloss 3, which is in test, 2 to one
# in training whose gloss is not among the four, 3 to one in training of its own gloss; 4 has no twin.
TWINS = pd.DataFrame(
    [
        ("00000", "gloss 0", "a", "gloss 1", "train", "near"),
        ("00001", "gloss 1", "b", "gloss 3", "test", "identical"),
        ("00002", "gloss 2", "c", "elsewhere", "train", "identical"),
        ("00003", "gloss 3", "d", "gloss 3", "train", "identical"),
        ("99999", "gloss 0", "e", "gloss 1", "train", "identical"),
    ],
    columns=["video_id", "gloss", "twin", "twin_gloss", "twin_split", "kind"],
)
OF_TWINS = predictions(np.eye(4)[[1, 3, 0, 3, 0]], [0, 1, 2, 3, 0])


def test_clips_without_a_twin_in_training_are_found_whatever_its_kind_and_gloss():
    assert without_twins(OF_TWINS, TWINS).tolist() == [False, True, False, False, True]
    assert without_twins(OF_TWINS, TWINS[:0]).all()


def test_other_glosses_are_those_of_identical_clips_that_the_study_has():
    assert np.argwhere(other_glosses(OF_TWINS, TWINS)).tolist() == [[1, 3]]


def test_either_gloss_of_an_identical_clip_is_right():
    assert evaluate(OF_TWINS)["top1"] == 2 / 5
    assert top1_either(OF_TWINS, other_glosses(OF_TWINS, TWINS)) == 3 / 5


@given(
    logits=arrays.arrays(np.float32, (7, 6), elements=st.sampled_from([-1.0, 0.0, 0.5])),
    label=arrays.arrays(np.int32, 7, elements=st.integers(0, 5)),
)
def test_either_gloss_is_top1_where_no_clip_has_another(logits, label):
    given_ = predictions(logits, label)
    assert top1_either(given_, np.zeros((7, 6), bool)) == pytest.approx(evaluate(given_)["top1"])


# ---- errors and calibration

CONFUSED = predictions(logits=np.eye(3)[[0, 1, 1, 1, 2, 0]], label=[0, 0, 0, 1, 2, 2], glosses=["book", "drink", "who"])


def test_confusion_counts_true_in_rows_and_predicted_in_columns():
    counts = confusion(CONFUSED)
    assert counts.loc["book", "drink"] == 2
    assert counts.loc["drink", "book"] == 0
    assert counts.to_numpy().tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 1]]


def test_accuracy_per_gloss_begins_with_the_hardest_and_leaves_out_glosses_without_clips():
    given_ = predictions(np.eye(5)[[0, 1, 0, 0, 3, 0]], label=[0, 1, 1, 2, 3, 3], glosses=list("abcde"))
    assert accuracy_per_gloss(given_).values.tolist() == [["c", 1, 0], ["b", 2, 0.5], ["d", 2, 0.5], ["a", 1, 1]]


def test_where_everything_is_right_no_pair_is_confused():
    right = Predictions(np.array(["a", "b"]), np.array([0, 1]), np.eye(2, dtype=np.float32), np.array(["x", "y"]))
    table = most_confused(right)
    assert table.columns.tolist() == ["gloss", "predicted", "clips", "share"]
    assert table.empty


def test_most_confused_pairs_leave_out_what_is_right():
    table = most_confused(CONFUSED)
    assert table[["gloss", "predicted", "clips"]].values.tolist() == [
        ["book", "drink", 2],
        ["who", "book", 1],
    ]
    assert table["share"].tolist() == pytest.approx([2 / 3, 1 / 2])
    assert len(most_confused(CONFUSED, count=1)) == 1


def test_equally_frequent_errors_are_ranked_by_share_and_then_by_name():
    given_ = predictions(np.eye(3)[[1, 2, 0, 2, 2]], [0, 0, 1, 1, 1], glosses=["book", "drink", "who"])
    assert most_confused(given_)[["gloss", "predicted", "clips"]].values.tolist() == [
        ["drink", "who", 2],
        ["book", "drink", 1],
        ["book", "who", 1],
        ["drink", "book", 1],
    ]


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    sure = np.log(9)  # softmax 0.9 of two classes
    table = calibration(predictions([[sure, 0]] * 4 + [[0, 0]] * 2, [0, 0, 0, 1, 0, 1]))
    assert table["n"].tolist() == [2, 4]
    assert table["confidence"].tolist() == pytest.approx([0.5, 0.9])
    assert table["accuracy"].tolist() == pytest.approx([0.5, 0.75])
    error = expected_calibration_error(predictions([[sure, 0]] * 4 + [[0, 0]] * 2, [0, 0, 0, 1, 0, 1]))
    assert error == pytest.approx(0.15 * 4 / 6)


# ---- paired tests


def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_clips():
    a = from_right([True] * 12 + [False] * 3 + [True] * 5)
    b = from_right([False] * 12 + [True] * 3 + [True] * 5)
    result = paired_test(a, b)
    assert (result["both_right"], result["only_a"], result["only_b"], result["both_wrong"]) == (5, 12, 3, 0)
    assert result["p_value"] == pytest.approx(binomtest(12, 15, 0.5).pvalue)
    assert result["difference"] == 9 / 20
    assert paired_test(a, a)["p_value"] == 1


def test_paired_test_matches_clips_by_their_id():
    a = random_predictions()
    shuffled = np.random.default_rng(1).permutation(len(a.label))
    b = Predictions(a.video_id[shuffled], a.label[shuffled], a.logits[shuffled], a.glosses)
    assert paired_test(a, b)["only_a"] == paired_test(a, b)["only_b"] == 0


def test_a_tie_for_the_first_place_is_not_right_in_a_paired_test():
    assert paired_test(predictions([[0, 0]], [0]), from_right([True]))["only_b"] == 1


def test_paired_test_refuses_other_clips_and_other_labels():
    with pytest.raises(StudyError, match="same clips"):
        paired_test(from_right([True, True]), from_right([True]))
    with pytest.raises(StudyError, match="same clips"):
        paired_test(from_right([True]), from_right([True, True]))
    with pytest.raises(StudyError, match="same labels"):
        paired_test(predictions([[1, 0]], [0]), predictions([[1, 0]], [1]))


def test_paired_tests_correct_for_their_number_by_holm():
    a, b = from_right([True] * 8 + [False] * 2), from_right([False] * 8 + [False] * 2)
    c = from_right([True] * 7 + [False] * 3)
    table = paired_tests({"a": a, "b": b, "c": c}).set_index(["a", "b"])
    p = {pair: binomtest(k, n).pvalue for pair, k, n in (("ab", 8, 8), ("bc", 0, 7), ("ac", 1, 1))}
    assert table.loc[("a", "b"), "p_holm"] == pytest.approx(3 * p["ab"])
    assert table.loc[("b", "c"), "p_holm"] == pytest.approx(max(3 * p["ab"], 2 * p["bc"]))
    assert table.loc[("a", "c"), "p_holm"] == 1
    assert paired_tests({"a": a}).empty


def test_recipes_with_one_seed_each_are_compared_as_their_runs_are():
    a, b = from_right([True] * 9 + [False] * 3), from_right([False] * 7 + [True] * 5)
    row, expected = paired_recipe_tests({"a": [a], "b": [b]}).iloc[0], paired_test(a, b)
    assert row["p_value"] == pytest.approx(expected["p_value"])
    assert (row["n"], row["difference"]) == (12, expected["difference"])


def test_recipes_are_compared_by_the_share_of_their_seeds_that_are_right():
    """Differences 1, 1/2, 1/2, -1/2 and 0: of the 16 choices of signs 8 have a sum as far from 0 as 3/2."""
    a = [from_right(np.array(right, bool)) for right in ([1, 1, 1, 0, 0], [1, 1, 0, 0, 1])]
    b = [from_right(np.array(right, bool)) for right in ([0, 1, 0, 1, 1], [0, 0, 0, 0, 0])]
    assert paired_recipe_tests({"a": a, "b": b}).iloc[0].tolist() == ["a", "b", 5, pytest.approx(0.3), 0.5, 0.5]
    assert paired_recipe_tests({"a": a, "same": a})["p_value"].tolist() == [1]
    assert paired_recipe_tests({"a": a}).empty


def test_recipes_whose_seeds_saw_other_clips_are_refused():
    with pytest.raises(StudyError, match="same clips"):
        paired_recipe_tests({"a": [from_right([True, True])], "b": [from_right([True])]})


def test_many_clips_are_compared_by_the_same_draws_every_time():
    """For 60 clips the exact p-value is that of the coins."""
    a, b = from_right([True] * 38 + [False] * 22), from_right([False] * 38 + [True] * 22)
    table = paired_recipe_tests({"a": [a], "b": [b]})
    assert table["p_value"].item() == pytest.approx(binomtest(38, 60).pvalue, abs=0.01)
    pd.testing.assert_frame_equal(paired_recipe_tests({"a": [a], "b": [b]}), table)
