"""Ranks the entrants that several boards share by their mean rank over these boards."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from leaderboard.aggregate import Board
from leaderboard.ids import board_id
from leaderboard.ranking import BoardEntrant
from leaderboard.read import LoadedResults

MEASURE = "mean_degraded_accuracy"
DIGITS = 4


def board_summary(results: LoadedResults, found: Sequence[Board]) -> dict[str, Any] | None:
    """Return the mean ranks of entrants over the boards on which they meet.

    An entrant is a model with a defense, by name: its weights may be others on each board, where networks were
    fine-tuned. Of the sets of boards on which two entrants meet, the one with the largest product of the number of
    entrants that are ranked on all of its boards and the squared number of boards is taken. On each of them these
    entrants alone are ranked by their mean degraded accuracy, equal ones share the mean of their ranks, and ranks are
    averaged over the boards.

    Parameters
    ----------
    results
        What the databases hold.
    found
        The boards of the page.

    Returns
    -------
    dict or None
        `boards`: the ids of the chosen boards, none where no two entrants meet on two boards.
        `entrants`, best first: model, defense, `mean_rank` as value, low and high, and the rank on each board. The
        interval holds 95 % of the mean ranks over bootstrap resamples of the images of each board, for these very
        boards. `left_out`: the number of ranked entrants that are not on all of these boards. None for a single board.
    """
    if len(found) < 2:
        return None
    members = results.entrants.set_index("entrant")
    ranked = {board.board: _ranked(board, members) for board in found}
    sets = {
        key: frozenset(board for board, entrants in ranked.items() if key in entrants)
        for key in sorted(set().union(*ranked.values()))
    }
    chosen = _shared_boards(list(sets.values()))
    if not chosen:
        return {"boards": [], "entrants": [], "left_out": len(sets)}
    together = [key for key, boards in sets.items() if chosen <= boards]
    order = sorted(chosen)
    # Shape (boards, resamples + 1, entrants).
    ranks = np.stack([_ranks([ranked[board][key].samples[MEASURE] for key in together]) for board in order])
    means = ranks.mean(0)
    keys = members.drop_duplicates("board").set_index("board")
    entrants = [
        {
            "model": model,
            "defense": defense,
            "mean_rank": _interval(means[:, i]),
            "ranks": ranks[:, 0, i].tolist(),
        }
        for i, (model, defense) in enumerate(together)
    ]
    return {
        "boards": [board_id(keys.loc[board, "protocol"], keys.loc[board, "dataset"]) for board in order],
        "entrants": sorted(entrants, key=lambda one: (one["mean_rank"][0], one["model"], one["defense"])),
        "left_out": len(sets) - len(together),
    }


def _shared_boards(sets: Sequence[frozenset[int]]) -> frozenset[int]:
    """Choose the boards over which ranks are averaged from those of each entrant; none where no two meet on two."""

    def score(boards: frozenset[int]) -> tuple[int, int, list[int]]:
        size = len(boards)
        return sum(boards <= own for own in sets) * size**2, size, [-board for board in sorted(boards)]

    counts = Counter(sets)
    pairs = itertools.combinations(counts, 2)
    candidates = {own for own, count in counts.items() if count > 1} | {first & second for first, second in pairs}
    return max((boards for boards in candidates if len(boards) > 1), key=score, default=frozenset())


def _ranked(board: Board, members: pd.DataFrame) -> dict[tuple[str, str], BoardEntrant]:
    """Return the entrants of a board that are ranked by the measure, by model and defense."""
    return {
        (members.loc[one.entrant, "name"], members.loc[one.entrant, "defense"]): one
        for one in board.entrants
        if one.comparable and MEASURE in one.ranks
    }


def _ranks(samples: list[np.ndarray]) -> np.ndarray:
    """Return the ranks of entrants in each sample, shape (samples, entrants): 1 for the largest value."""
    # Resampled means are of float32: equal ones are equal but for rounding.
    return rankdata(-np.round(samples, 6), axis=0).T


def _interval(means: np.ndarray) -> list[float | None]:
    """Return the mean rank over all images, and the 95 % percentiles of those over resamples."""
    known = means[1:][~np.isnan(means[1:])]
    if not len(known):
        return [round(float(means[0]), DIGITS), None, None]
    low, high = np.quantile(known, [0.025, 0.975])
    ends = (min(low, means[0]), max(high, means[0]))
    return [round(float(value), DIGITS) for value in (means[0], *ends)]
