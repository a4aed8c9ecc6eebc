"""Signs of one's own: added from a few examples, kept in a file, named by the examples that they are like."""

import json
import re
import zipfile

import numpy as np
import pytest

from helpers import clip_of
from lib.export import tflite
from lib.export.files import read_metadata
from lib.predict import __main__ as predict
from lib.predict import open_model, read_clip
from lib.settings import StudyError
from lib.signs import Signs, main

EXAMPLES = {"tree": [1, 4], "house": [7], "bird": [2, 9, 11]}  # clips of `clip_of` by sign


@pytest.fixture
def model(of_hands, monkeypatch):
    of_hands.here(monkeypatch)
    return open_model(of_hands.files["tflite"])


@pytest.fixture
def signs(model):
    signs = Signs(model)
    for gloss, numbers in EXAMPLES.items():
        signs.add(gloss, map(clip_of, numbers))
    return signs


@pytest.fixture
def video_like(tmp_path):
    """Write the poses of a clip to a file as the archives of hands are; returns its path."""

    def write(number):
        clip = clip_of(number)
        hands = np.where(clip[..., 2:] > 0, clip, -1).reshape(-1, 2, 21, 3).astype(np.float32)
        np.savez(path := tmp_path / f"{number}.npz", clip=hands)
        return str(path)

    return write


def test_a_clip_is_named_by_the_mean_of_the_examples_it_is_most_like(model, signs):
    vectors = {number: model.embeddings([read_clip(clip_of(number), model)])[0] for number in range(12)}
    for number in (1, 7, 9, 5):
        expected = {}
        for gloss, numbers in EXAMPLES.items():
            mean = sum(vectors[one] for one in numbers)
            expected[gloss] = float(vectors[number] @ mean / np.linalg.norm(mean))
        found = signs.name(clip_of(number))
        assert found.to_dict() == pytest.approx(expected, abs=1e-5)
        assert found.is_monotonic_decreasing
    assert signs.name(clip_of(7)).index[0] == "house"
    assert signs.name(clip_of(7)).iloc[0] == pytest.approx(1, abs=1e-5)
    assert len(signs.name(clip_of(7), top=2)) == 2


def test_more_examples_are_added_to_those_there_are(signs):
    before = signs.vectors["house"].copy()
    signs.add(" house ", [clip_of(3)])
    assert signs.vectors["house"].shape == (2, before.shape[1])
    np.testing.assert_array_equal(signs.vectors["house"][:1], before)


def test_a_file_holds_what_its_schema_says_and_is_read_as_it_was_written(model, signs, tmp_path):
    signs.write(tmp_path / "my.json")
    content = json.loads((tmp_path / "my.json").read_text())
    assert list(content) == ["model", "checksum", "signs"]
    assert (content["model"], content["checksum"]) == ("hands/tiny", model.checksum)
    assert {gloss: len(vectors) for gloss, vectors in content["signs"].items()} == {"tree": 2, "house": 1, "bird": 3}
    np.testing.assert_allclose(np.linalg.norm(content["signs"]["tree"], axis=1), 1, atol=1e-5)
    again = Signs.read(tmp_path / "my.json", model)
    assert again.name(clip_of(5)).to_dict() == pytest.approx(signs.name(clip_of(5)).to_dict(), abs=1e-5)


def test_signs_added_with_one_file_of_a_run_are_named_with_another(of_hands, signs, tmp_path):
    signs.write(tmp_path / "my.json")
    for which in (of_hands.files["onnx"], of_hands.name):
        other = Signs.read(tmp_path / "my.json", open_model(which))
        assert other.name(clip_of(5)).to_dict() == pytest.approx(signs.name(clip_of(5)).to_dict(), abs=1e-4)


@pytest.mark.parametrize(("changes", "problem"), [
    ({"checksum": "0" * 64}, "hands/tiny, whose vectors are not those of hands/tiny here"),
    ({"checksum": "short"}, "key 'checksum'"),
    ({"signs": {"tree": []}}, "key 'signs.tree'"),
    ({"signs": {"tree": [[0.5], [1.0, 0.1]]}}, "different widths"),
    ({"signs": {"tree": [[0.0, 0.0]]}}, "is zero"),
    ({"signs": {"tree": [["a"]]}}, "valid number"),
    ({"sings": {}}, "unknown key 'sings'"),
])  # fmt: skip
def test_a_file_that_is_wrong_or_of_another_model_is_one_clear_error(model, signs, tmp_path, changes, problem):
    path = tmp_path / "my.json"
    signs.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(StudyError, match=problem) as error:
        Signs.read(path, model)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_of_another_width_with_the_right_checksum_is_an_error_too(model, signs, tmp_path):
    path = tmp_path / "my.json"
    signs.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"signs": {"tree": [[0.6, 0.8]]}}))
    with pytest.raises(StudyError, match="have 2 numbers"):
        Signs.read(path, model).name(clip_of(1))


def test_what_is_no_json_or_not_there_or_empty_is_one_clear_error(model, tmp_path):
    (tmp_path / "my.json").write_text("{")
    with pytest.raises(StudyError, match=r"my\.json: is no JSON"):
        Signs.read(tmp_path / "my.json", model)
    with pytest.raises(StudyError, match=r"none\.json: there is no such file"):
        Signs.read(tmp_path / "none.json", model)
    with pytest.raises(StudyError, match="no signs yet"):
        Signs(model).name(clip_of(1))


def test_examples_that_cannot_be_read_add_nothing(signs, tmp_path):
    with pytest.raises(StudyError, match="nobody's hands are seen"):
        signs.add("fish", [clip_of(1), np.zeros((5, 42, 3))])
    for gloss, clips in (("fish", []), (" ", [clip_of(1)])):
        with pytest.raises(StudyError, match="needs a name and at least one example"):
            signs.add(gloss, clips)
    assert signs.vectors.keys() == EXAMPLES.keys()
    with pytest.raises(StudyError, match=r"no sign 'hous' \(did you mean 'house'\?\)"):
        signs.remove("hous")


def test_a_model_without_embeddings_has_no_signs(of_videos):
    model = open_model(of_videos.files["onnx"])
    assert model.embed is None
    with pytest.raises(StudyError, match="videos/tiny gives no embeddings of clips"):
        model.embeddings([np.zeros((4, 32, 32, 3), np.float32)])


# ---- the commands --------------------------------------------------------------------------------------


def test_signs_are_added_listed_named_and_removed_from_the_command_line(of_hands, video_like, tmp_path, capsys):
    file, model = str(tmp_path / "my.json"), ["--model", str(of_hands.files["tflite"])]
    assert main([*model, file, "add", "tree", video_like(1), video_like(4)]) == 0
    assert main([*model, file, "add", "house", video_like(7)]) == 0
    assert main([*model, file]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["house  1 example", "tree  2 examples"]

    assert predict.main([*model, video_like(7), "--signs", file]) == 0
    assert "7.npz:clip  house 1.00, tree " in capsys.readouterr().out
    assert predict.main([*model, video_like(7), "--signs", file, "--json", "--top", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["top"] == [["house", pytest.approx(1, abs=1e-4)]]
    assert predict.main([*model, video_like(7), "--signs", file, "--csv", "--top", "1"]) == 0
    assert capsys.readouterr().out.startswith("path,rank,gloss,similarity,known,")

    assert main([*model, file, "remove", "house"]) == 0
    assert capsys.readouterr().out == "tree  2 examples\n"


def test_a_clip_that_is_like_none_of_the_signs_shows_none_of_them(of_hands, video_like, tmp_path, capsys):
    path = tmp_path / "stating.tflite"
    about, glosses = read_metadata(of_hands.files["tflite"])
    with zipfile.ZipFile(of_hands.files["tflite"]) as archive:
        start = archive.infolist()[0].header_offset
    network = of_hands.files["tflite"].read_bytes()[:start]
    path.write_bytes(tflite.add_metadata(network, about | {"own_signs_from": 0.9999}, glosses))
    file, model = str(tmp_path / "my.json"), ["--model", str(path)]
    main([*model, file, "add", "tree", video_like(1)])
    main([*model, file, "add", "house", video_like(7)])
    capsys.readouterr()

    predict.main([*model, video_like(7), video_like(5), "--signs", file])
    house, other = capsys.readouterr().out.splitlines()
    assert "  house 1.00, tree " in house
    assert re.search(
        r"  none of these signs, as no similarity reaches 1\.00 \((tree|house) \S+, (tree|house) \S+\)$", other
    )
    predict.main([*model, video_like(7), video_like(5), "--signs", file, "--json"])
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["known"] for one in said] == [True, False]
    assert [len(one["top"]) for one in said] == [2, 2]
    assert open_model(path).own_signs_from == 0.9999
    assert open_model(of_hands.files["tflite"]).own_signs_from == -np.inf


def test_commands_say_in_one_line_what_is_wrong(of_hands, of_videos, video_like, tmp_path, capsys):
    file, model = str(tmp_path / "my.json"), ["--model", str(of_hands.files["tflite"])]
    for command, problem in [
        ([*model, file], "there is no such file"),
        ([*model, file, "add", "tree", "none.mp4"], "none.mp4: cannot be read"),
        ([*model, file, "remove", "tree"], "there is no such file"),
    ]:
        assert main(command) == 1
        assert problem in capsys.readouterr().err
    assert not (tmp_path / "my.json").exists()
    main([*model, file, "add", "tree", video_like(1)])
    capsys.readouterr()
    assert predict.main(["--model", str(of_videos.files["tflite"]), video_like(1), "--signs", file]) == 1
    assert "name that model with --model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict.main([video_like(1), "--signs", file, "--timeline"])
