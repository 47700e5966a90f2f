"""Collects what the databases say of one entrant on each of its boards: what the page shows, and its failure points."""

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cnnsens_bench.utils.errors import UserError
from cnnsens_bench.utils.formatting import plain
from cnnsens_bench.utils.registry import near
from leaderboard.failure_points import class_counts, entrant_failure_points
from leaderboard.page import data
from leaderboard.pairing import entrant_names
from leaderboard.read import LoadedResults


@dataclass(frozen=True)
class EntrantFacts:
    """What is known of an entrant on one board.

    Parameters
    ----------
    board, entrant
        What the page's data has of them.
    images
        The number of images under each condition of the board, 0 where the entrant lacks it.
    failure_points
        As `measures.failure_points.failure_points` returns them.
    runs
        The runs that made the numbers, as the page's data has them.
    configs
        The configs of these runs.
    """

    board: dict[str, Any]
    entrant: dict[str, Any]
    images: list[int]
    failure_points: pd.DataFrame
    runs: list[dict[str, Any]]
    configs: list[dict[str, Any]]

    @property
    def averaged(self) -> list[int]:
        """The degraded conditions that its means are over: those that ranked entrants share, or all its own."""
        conditions = self.board["conditions"]
        own = [number for number, count in enumerate(self.images) if count]
        degraded = [number for number in own if conditions[number]["degradation"] != "none"]
        return (
            [number for number in degraded if number in self.board["ranked"]]
            if self.is_averaged_as_others
            else degraded
        )

    @property
    def is_averaged_as_others(self) -> bool:
        """Whether it has all conditions that the ranked entrants share, so that its means are over those."""
        missing = set(self.entrant["missing"])
        undegraded = {number for number in missing if self.board["conditions"][number]["degradation"] == "none"}
        return not missing & {*self.board["ranked"], *undegraded}


def entrant_facts(results: LoadedResults, name: str) -> list[EntrantFacts]:
    """Return what is known of an entrant on each board that it is on.

    Parameters
    ----------
    results
        What the databases hold.
    name
        The entrant, as `model` or `model:defense`.

    Raises
    ------
    UserError
        Where there is no such entrant.
    """
    names = entrant_names(results.entrants)
    numbers = [number for number, known in names.items() if known == name]
    if not numbers:
        raise UserError(f"unknown entrant '{plain(name)}'{near(name, sorted(set(names.values())))}")
    content = data(results, "")
    found = []
    for row in results.entrants[results.entrants["entrant"].isin(numbers)].to_dict("records"):
        key = (row["protocol"], row["dataset"])
        [board] = [one for one in content["boards"] if (one["protocol"], one["dataset"]) == key]
        [entrant] = [
            one for one in board["entrants"] if (one["model"], one["defense"]) == (row["name"], row["defense"])
        ]
        shares = results.query("shares", entrant=row["entrant"])
        conditions = pd.DataFrame(board["conditions"])
        counts = shares.dropna(subset=["hit"]).groupby("condition").size()
        of_runs = results.runs[results.runs["run_id"].isin(entrant["runs"])]
        found.append(
            EntrantFacts(
                board,
                entrant,
                counts.reindex(range(len(board["conditions"])), fill_value=0).tolist(),
                entrant_failure_points(shares, conditions, class_counts(results, row["board"])[row["entrant"]]),
                [content["runs"][run_id] for run_id in entrant["runs"]],
                [json.loads(config or "{}") for config in of_runs["config"]],
            )
        )
    return found
