"""Adds a measured camera to the page's data: its levels, and the accuracy of entrants under its mix of degradations."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from cnnsens_bench.camera.report import CameraReport
from leaderboard.aggregate import Board
from leaderboard.condition_ranking import ranked_entrants
from leaderboard.conditions import is_named
from leaderboard.ids import board_id, entrant_id
from leaderboard.read import LoadedResults

MEASURE = "camera_accuracy"
DIGITS = 6
COLUMN: dict[str, Any] = {
    "name": MEASURE,
    "heading": "Accuracy at the camera",
    "unit": "%",
    "notation": "percent",
    "digits": 1,
    "higher_is_better": True,
    "explanation": "Accuracy under the mix of degradations that was measured of the camera.",
    "ranked_among": "same_images",
    "needs_reference": False,
    "needs_camera": True,
    "optional": False,
}
"""The column of the ranking, as the page's data describes measures."""


def add_camera(
    content: dict[str, Any], results: LoadedResults, found: Sequence[Board], report: CameraReport | None
) -> None:
    """Add a camera to a page's data.

    Parameters
    ----------
    content
        What `page.data` returns. It gets `camera`: its `name`, the `mix` of degradations as one chain, and for each
        degradation of `levels` the level with its interval; None without a camera. A board gets `camera`: the index of
        the condition that is the mix, or None where it is not measured. There, entrants get the measure
        `camera_accuracy` with its interval, and the ranks that `leaderboard rank --camera` gives.
    results
        What the databases hold.
    found
        The boards of the page.
    report
        What was measured of the camera.
    """
    content["camera"] = _described(report) if report else None
    if report is None:
        return
    shown = {board["id"]: board for board in content["boards"]}
    members = results.entrants.set_index("entrant")
    for board in found:
        row = members[members["board"] == board.board].iloc[0]
        of_page = shown[board_id(row["protocol"], row["dataset"])]
        named = zip(board.conditions["degradation"], board.conditions["level"], strict=True)
        is_mix = [bool(report.mix) and is_named(report.expression, *condition) for condition in named]
        of_page["camera"] = is_mix.index(True) if any(is_mix) else None
        if any(is_mix):
            _add_accuracy(of_page, results, board, of_page["camera"])
    if any(board["camera"] is not None for board in content["boards"]):
        content["columns"] = [*content["columns"][:1], COLUMN, *content["columns"][1:]]


def _described(report: CameraReport) -> dict[str, Any]:
    levels = {name: [level.value, *level.span] for name, level in report.levels.items()}
    return {"name": report.name, "mix": report.expression, "levels": levels}


def _add_accuracy(shown: dict[str, Any], results: LoadedResults, board: Board, condition: int) -> None:
    members = results.entrants.set_index("entrant")
    ids = {one.entrant: entrant_id(members.loc[one.entrant]) for one in board.entrants}
    shares = {number: results.query("shares", entrant=number) for number in ids}
    own = {number: rows[rows["condition"] == condition] for number, rows in shares.items()}
    entrants = {one["id"]: one for one in shown["entrants"]}
    for ranked in map(dataclasses.asdict, ranked_entrants(own, ids, "accuracy")):
        one = entrants[ranked["name"]]
        one["stats"][MEASURE] = [round(ranked[key], DIGITS) for key in ("value", "low", "high")]
        if ranked["first"] is not None:
            one["ranks"][MEASURE] = [ranked["first"], ranked["last"]]
