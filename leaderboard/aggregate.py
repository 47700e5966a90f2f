"""Turns the entrants' shares per image into the boards of the page: measures with intervals, and ranks."""

import dataclasses
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cnnsens_bench.measures import EntrantResults, measures
from cnnsens_bench.measures.published import PUBLISHED, PublishedRates, published_rates, published_reference
from cnnsens_bench.measures.spec import UNKNOWN
from leaderboard.budget import means_of_images
from leaderboard.outcomes import pack
from leaderboard.ranking import BoardEntrant, enough, rank, ranked_conditions
from leaderboard.read import LoadedResults
from leaderboard.resampling import Resampler, condition_intervals
from leaderboard.speed import rates

FRAGILE = 8
"""The number of most fragile images that the page lists for an entrant."""
TABLES = {"accuracy": "hit", "label_change": "changed", "top5": "top5", "nll": "nll"}
"""By the names of `EntrantResults`: the columns of the statement `shares`."""
SHARES = ("accuracy", "label_change", "top5")


@dataclass
class Board:
    """The entrants of one protocol on one data set.

    Parameters
    ----------
    board
        Its number in the databases that are read.
    conditions
        A row per condition: degradation, level, trials.
    images
        A row per image: image_id, class_name.
    entrants
        Its entrants, ranked.
    reference
        The entrant that mCE is relative to, if the board has it.
    published
        The published error rates that mCE is relative to in place of an entrant.
    device
        The device that predicted most images.
    ranked
        The indices of the degraded conditions that the ranked entrants share: their means are over these.
    """

    board: int
    conditions: pd.DataFrame
    images: pd.DataFrame
    entrants: list[BoardEntrant]
    reference: int | None
    published: PublishedRates | None
    device: str | None
    ranked: list[int]


def boards(results: LoadedResults, reference: str) -> list[Board]:
    """Return all boards of the databases.

    Parameters
    ----------
    results
        What the databases hold.
    reference
        What mCE is relative to: the name of a model, which counts without a defense, or published error rates such as
        `published:alexnet`. Where a board has no row of the model and ImageNet's 1000 classes, the published rates of
        that model are taken.

    Returns
    -------
    list of Board
        One board for each protocol and data set.

    Raises
    ------
    UserError
        For published error rates that there are none of.
    """
    return [_board(results, row.board, row.dataset, reference) for row in results.boards.itertuples()]


def _board(results: LoadedResults, board: int, dataset: str, reference: str) -> Board:
    conditions = results.query("conditions", board=board)
    images = results.query("images", board=board, dataset=dataset)
    members = results.entrants[results.entrants["board"] == board].set_index("entrant")
    parameters = members["num_parameters"].astype(float).to_dict()
    measured = results.query("measured", board=board).set_index("entrant")
    calibration = results.query("ece", board=board).set_index("entrant")
    undegraded = frozenset(np.flatnonzero(conditions["degradation"] == "none").tolist())
    sets = {int(entrant): frozenset(numbers) for entrant, numbers in measured["conditions"].items()}
    same_images = enough(measured["images"])
    undefended = set(members.index[members["defense"] == "none"])
    shared = ranked_conditions({one: sets[one] for one in sorted(same_images)}, undefended, undegraded)
    speeds, device = rates(results.query("timings", board=board))
    budgeted = board in results.budgeted
    planned = results.query("planned_trials", board=board).set_index("condition")["most"] if budgeted else None
    resampler = Resampler(len(images), filled=budgeted)
    reference_entrant = _reference(members, reference)
    published = published_rates(reference) or _stand_in(members, images, reference)
    of_reference: EntrantResults | None = None
    entrants = []
    for number in sorted(sets, key=lambda number: number != reference_entrant):  # the reference first
        contains = shared <= sets[number]
        tables = share_tables(results.query("shares", entrant=number), len(images), len(conditions))
        ece = calibration[calibration.index == number].set_index("condition")["ece"]
        averaged = (shared if contains else sets[number]) - undegraded
        own = _entrant_results(tables, conditions, averaged, ece, resampler)
        own_device, speed = speeds.get(number, (None, UNKNOWN))
        own = dataclasses.replace(own, images_per_second=speed, num_parameters=parameters[number])
        of_reference = own if number == reference_entrant else of_reference
        compared = published_reference(own, published) if published else of_reference
        one = _board_entrant(number, dataclasses.replace(own, reference=compared), tables)
        if planned is not None:
            counts = planned.reindex(range(len(conditions))).to_numpy(float)
            one.of_images = means_of_images(tables, own.degradation, own.averaged, counts)
        one.outcomes = pack(tables)
        one.same_images = number in same_images
        one.comparable = one.same_images and contains
        if not np.isnan(speed[0]):
            one.device, one.same_device = own_device, own_device == device
        entrants.append(one)
    entrants.sort(key=lambda one: one.entrant)
    rank(entrants)
    ranked = sorted(shared - undegraded)
    return Board(board, conditions, images, entrants, reference_entrant, published, device, ranked)


def _reference(members: pd.DataFrame, name: str) -> int | None:
    """Return the undefended entrant of this name, or else of this model; None where there are several of them."""
    undefended = members[members["defense"] == "none"]
    exact = undefended.index[undefended["name"] == name]
    chosen = exact if len(exact) else undefended.index[undefended["model"] == name]
    return int(chosen[0]) if len(chosen) == 1 else None


WNID = r"n\d{8}"
"""A WordNet id, by which ImageNet names its classes."""


def _stand_in(members: pd.DataFrame, images: pd.DataFrame, reference: str) -> PublishedRates | None:
    """Return the published rates of a model that a board lacks, if the board has all of ImageNet's classes."""
    found = next((rates for rates in PUBLISHED.values() if reference in rates.models), None)
    if found is None or (members["model"] == reference).any():
        return None
    names = images["class_name"].fillna("").astype(str)
    whole = members["classes"].fillna(0).eq(found.classes).all() and names.str.fullmatch(WNID).all()
    return found if whole else None


def share_tables(rows: pd.DataFrame, n_images: int, n_conditions: int) -> dict[str, np.ndarray]:
    """Spread out the rows of the statement `shares`, with NaN where an entrant has none.

    Returns
    -------
    dict of np.ndarray
        `hit`, `changed`, `top5`, `nll` and `trials`, shape (images, conditions) each, and `label`, shape (images,).
    """
    tables: dict[str, np.ndarray] = {}
    for name in (*TABLES.values(), "trials"):
        tables[name] = np.full((n_images, n_conditions), np.nan)
        tables[name][rows["image"], rows["condition"]] = rows[name]
    tables["label"] = np.full(n_images, np.nan)
    tables["label"][rows["image"]] = rows["label"]
    return tables


def _entrant_results(
    tables: dict[str, np.ndarray], conditions: pd.DataFrame, averaged: Set[int], ece: pd.Series, resampler: Resampler
) -> EntrantResults:
    """Return the results of an entrant from its tables; `averaged`: the degraded conditions that its means are over."""
    samples: dict[str, Any] = {name: resampler.means(tables[table]) for name, table in TABLES.items()}
    return EntrantResults(
        degradation=conditions["degradation"].to_numpy(),
        level=conditions["level"].to_numpy(),
        averaged=np.isin(np.arange(len(conditions)), sorted(averaged)),
        **samples,
        class_accuracy=resampler.class_means(tables["hit"], tables["trials"], tables["label"]),
        ece=ece.reindex(range(len(conditions))).to_numpy(float)[None],
        intervals={name: condition_intervals(tables[TABLES[name]], tables["trials"]) for name in SHARES},
    )


def _board_entrant(entrant: int, results: EntrantResults, tables: dict[str, np.ndarray]) -> BoardEntrant:
    """Compute every measure of an entrant, and what else the page shows of it."""
    accuracy, change = results.intervals["accuracy"], results.intervals["label_change"]
    by_degradation = {}
    for name in dict.fromkeys(results.degradation[[i for i in accuracy if results.degradation[i] != "none"]]):
        levels = [i for i in accuracy if results.degradation[i] == name]
        changes = [change[i][0] for i in levels if i in change]
        by_degradation[str(name)] = (
            float(np.mean([accuracy[i][0] for i in levels])),
            float(np.mean(changes)) if changes else float("nan"),
        )
    stats = {name: spec.interval(results) for name, spec in measures.items()}
    return BoardEntrant(
        entrant,
        int((~np.isnan(tables["hit"])).any(1).sum()),
        np.flatnonzero((~np.isnan(tables["trials"])).any(0)).tolist(),
        accuracy,
        change,
        by_degradation,
        {name: interval for name, interval in stats.items() if not np.isnan(interval[0])},
        results.worst,
        _fragile(tables["changed"], results.degradation),
        _degradations_of(results),
        # A copy, because the samples of one condition are a view that would keep those of all conditions in memory.
        samples={name: found.copy() for name, spec in measures.items() if (found := spec.samples(results)) is not None},
    )


def _degradations_of(results: EntrantResults) -> dict[str, int]:
    """Return how many degradations each measure relative to the reference averages."""
    counts = {name: spec.degradations(results) for name, spec in measures.items()}
    return {name: count for name, count in counts.items() if count is not None}


def _fragile(changed: np.ndarray, names: np.ndarray) -> list[tuple[int, float]]:
    """Return the images whose label changes most: means over levels, then over the degradations of the image."""
    sums, counts = np.zeros(len(changed)), np.zeros(len(changed))
    with np.errstate(invalid="ignore"):
        for name in dict.fromkeys(names):
            levels = changed[:, names == name]
            means = np.nansum(levels, 1) / (~np.isnan(levels)).sum(1)
            sums += np.nan_to_num(means)
            counts += ~np.isnan(means)
        share = np.where(counts > 0, sums / counts, -1)
    return [(int(i), float(share[i])) for i in np.argsort(-share, kind="stable")[:FRAGILE] if share[i] > 0]
