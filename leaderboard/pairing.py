"""Pairs two entrants: their shares on the same images under the same conditions, and what is left out of the pairs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain
from cnnsens_bench.utils.registry import near
from leaderboard.conditions import chosen_conditions, condition_text, require_known
from leaderboard.read import LoadedResults

KEY = ["degradation", "level"]
COLUMNS = {"accuracy": ("hit", "reference_hit"), "label_change": ("changed", "reference_changed")}
"""By measure: the columns of the statement `pairs` that have the shares of the first and of the second entrant."""
NOUNS = {"accuracy": "accuracy", "label_change": "label change p_Δ"}


@dataclass(frozen=True)
class PairRequest:
    """Which entrants are paired, and over what.

    Parameters
    ----------
    first, second
        The entrants, as `model` or `model:defense`.
    measure
        A key of `COLUMNS`: what is compared.
    conditions
        The conditions to compare under, as `is_named` takes them; none means all.
    """

    first: str
    second: str
    measure: str = "accuracy"
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairedCondition:
    """The shares of two entrants on the images that both have under one condition.

    Parameters
    ----------
    degradation, level
        The condition.
    image
        Shape (images,): the numbers of the images.
    first, second
        Shape (images,), in [0, 1]: the share of an image's trials that are right, or whose label changed.
    trials
        Shape (images,): the number of trials of each image, the same for both entrants.
    """

    degradation: str
    level: float
    image: np.ndarray
    first: np.ndarray
    second: np.ndarray
    trials: np.ndarray


@dataclass(frozen=True)
class PairedBoard:
    """Two entrants of one protocol and data set.

    Parameters
    ----------
    protocol, dataset
        The board.
    first, second
        The numbers of the entrants in the results that were read.
    conditions
        What is paired, the undegraded condition first.
    left_out
        A sentence for each reason for which something is left out.
    """

    protocol: str
    dataset: str
    first: int
    second: int
    conditions: list[PairedCondition]
    left_out: list[str]


def pair_boards(results: LoadedResults, request: PairRequest) -> list[PairedBoard]:
    """Pair two entrants on every board that both are on.

    Parameters
    ----------
    results
        What the databases hold. Where one of them is a baseline, the first entrant is taken from it, and the second one
        from the others.
    request
        Which entrants, and over what.

    Returns
    -------
    list of PairedBoard
        The boards with at least one pair, by protocol and data set.

    Raises
    ------
    UserError
        Where a name is unknown, the two are one entrant, they share nothing that can be paired, or a condition that is
        asked for is not among what they share.
    """
    boards: list[PairedBoard] = []
    known: set[tuple[str, float]] = set()
    for (protocol, dataset), shared in _shared_boards(results, request).iterrows():
        first, second = int(shared["a"]), int(shared["b"])
        conditions = results.query("conditions", board=int(shared["board"]))
        pairs = results.query("pairs", first=first, second=second)
        measured = pairs.dropna(subset=list(COLUMNS[request.measure]))
        known |= set(conditions.loc[measured["condition"].unique(), KEY].itertuples(index=False, name=None))
        conditions = conditions[chosen_conditions(conditions, request.conditions)]
        found = list(_paired_conditions(measured, conditions, request.measure))
        if found:
            sentences = [
                *_left_out(results, first, second, conditions),
                *_without_reference(pairs, conditions, request),
            ]
            boards.append(PairedBoard(protocol, dataset, first, second, found, sentences))
    if not known:
        raise UserError(
            f"'{plain(request.first)}' and '{plain(request.second)}' have no image in common under one protocol, "
            "condition and number of trials: nothing to pair, unless both are run with the same suite and keys"
        )
    require_known(request.conditions, known)
    return boards


def _shared_boards(results: LoadedResults, request: PairRequest) -> pd.DataFrame:
    """Return the boards that both entrants are on, by protocol and data set, with the entrants' numbers `a` and `b`.

    Raise `UserError` where a name is unknown, or both are one entrant.
    """
    entrants, boards = results.entrants.set_index("board"), results.boards.set_index("board", drop=False)
    names = entrants["entrant"].map(entrant_names(results.entrants))
    against = bool(entrants["baseline"].any())
    for side, name in (("a", request.first), ("b", request.second)):
        candidates = entrants["baseline"] == (side == "a") if against else entrants["entrant"] >= 0
        found = entrants["entrant"][candidates & (names == name)]
        if found.empty:
            source = f" in the database of {'--against' if side == 'a' else '--db'}" if against else ""
            raise UserError(f"unknown entrant '{plain(name)}'{source}{near(name, sorted(set(names[candidates])))}")
        boards = boards.join(found.rename(side), how="inner")
    if request.first == request.second and not against:
        raise UserError(f"'{plain(request.first)}' is compared with itself: name two entrants")
    return boards.set_index(["protocol", "dataset"])


def entrant_names(members: pd.DataFrame) -> dict[int, str]:
    """Return the names of entrants as users give them, by their numbers."""
    names = members["name"].where(members["defense"] == "none", members["name"] + ":" + members["defense"])
    return dict(zip(members["entrant"].tolist(), names, strict=True))


def _paired_conditions(pairs: pd.DataFrame, conditions: pd.DataFrame, measure: str) -> Iterator[PairedCondition]:
    first, second = COLUMNS[measure]
    for condition, own in pairs[pairs["condition"].isin(conditions.index)].groupby("condition"):
        degradation, level = conditions.loc[condition, KEY]
        columns = (own[name].to_numpy() for name in ("image", first, second, "trials"))
        yield PairedCondition(degradation, float(level), *columns)


def _left_out(results: LoadedResults, first: int, second: int, conditions: pd.DataFrame) -> Iterator[str]:
    """Say which conditions or images of one of two entrants are left out, and why."""
    own, other = (
        results.query("shares", entrant=entrant).set_index(["condition", "image"])["trials"]
        for entrant in (first, second)
    )
    pairs = pd.concat({"a": own, "b": other}, axis=1)
    pairs = pairs[pairs.index.get_level_values("condition").isin(conditions.index)]
    unlike = pairs.dropna()[lambda both: both["a"] != both["b"]]
    for (a, b), rows in unlike.groupby(["a", "b"]):
        listed = _counted(rows.index.get_level_values("condition"), conditions)
        yield f"Left out, for A has {a:.0f} and B {b:.0f} trials of an image: {listed}."
    measured = {side: set(pairs.index[pairs[side].notna()].get_level_values("condition")) for side in "ab"}
    for has, lacks in ("ab", "ba"):
        if alone := sorted(measured[has] - measured[lacks]):
            listed = ", ".join(condition_text(*conditions.loc[i, KEY]) for i in alone)
            yield f"Left out, for only {has.upper()} was measured under it: {listed}."
        single = pairs[pairs[lacks].isna()].index.to_frame(index=False)
        single = single[single["condition"].isin(measured[lacks])]
        if not single.empty:
            counts = single["condition"].value_counts().reindex(sorted(measured["a"] & measured["b"]), fill_value=0)
            everywhere = counts.nunique() == 1 and single["image"].nunique() == counts.iloc[0]
            listed = f"{counts.iloc[0]} images" if everywhere else _counted(single["condition"], conditions)
            yield f"Left out, for only {has.upper()} has them: {listed}."


def _without_reference(pairs: pd.DataFrame, conditions: pd.DataFrame, request: PairRequest) -> Iterator[str]:
    """Say which degraded images are left out because nothing tells what their label was on the undegraded image."""
    if request.measure == "label_change":
        degraded = conditions.index[conditions["degradation"] != "none"]
        own = pairs[pairs["condition"].isin(degraded)]
        own = own[own[list(COLUMNS[request.measure])].isna().any(axis=1)]
        if not own.empty:
            listed = _counted(own["condition"], conditions)
            yield f"Left out, for an entrant lacks their undegraded prediction: {listed}."


def _counted(numbers: Iterable[int], conditions: pd.DataFrame) -> str:
    """List conditions with the number of images that each stands for."""
    counts = pd.Series(list(numbers)).value_counts().sort_index()
    return ", ".join(f"{condition_text(*conditions.loc[i, KEY])} ({count} images)" for i, count in counts.items())
