"""Boards on which not all cells of all images were evaluated: which they are, and what their page says of it."""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from cnnsens_bench.measures.finite import FinitePopulation
from cnnsens_bench.measures.spec import Interval
from cnnsens_bench.utils.formatting import share_span

MEANS = {"mean_degraded_accuracy": "hit", "mean_label_change": "changed"}
"""The means that have an interval for these very images, and the tables of shares that they are taken from."""


def budgeted_boards(runs: pd.DataFrame, entrants: pd.DataFrame, sources: pd.DataFrame) -> set[int]:
    """Return the boards on which a run may leave out cells, so that entrants need not have the same ones."""
    budgets = runs["config"].map(lambda config: json.loads(config or "{}").get("budget"))
    below = runs.loc[pd.to_numeric(budgets, errors="coerce") < 1, "run_id"]
    return _boards_of(below, entrants, sources) | boards_in_rounds(runs, entrants, sources)


def boards_in_rounds(runs: pd.DataFrame, entrants: pd.DataFrame, sources: pd.DataFrame) -> set[int]:
    """Return the boards of runs with `until`, whose entrants were given unlike shares of the cells on purpose."""
    rounds = runs["config"].map(lambda config: json.loads(config or "{}").get("until") is not None).astype(bool)
    return _boards_of(runs.loc[rounds, "run_id"], entrants, sources)


def _boards_of(run_ids: pd.Series, entrants: pd.DataFrame, sources: pd.DataFrame) -> set[int]:
    of_runs = sources.loc[sources["run_id"].isin(run_ids), "entrant"]
    return set(entrants.loc[entrants["entrant"].isin(of_runs), "board"].tolist())


def means_of_images(
    tables: Mapping[str, np.ndarray], degradation: np.ndarray, averaged: np.ndarray, planned: np.ndarray
) -> dict[str, Interval]:
    """Return the means of an entrant with their intervals for these very images.

    Parameters
    ----------
    tables
        Shares and numbers of trials (`trials`), shape (images, conditions) each, NaN where there is none.
    degradation, averaged
        Shape (conditions,): the names of the degradations, and whether the means are over a condition.
    planned
        Shape (conditions,): the number of trials that a condition has without a budget.
    """
    found = {}
    for name, table in MEANS.items():
        evaluated = (~np.isnan(tables[table])).any(1)
        images = FinitePopulation(tables[table][evaluated], tables["trials"][evaluated], planned)
        found[name] = images.of(averaged).mean(degradation[averaged])
    return {name: interval for name, interval in found.items() if not np.isnan(interval[0])}


def budget_text(shares: pd.DataFrame) -> str:
    """Say which share of the degraded cells was evaluated, which is compared, and which measures that biases.

    Parameters
    ----------
    shares
        A row for each entrant: `share` of its degraded cells, and `compared`, the share that all entrants have.

    Examples
    --------
    >>> budget_text(pd.DataFrame({"share": [0.1, 1.0], "compared": [0.1, 0.1]})).partition(":")[0]
    '10.0 to 100.0 % of the degraded cells (image, degradation, level, trial) are evaluated'
    """
    own, compared = (share_span(shares[name].min(), shares[name].max()) for name in ("share", "compared"))
    if own != compared:
        shared = f" Entrants are compared on the cells that they share, {compared}."
    else:
        rounds = " Rounds ended earlier for some entrants: each is compared with all of its cells."
        shared = rounds if " to " in own else ""
    return (
        f"{own} of the degraded cells (image, degradation, level, trial) are evaluated: a hash chooses those of each "
        f"image, the same for all entrants.{shared} Accuracy, p_Δ, top-5, NLL and their means are unbiased, and their "
        "intervals count what was left out. An entrant's details also have the intervals for these very images, for "
        "which only what was left out and the noise of trials count. Computed as if nothing was left out, and so "
        "biased where a condition has few images: ECE, per-class accuracy, mCE, relative mCE, flip rate, the worst "
        "condition and the most fragile images."
    )
