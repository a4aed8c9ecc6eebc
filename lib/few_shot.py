"""How well new signs are named from a few examples each: random episodes of glosses that the model never saw.

An episode is `way` new glosses with `shot` examples of each, and one more clip of each to name by the nearest prototype
(see lib.signs). Its accuracy is the share that gets its own gloss; 1 / way is guessing.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lib.signs import prototypes

WAYS, SHOTS = (5, 20, 100), (1, 3, 5)
EPISODES = 500
RESAMPLES = 2000  # of the bootstrap
COLUMNS = ["way", "shot", "glosses", "accuracy", "low", "high"]


def distinct(clips: pd.DataFrame, twins: pd.DataFrame, taught: Collection[str]) -> pd.DataFrame:
    """The clips (rows with a video_id) that are no twins of one another, nor of a clip that a training saw.

    twins: pairs of clips that are the same or nearly, columns video_id and twin, as tables/twins.csv has them. Twins of
    twins count as twins. Of each set of them the first clip stays, so that an example is never a twin of its query.
    """
    ids = pd.unique(np.concatenate([clips["video_id"], twins["video_id"], twins["twin"], [*taught]]).astype(str))
    a, b = (pd.Index(ids).get_indexer(twins[side].astype(str)) for side in ("video_id", "twin"))
    _, groups = connected_components(coo_array((np.ones(len(a)), (a, b)), (len(ids), len(ids))), directed=False)
    group = pd.Series(groups, ids)
    own = clips["video_id"].astype(str).map(group)
    return clips[~own.isin(group[[*taught]]) & ~own.duplicated()]


def draw_episodes(
    vectors: np.ndarray, glosses: Sequence[str], way: int, shot: int, episodes: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Name one clip of each gloss in each of many episodes; a row for each: columns episode, gloss, right.

    vectors: embeddings (clips, width) of length 1. glosses: of these clips; those with no more than `shot` are left
    out. Raises ValueError when fewer than `way` are left.
    """
    rows = {gloss: where for gloss, where in pd.Series(glosses).groupby(np.asarray(glosses)).indices.items()}
    usable = [gloss for gloss, where in rows.items() if len(where) > shot]
    if len(usable) < way:
        raise ValueError(f"{len(usable)} glosses have more than {shot} clips, an episode needs {way}")
    found = []
    for number in range(episodes):
        chosen = rng.choice(usable, way, replace=False)
        drawn = [rng.permutation(rows[gloss])[: shot + 1] for gloss in chosen]
        known = prototypes(vectors[examples[:shot]] for examples in drawn)
        said = (vectors[[examples[shot] for examples in drawn]] @ known.T).argmax(1)
        found.append(pd.DataFrame({"episode": number, "gloss": chosen, "right": said == np.arange(way)}))
    return pd.concat(found, ignore_index=True)


def accuracy(episodes: pd.DataFrame, rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean accuracy over the glosses of `draw_episodes`, and its 95 % interval: bootstrap over the glosses.

    Over glosses and not over episodes, as episodes are draws from the same few clips: more of them make the mean exact
    for these glosses, and say nothing of how other new signs would fare.
    """
    by_gloss = episodes.groupby("gloss")["right"].mean().to_numpy()
    resampled = rng.choice(by_gloss, (RESAMPLES, len(by_gloss))).mean(1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(by_gloss.mean()), float(low), float(high)


def few_shot(
    vectors: np.ndarray,
    glosses: Sequence[str],
    ways: Sequence[int] = WAYS,
    shots: Sequence[int] = SHOTS,
    episodes: int = EPISODES,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy for each number of ways and examples that the clips suffice for; a row each, with COLUMNS.

    vectors, glosses: as for `draw_episodes`. glosses: how many there are with enough clips. low, high: see `accuracy`.
    """
    rows, counts = [], pd.Series(glosses).value_counts()
    for way in ways:
        for shot in shots:
            if (enough := int((counts > shot).sum())) >= way:
                rng = np.random.default_rng([seed, way, shot])
                drawn = draw_episodes(vectors, glosses, way, shot, episodes, rng)
                rows.append([way, shot, enough, *accuracy(drawn, rng)])
    return pd.DataFrame(rows, columns=COLUMNS)
