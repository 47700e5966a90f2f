"""The failure points of a board's entrants, for the page and for model cards."""

import numpy as np
import pandas as pd

from cnnsens_bench.measures.failure_points import COLUMNS, failure_points
from leaderboard.aggregate import share_tables
from leaderboard.read import LoadedResults

RESAMPLES = 1000
"""The bootstrap resamples of the intervals."""


def class_counts(results: LoadedResults, board: int) -> pd.Series:
    """Return the number of classes that each entrant of a board chooses among; where unknown, that of the labels."""
    labels = max(1, int(results.query("labels", board=board)["labels"].iloc[0]))
    members = results.entrants[results.entrants["board"] == board].set_index("entrant")
    return members["classes"].astype(float).fillna(labels).astype(int)


def entrant_failure_points(
    shares: pd.DataFrame, conditions: pd.DataFrame, n_classes: int, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """Return the failure points of an entrant over its own images and conditions.

    Parameters
    ----------
    shares
        Its rows of the statement `shares`.
    conditions
        The conditions of its board: degradation and level.
    n_classes
        The number of classes that it chooses among.
    resamples
        The bootstrap resamples of the intervals.

    Returns
    -------
    pandas.DataFrame
        As `measures.failure_points.failure_points` returns them; no row where the entrant has no image.
    """
    if shares.empty:
        return pd.DataFrame(columns=COLUMNS)
    tables = share_tables(shares, int(shares["image"].max()) + 1, len(conditions))
    there = ~np.isnan(tables["trials"])  # images without labels have changes of labels alone
    own = np.ix_(there.any(1), there.any(0))
    hit, changed = tables["hit"][own], tables["changed"][own]
    return failure_points(conditions[there.any(0)], hit, changed, 1 / n_classes, resamples=resamples)
