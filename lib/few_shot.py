"""How well signs are named from a few examples each, and when a clip shows none of them: random episodes.

An episode is `way` glosses with `shot` examples of each, and other clips to name by the nearest prototype (see
lib.signs). Its accuracy is the share of clips of these glosses that get their own; 1 / way is guessing.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

WAYS, SHOTS = (5, 20, 100), (1, 3, 5)
EPISODES = 500
RESAMPLES = 2000  # of the bootstrap
OWN, PASSING = 10, 0.1  # signs of one's own, and the share of clips of other signs that may pass for one of them
COLUMNS = ["way", "shot", "glosses", "accuracy", "low", "high"]


def prototypes(examples: Iterable[np.ndarray]) -> np.ndarray:
    """The prototype of each sign, (signs, width) of length 1, from the embeddings (n, width) of its examples."""
    means = np.stack([vectors.mean(0) for vectors in examples])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


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


def draw_similarities(
    vectors: np.ndarray, glosses: Sequence[str], way: int, shot: int, rng: np.random.Generator, episodes: int = EPISODES
) -> dict[str, np.ndarray]:
    """The similarity to the nearest prototype of all clips that are no examples, in many episodes, by kind of clip.

    vectors, glosses: as for `draw_episodes`, and so are the errors. Kinds: "right" and "wrong", clips of these signs
    by whether the nearest one is theirs; "other", clips of all other signs. Each float (clips of all episodes,).
    """
    glosses = np.asarray(glosses)
    names, sizes = np.unique(glosses, return_counts=True)
    usable = names[sizes > shot]
    if len(usable) < way:
        raise ValueError(f"{len(usable)} glosses have more than {shot} clips, an episode needs {way}")
    found = {"right": [], "wrong": [], "other": []}
    for _ in range(episodes):
        chosen = rng.choice(usable, way, replace=False)
        examples = [rng.permutation(np.flatnonzero(glosses == gloss))[:shot] for gloss in chosen]
        rest = np.setdiff1d(np.arange(len(glosses)), examples)
        alike = vectors[rest] @ prototypes(vectors[rows] for rows in examples).T
        best, own = alike.max(1), np.isin(glosses[rest], chosen)
        right = chosen[alike.argmax(1)] == glosses[rest]
        for kind, among in {"right": right, "wrong": own & ~right, "other": ~own}.items():
            found[kind].append(best[among])
    return {kind: np.concatenate(parts) for kind, parts in found.items()}


def own_signs_from(vectors: np.ndarray, clips: pd.DataFrame, twins: pd.DataFrame) -> float | None:
    """From which similarity on a clip shows one of somebody's own signs, from embeddings of validation clips.

    With OWN signs of one example each, or half of the glosses where there are fewer, PASSING of the clips of other
    signs reach it. What other signs reach hardly depends on the number of examples, nor on whether the model was
    trained on the signs; what a sign's own clips reach does, and validation has few glosses with more than two clips.
    Of 200 glosses that a model of WLASL2000 never saw (196 with more than three clips), with ten signs of three
    examples, the threshold by this rule from glosses that it knows, .30, lets 86 % of the signs' clips pass, 83 % with
    the right name, and 12 % of the clips of other signs. What 95 % of the signs' clips reach is .12 with one example
    and .18 with three, and lets 68 % and 44 % of the others pass.

    vectors: (clips, width). clips: rows with video_id and gloss. twins: see `distinct`; of twins one stays.
    None where fewer than two glosses have two clips.
    """
    alone = distinct(clips.reset_index(drop=True), twins, [])
    counts = alone["gloss"].value_counts()
    way = min(OWN, int((counts > 1).sum()), len(counts) // 2)
    if not way:
        return None
    drawn = draw_similarities(vectors[alone.index], alone["gloss"], way, 1, np.random.default_rng(0))
    return float(np.quantile(drawn["other"], 1 - PASSING))
