"""The benchmark compares like with like."""

import keras
import pandas as pd

from lib import bench


def test_both_sides_are_the_same_network_on_the_same_clips():
    poses, labels = bench.make_clips(20)
    (theirs, padded), (ours, bucketed) = bench.published(poses, labels), bench.ours(poses, labels)
    # Theirs sees x, y, present of 42 joints, ours x and y: the embeddings differ by 42 rows, and by nothing else.
    assert theirs.count_params() - ours.count_params() == 42 * 64
    assert padded[0][0].shape[1] == 250
    assert max(bucketed[i][0].shape[1] for i in range(len(bucketed))) < 200
    assert sum(len(bucketed[i][0]) for i in range(len(bucketed))) == 20
    keras.config.set_dtype_policy("float32")


def test_the_table_states_both_times_and_their_ratio(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    table = bench.main(clips=8, rounds=1)
    written = pd.read_csv(tmp_path / "reports" / "bench" / "spobet.csv", index_col="training")
    times = written["seconds per epoch"]
    assert written.loc["ours", "times faster"] == times["as published"] / times["ours"]
    assert written.loc["as published", "times faster"] == 1
    assert (times > 0).all()
    assert table.index.tolist() == ["as published", "ours"]
    keras.config.set_dtype_policy("float32")
