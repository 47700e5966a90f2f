"""Adds failure points, and the accuracy where the least certain predictions are refused, to the page's data."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnnsens_bench.measures.failure_points import HALF_ACCURACY, LABEL_CHANGE
from leaderboard.aggregate import Board
from leaderboard.failure_points import RESAMPLES, class_counts, entrant_failure_points
from leaderboard.ids import board_id, entrant_id
from leaderboard.read import MOST_SORTED, LoadedResults

CRITERIA = (HALF_ACCURACY, LABEL_CHANGE)
DIGITS = 4
"""The significant digits of levels, and the decimals of shares."""
FEW_RESAMPLES = 200
"""The bootstrap resamples of a failure point on a board of more than `LARGE` entrants × conditions."""
LARGE = 20_000
VIEW = "the view confidence_selection of the database has them"


def add_decisions(content: dict[str, Any], results: LoadedResults, found: Sequence[Board]) -> None:
    """Add failure points and selective accuracy to a page's data.

    Parameters
    ----------
    content
        What `page.data` returns. A board gets `decisions`: the `sweeps` of its degradations (degradation, direction,
        strongest level), the number of bootstrap `resamples` of the intervals, and a sentence `unselected` where there
        is no selective accuracy, else None. An entrant gets `failure_points` and `selective`. The first has for each
        criterion and sweep the level and its interval, in which None is beyond the strongest level, and the entrant's
        own strongest level where that is another one; or None where there is no failure point. The second has AURC and
        the accuracy of the 90 % most confident predictions for each condition, or None.
    results
        What the databases hold.
    found
        The boards of the page.
    """
    members = results.entrants.set_index("entrant")
    shown = {board["id"]: board for board in content["boards"]}
    for board in found:
        row = members[members["board"] == board.board].iloc[0]
        _add_to_board(shown[board_id(row["protocol"], row["dataset"])], results, board, members)


def _add_to_board(shown: dict[str, Any], results: LoadedResults, board: Board, members: pd.DataFrame) -> None:
    n_classes = class_counts(results, board.board)
    selection = results.selection(board.board)
    entrants = {one["id"]: one for one in shown["entrants"]}
    resamples = FEW_RESAMPLES if len(entrants) * len(board.conditions) > LARGE else RESAMPLES
    tables = {}
    for one in board.entrants:
        shares = results.query("shares", entrant=one.entrant)
        tables[one.entrant] = entrant_failure_points(shares, board.conditions, n_classes[one.entrant], resamples)
    sweeps = _sweeps(pd.concat(tables.values(), ignore_index=True))
    for number, points in tables.items():
        one = entrants[entrant_id(members.loc[number])]
        one["failure_points"] = {name: _levels(points[points["criterion"] == name], sweeps) for name in CRITERIA}
        one["selective"] = _selective(selection, number, len(board.conditions))
    shown["decisions"] = {
        "sweeps": [list(sweep) for sweep in sweeps.itertuples(index=False, name=None)],
        "resamples": resamples,
        "unselected": _unselected(selection),
    }


def _sweeps(points: pd.DataFrame) -> pd.DataFrame:
    """Return degradation, direction and the strongest level among the entrants, a row for each of the former two."""
    strength = points["strongest"].where(points["direction"] == "rising", -points["strongest"])
    ordered = points.assign(strength=strength).sort_values("strength", ascending=False, kind="stable")
    kept = ordered.drop_duplicates(["degradation", "direction"]).sort_values(["degradation", "direction"])
    return kept[["degradation", "direction", "strongest"]]


def _levels(points: pd.DataFrame, sweeps: pd.DataFrame) -> list[list[float | None] | None]:
    """Return level, low and high for each sweep, or None where the entrant has no failure point.

    The entrant's strongest level follows where it is another one than that of the sweep.
    """
    columns = ("degradation", "direction", "level", "low", "high", "strongest")
    rows = zip(*(points[column].tolist() for column in columns), strict=True)
    known = {(degradation, direction): levels for degradation, direction, *levels in rows}
    found: list[list[float | None] | None] = []
    for degradation, direction, strongest in sweeps.itertuples(index=False, name=None):
        *levels, own = known.get((degradation, direction), [math.nan] * 4)
        ends = [] if own == strongest else [own]
        found.append(None if math.isnan(levels[0]) else [_level(value) for value in (*levels, *ends)])
    return found


def _level(value: float) -> float | None:
    """Return a level as the page has it; None where it is beyond the strongest one."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _selective(selection: pd.DataFrame | None, entrant: int, conditions: int) -> list[list[float] | None]:
    """Return AURC and the accuracy of the 90 % most confident predictions for each condition."""
    found: list[list[float] | None] = [None] * conditions
    if selection is not None:
        own = selection[selection["entrant"] == entrant]
        for condition, *values in own[["condition", "aurc", "accuracy_at_90"]].itertuples(index=False, name=None):
            found[condition] = np.round(values, DIGITS).tolist()
    return found


def _unselected(selection: pd.DataFrame | None) -> str | None:
    """Say why there is no selective accuracy; None where there is."""
    if selection is None:
        return f"Left out on a board of more than {MOST_SORTED // 1_000_000} million predictions; {VIEW}."
    return "No database has the confidences of a whole condition of this board." if selection.empty else None
