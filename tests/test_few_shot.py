"""Accuracy on new signs: of cases whose answer arithmetic knows, and never with a twin of what is asked."""

import numpy as np
import pandas as pd
import pytest

from lib.few_shot import (
    accuracy,
    distinct,
    draw_episodes,
    draw_similarities,
    few_shot,
    own_signs_from,
    prototypes,
)

NO_TWINS = pd.DataFrame({"video_id": [], "twin": []})


def clips_of(*ids):
    return pd.DataFrame({"video_id": ids, "gloss": [name[0] for name in ids]})


def axes(glosses, clips):
    """Clips that all lie on the axis of their gloss: vectors and glosses."""
    return np.repeat(np.eye(glosses), clips, 0), np.repeat([f"g{number}" for number in range(glosses)], clips)


def test_a_prototype_has_length_one_and_weighs_its_examples_alike():
    found = prototypes([np.array([[1.0, 0], [0, 1]]), np.array([[0.0, -1]])])
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5], [0, -1]])


@pytest.mark.parametrize(("way", "shot"), [(5, 1), (20, 3), (20, 5)])
def test_signs_that_are_nothing_alike_are_all_told_apart(way, shot):
    table = few_shot(*axes(20, 6), ways=[way], shots=[shot], episodes=20)
    assert table.loc[0, ["way", "shot", "glosses", "accuracy", "low", "high"]].tolist() == [way, shot, 20, 1, 1, 1]


@pytest.mark.parametrize("way", [2, 5, 12])
def test_signs_of_which_two_look_alike_are_right_as_often_as_the_other_is_absent_or_comes_second(way):
    vectors, _ = axes(6, 8)
    glosses = np.repeat([f"g{number}" for number in range(12)], 4)  # two glosses on each axis
    table = few_shot(vectors, glosses, ways=[way], shots=[3], episodes=2000)
    present = (way - 1) / 11
    assert table["accuracy"][0] == pytest.approx(1 - present / 2, abs=0.015)


def test_clips_that_are_all_the_same_are_guessed():
    vectors, glosses = np.ones((40, 3)) / 3**0.5, np.repeat([f"g{number}" for number in range(10)], 4)
    drawn = draw_episodes(vectors, glosses, 10, 1, 50, np.random.default_rng(0))
    assert drawn.groupby("episode")["right"].sum().eq(1).all()


def test_more_examples_help_where_each_is_noisy():
    rng = np.random.default_rng(0)
    vectors, glosses = axes(30, 6)
    vectors = vectors + 0.3 * rng.standard_normal(vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    one, three, five = few_shot(vectors, glosses, ways=[20], episodes=100)["accuracy"]
    assert 0.05 < one < three < five < 1


def test_the_interval_is_that_of_a_mean_over_glosses_however_many_episodes_there_are():
    # Half of 100 glosses are always right: the standard deviation is .5, that of the mean .05.
    for times in (1, 50):
        episodes = pd.DataFrame({"gloss": np.tile(np.arange(100), times), "right": np.tile(np.arange(100) < 50, times)})
        mean, low, high = accuracy(episodes, np.random.default_rng(0))
        assert mean == 0.5
        assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.012)
        assert high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.012)


def test_the_query_of_an_episode_is_none_of_its_examples():
    # No two clips are alike at all, so the first prototype is named, and one of six is right. If a query were among its
    # examples, it would be named right.
    glosses = np.repeat([f"g{number}" for number in range(6)], 2)
    drawn = draw_episodes(np.eye(12), glosses, 6, 1, 100, np.random.default_rng(0))
    assert drawn["right"].mean() == pytest.approx(1 / 6)


def test_glosses_with_too_few_clips_are_left_out_and_ways_that_the_rest_does_not_suffice_for():
    vectors, glosses = axes(10, 6)
    keep = np.ones(60, bool)
    keep[6:9] = False  # three of g1's clips
    table = few_shot(vectors[keep], glosses[keep], ways=[9, 10, 11], episodes=5)
    assert table[["way", "shot", "glosses"]].to_numpy().tolist() == [[9, 1, 10], [9, 3, 9], [9, 5, 9], [10, 1, 10]]
    with pytest.raises(ValueError, match="9 glosses have more than 3 clips, an episode needs 10"):
        draw_episodes(vectors[keep], glosses[keep], 10, 3, 1, np.random.default_rng(0))


def test_the_same_seed_draws_the_same_episodes():
    vectors, glosses = axes(10, 4)
    vectors = vectors + np.random.default_rng(0).random(vectors.shape)
    first, again, other = (few_shot(vectors, glosses, [5], [1], 20, seed)["accuracy"][0] for seed in (0, 0, 1))
    assert first == again != other


# ---- none of these signs -------------------------------------------------------------------------------


def test_similarities_are_those_of_clips_that_are_no_examples_by_whose_they_are():
    vectors, glosses = axes(6, 4)
    vectors[3] = vectors[4]  # a clip of g0 that looks like g1
    found = draw_similarities(vectors, glosses, 2, 3, np.random.default_rng(0), episodes=300)
    assert found["other"].size == 300 * 4 * 4
    assert found["right"].size + found["wrong"].size == 300 * 2 * 1
    assert (found["wrong"] < 1).any()  # where g0 was chosen, that clip is no example of it
    with_g1 = found["wrong"][found["wrong"] == 1].size
    assert 0 < with_g1 < 300 / 10
    with pytest.raises(ValueError, match="6 glosses have more than 3 clips, an episode needs 7"):
        draw_similarities(vectors, glosses, 7, 3, np.random.default_rng(0))


def test_one_in_ten_clips_of_other_signs_pass_for_one_of_ten_of_ones_own():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((120, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    clips = pd.DataFrame({"video_id": [*map(str, range(120))], "gloss": np.repeat([*map(str, range(40))], 3)})
    least = own_signs_from(vectors, clips, NO_TWINS)
    alike = vectors @ vectors.T
    passing = []
    for _ in range(200):
        chosen = rng.permutation(40)[:10]
        others = ~np.isin(np.arange(120) // 3, chosen)
        passing.append((alike[np.ix_(others, 3 * chosen)].max(1) >= least).mean())
    assert np.mean(passing) == pytest.approx(0.1, abs=0.02)


def test_twins_among_the_clips_do_not_raise_the_threshold():
    vectors, (_, glosses) = np.eye(16), axes(8, 2)  # no two clips are alike
    clips = pd.DataFrame(
        {"video_id": [f"{gloss}{number % 2}" for number, gloss in enumerate(glosses)], "gloss": glosses}
    )
    vectors[1::4] = vectors[2::4]  # but the second clip of every other gloss and the first of the gloss after it
    twins = pd.DataFrame({"video_id": [f"g{n}1" for n in range(0, 8, 2)], "twin": [f"g{n}0" for n in range(1, 8, 2)]})
    assert own_signs_from(vectors, clips, NO_TWINS) == pytest.approx(1)
    assert own_signs_from(vectors, clips, twins) == pytest.approx(0)


def test_there_is_no_threshold_where_no_gloss_has_two_clips_or_there_is_one_gloss():
    clips = clips_of("a1", "b1", "c1")
    assert own_signs_from(np.eye(3), clips, NO_TWINS) is None
    assert own_signs_from(np.ones((2, 1)), clips_of("a1", "a2"), NO_TWINS) is None


# ---- twins ---------------------------------------------------------------------------------------------


def test_of_twins_one_clip_stays_and_none_whose_twin_was_trained_on():
    clips = clips_of("a1", "a2", "b1", "b2", "c1", "c2")
    twins = pd.DataFrame({"video_id": ["a1", "a2", "c1", "x1"], "twin": ["b1", "x1", "x2", "a2"]})
    assert distinct(clips, twins, ["x1", "x9"])["video_id"].tolist() == ["a1", "b2", "c1", "c2"]
    assert distinct(clips, NO_TWINS, ["x1"])["video_id"].tolist() == clips["video_id"].tolist()


def test_twins_of_twins_are_twins():
    clips = clips_of("a1", "a2", "a3", "b1")
    twins = pd.DataFrame({"video_id": ["a1", "y"], "twin": ["y", "a3"]})
    assert distinct(clips, twins, [])["video_id"].tolist() == ["a1", "a2", "b1"]
    twins.loc[2] = ["y", "t"]
    assert distinct(clips, twins, ["t"])["video_id"].tolist() == ["a2", "b1"]
